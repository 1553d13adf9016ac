"""Image models: RePaViT, CFSR and FDConv."""

from sixfold.vision.models.fdconv import SEGMENTER as FDCONV_SEGMENTER
from sixfold.vision.models.fdconv import SYSTEM as FDCONV
from sixfold.vision.models.fdconv import (
    FDConv1d,
    FDConv2d,
    FDConvConfig,
    FDConvNet,
    FDLinear,
    Segmenter,
    SegmenterConfig,
)

SYSTEMS = (FDCONV, FDCONV_SEGMENTER)

__all__ = [
    "SYSTEMS",
    "FDConv1d",
    "FDConv2d",
    "FDConvConfig",
    "FDConvNet",
    "FDLinear",
    "Segmenter",
    "SegmenterConfig",
]
