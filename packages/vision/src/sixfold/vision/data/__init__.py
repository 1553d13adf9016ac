"""Published sets of pictures, splits, synthetic pictures."""
