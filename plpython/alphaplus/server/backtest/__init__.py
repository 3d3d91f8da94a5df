"""Back-tests of predictions: what trading them would have earned, and whether that is skill."""
