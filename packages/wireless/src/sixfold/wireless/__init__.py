"""Wireless models: CMuSeNet, AdaFortiTran and ICGNN."""

from sixfold.wireless.models.cmusenet import SYSTEM as CMUSENET
from sixfold.wireless.models.cmusenet import CMuSeNet, CMuSeNetConfig
from sixfold.wireless.models.rvnn import RVNN, RVNNConfig
from sixfold.wireless.models.rvnn import SYSTEM as RVNN_SYSTEM

SYSTEMS = (CMUSENET, RVNN_SYSTEM)

__all__ = ["RVNN", "SYSTEMS", "CMuSeNet", "CMuSeNetConfig", "RVNNConfig"]
