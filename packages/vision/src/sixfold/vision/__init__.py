"""Image models: RePaViT, CFSR and FDConv."""

from sixfold.vision.images import imresize, upscale
from sixfold.vision.metrics import psnr_y, ssim_y
from sixfold.vision.models.cfsr import CFSR, CFSRConfig
from sixfold.vision.models.cfsr import SYSTEM as CFSR_SYSTEM
from sixfold.vision.models.edsr import EDSR, EDSRConfig
from sixfold.vision.models.edsr import SYSTEM as EDSR_SYSTEM
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
from sixfold.vision.models.imdn import IMDN, IMDNConfig
from sixfold.vision.models.imdn import SYSTEM as IMDN_SYSTEM
from sixfold.vision.models.pan import PAN, PANConfig
from sixfold.vision.models.pan import SYSTEM as PAN_SYSTEM
from sixfold.vision.models.repavit import SYSTEM as REPAVIT
from sixfold.vision.models.repavit import RePaViT, RePaViTConfig, register

SYSTEMS = (
    REPAVIT,
    CFSR_SYSTEM,
    FDCONV,
    FDCONV_SEGMENTER,
    PAN_SYSTEM,
    IMDN_SYSTEM,
    EDSR_SYSTEM,
)
SCORE = "sixfold.vision.scoring:score"  # behind `sixfold score vision`

__all__ = [
    "CFSR",
    "EDSR",
    "IMDN",
    "PAN",
    "SYSTEMS",
    "CFSRConfig",
    "EDSRConfig",
    "FDConv1d",
    "FDConv2d",
    "FDConvConfig",
    "FDConvNet",
    "FDLinear",
    "IMDNConfig",
    "PANConfig",
    "RePaViT",
    "RePaViTConfig",
    "Segmenter",
    "SegmenterConfig",
    "imresize",
    "psnr_y",
    "register",
    "ssim_y",
    "upscale",
]
