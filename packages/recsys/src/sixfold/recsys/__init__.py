"""Recommendation models: FinalMLP, FCN and DTRN."""

from sixfold.recsys.models.fcn import (
    ECN,
    ECN_SYSTEM,
    FCN,
    LCN,
    LCN_SYSTEM,
    ECNConfig,
    FCNConfig,
    LCNConfig,
)
from sixfold.recsys.models.fcn import SYSTEM as FCN_SYSTEM
from sixfold.recsys.models.finalmlp import DUALMLP, DualMLP, DualMLPConfig, FinalMLP, FinalMLPConfig
from sixfold.recsys.models.finalmlp import SYSTEM as FINALMLP

SYSTEMS = (FINALMLP, DUALMLP, FCN_SYSTEM, ECN_SYSTEM, LCN_SYSTEM)

__all__ = [
    "ECN",
    "FCN",
    "LCN",
    "SYSTEMS",
    "DualMLP",
    "DualMLPConfig",
    "ECNConfig",
    "FCNConfig",
    "FinalMLP",
    "FinalMLPConfig",
    "LCNConfig",
]
