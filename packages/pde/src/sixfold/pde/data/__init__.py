"""Data sets of flows: generated here, or read where they lie."""
