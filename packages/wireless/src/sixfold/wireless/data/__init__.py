"""The published recordings and what stands in for them."""
