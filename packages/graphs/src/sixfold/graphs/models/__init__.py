"""The systems: one folder a system."""
