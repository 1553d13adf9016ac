"""Image models: RePaViT, CFSR and FDConv."""

from sixfold.vision.images import imresize, upscale
from sixfold.vision.metrics import psnr_y, ssim_y
from sixfold.vision.models.cfsr import CFSR, CFSRConfig
from sixfold.vision.models.cfsr import SYSTEM as CFSR_SYSTEM
from sixfold.vision.models.edsr import EDSR, EDSRConfig
from sixfold.vision.models.edsr import SYSTEM as EDSR_SYSTEM
from sixfold.vision.models.imdn import IMDN, IMDNConfig
from sixfold.vision.models.imdn import SYSTEM as IMDN_SYSTEM
from sixfold.vision.models.pan import PAN, PANConfig
from sixfold.vision.models.pan import SYSTEM as PAN_SYSTEM
from sixfold.vision.models.repavit import SYSTEM as REPAVIT
from sixfold.vision.models.repavit import RePaViT, RePaViTConfig, register

SYSTEMS = (REPAVIT, CFSR_SYSTEM, PAN_SYSTEM, IMDN_SYSTEM, EDSR_SYSTEM)
SCORE = "sixfold.vision.scoring:score"  # behind `sixfold score vision`

__all__ = [
    "CFSR",
    "EDSR",
    "IMDN",
    "PAN",
    "SYSTEMS",
    "CFSRConfig",
    "EDSRConfig",
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
