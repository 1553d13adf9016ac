"""One file or folder a system."""
