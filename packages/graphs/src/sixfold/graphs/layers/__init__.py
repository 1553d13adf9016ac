"""Layers that several systems share: message passing of PyG, attention, blocks of features."""
