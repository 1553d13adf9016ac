"""The published tables and what stands in for them."""
