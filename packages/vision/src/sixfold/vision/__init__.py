"""Image models: RePaViT, CFSR and FDConv."""

SYSTEMS = ()

__all__ = ["SYSTEMS"]
