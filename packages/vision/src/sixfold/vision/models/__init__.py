"""The systems, a folder each, and their baselines."""
