"""Wireless models: CMuSeNet, AdaFortiTran and ICGNN."""

<<<<<<< HEAD
from sixfold.wireless.models.cmusenet import SYSTEM as CMUSENET
from sixfold.wireless.models.cmusenet import CMuSeNet, CMuSeNetConfig
from sixfold.wireless.models.rvnn import RVNN, RVNNConfig
from sixfold.wireless.models.rvnn import SYSTEM as RVNN_SYSTEM
=======
from sixfold.wireless.models import adafortitran

SYSTEMS = (adafortitran.SYSTEM, adafortitran.FORTITRAN, adafortitran.LINEAR)
>>>>>>> wireless-2

SYSTEMS = (CMUSENET, RVNN_SYSTEM)

__all__ = ["RVNN", "SYSTEMS", "CMuSeNet", "CMuSeNetConfig", "RVNNConfig"]
