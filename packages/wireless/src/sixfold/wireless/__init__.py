"""Wireless models: CMuSeNet, AdaFortiTran and ICGNN."""

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

SYSTEMS = (ICGNN_SYSTEM, ICGNN_CELL_FREE)

__all__ = [
    "ICGNN",
    "SYSTEMS",
    "CellFreeICGNN",
    "CellFreeICGNNConfig",
    "ICGNNConfig",
    "allocate_power",
    "precode",
]
