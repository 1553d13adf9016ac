"""Image models: RePaViT, CFSR and FDConv."""

from sixfold.vision.models.fdconv import SYSTEM as FDCONV
from sixfold.vision.models.fdconv import FDConv1d, FDConv2d, FDConvConfig, FDConvNet, FDLinear

SYSTEMS = (FDCONV,)

__all__ = [
    "SYSTEMS",
    "FDConv1d",
    "FDConv2d",
    "FDConvConfig",
    "FDConvNet",
    "FDLinear",
]
