"""The systems and their baselines."""
