"""Image models: RePaViT, CFSR and FDConv."""

from sixfold.vision.models.repavit import SYSTEM as REPAVIT
from sixfold.vision.models.repavit import RePaViT, RePaViTConfig, register

SYSTEMS = (REPAVIT,)

__all__ = ["SYSTEMS", "RePaViT", "RePaViTConfig", "register"]
