"""Wireless models: CMuSeNet, AdaFortiTran and ICGNN."""

from sixfold.wireless.models.cmusenet import SYSTEM as CMUSENET
from sixfold.wireless.models.cmusenet import CMuSeNet, CMuSeNetConfig

SYSTEMS = (CMUSENET,)

__all__ = ["SYSTEMS", "CMuSeNet", "CMuSeNetConfig"]
