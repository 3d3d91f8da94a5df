"""What analysts ask of the market's history."""
