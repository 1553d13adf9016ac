"""Wireless models: CMuSeNet, AdaFortiTran and ICGNN."""

from sixfold.wireless.models.adafortitran import (
    FORTITRAN,
    LINEAR,
    AdaFortiTran,
    AdaFortiTranConfig,
    FortiTran,
    FortiTranConfig,
    Linear,
    LinearConfig,
)
from sixfold.wireless.models.adafortitran import SYSTEM as ADAFORTITRAN
from sixfold.wireless.models.cmusenet import SYSTEM as CMUSENET
from sixfold.wireless.models.cmusenet import CMuSeNet, CMuSeNetConfig
from sixfold.wireless.models.icgnn import CELL_FREE as ICGNN_CELL_FREE
from sixfold.wireless.models.icgnn import (
    ICGNN,
    CellFreeICGNN,
    CellFreeICGNNConfig,
    ICGNNConfig,
    allocate_power,
    precode,
)
from sixfold.wireless.models.icgnn import SYSTEM as ICGNN_SYSTEM
from sixfold.wireless.models.rvnn import RVNN, RVNNConfig
from sixfold.wireless.models.rvnn import SYSTEM as RVNN_SYSTEM

SYSTEMS = (
    CMUSENET,
    RVNN_SYSTEM,
    ADAFORTITRAN,
    FORTITRAN,
    LINEAR,
    ICGNN_SYSTEM,
    ICGNN_CELL_FREE,
)
SCORE = "sixfold.wireless.scoring:score"  # behind `sixfold score wireless`

__all__ = [
    "ICGNN",
    "RVNN",
    "SYSTEMS",
    "AdaFortiTran",
    "AdaFortiTranConfig",
    "CMuSeNet",
    "CMuSeNetConfig",
    "CellFreeICGNN",
    "CellFreeICGNNConfig",
    "FortiTran",
    "FortiTranConfig",
    "ICGNNConfig",
    "Linear",
    "LinearConfig",
    "RVNNConfig",
    "allocate_power",
    "precode",
]
