"""Checkpoints from elsewhere, published weights by name, and export."""
