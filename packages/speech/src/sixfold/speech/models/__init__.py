"""The systems and their baselines: one file or one folder per system."""
