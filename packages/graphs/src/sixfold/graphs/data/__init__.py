"""Graphs: catalog, loading, splits, synthetic data, validation."""
