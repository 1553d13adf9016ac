"""Image models: RePaViT, CFSR and FDConv."""

from sixfold.vision.images import imresize, upscale
from sixfold.vision.metrics import psnr_y, ssim_y
from sixfold.vision.models.cfsr import CFSR, CFSRConfig
from sixfold.vision.models.cfsr import SYSTEM as CFSR_SYSTEM
from sixfold.vision.models.imdn import IMDN, IMDNConfig
from sixfold.vision.models.imdn import SYSTEM as IMDN_SYSTEM
from sixfold.vision.models.pan import PAN, PANConfig
from sixfold.vision.models.pan import SYSTEM as PAN_SYSTEM
from sixfold.vision.models.repavit import SYSTEM as REPAVIT
from sixfold.vision.models.repavit import RePaViT, RePaViTConfig, register

SYSTEMS = (REPAVIT, CFSR_SYSTEM, PAN_SYSTEM, IMDN_SYSTEM)

__all__ = [
    "CFSR",
    "IMDN",
    "PAN",
    "SYSTEMS",
    "CFSRConfig",
    "IMDNConfig",
    "PANConfig",
    "RePaViT",
    "RePaViTConfig",
    "imresize",
    "psnr_y",
    "register",
    "ssim_y",
    "upscale",
]
