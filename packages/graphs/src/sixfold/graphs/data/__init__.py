"""Graphs: catalog, loading, splits, synthetic stand-ins, validation."""
