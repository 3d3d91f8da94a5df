"""Labels, row filters and the matrices that the trainer reads."""
