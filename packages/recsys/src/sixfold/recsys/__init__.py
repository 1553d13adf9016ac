"""Recommendation models: FinalMLP, FCN and DTRN."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sixfold.recsys.models.crossnet_v2 import SYSTEM as CROSSNET_V2
from sixfold.recsys.models.crossnet_v2 import CrossNetV2, CrossNetV2Config
from sixfold.recsys.models.dcnv2 import SYSTEM as DCNV2
from sixfold.recsys.models.dcnv2 import DCNv2, DCNv2Config
from sixfold.recsys.models.dnn import DNN, DNNConfig
from sixfold.recsys.models.dnn import SYSTEM as DNN_SYSTEM
from sixfold.recsys.models.dtrn import DTRN, DTRNConfig
from sixfold.recsys.models.dtrn import SYSTEM as DTRN_SYSTEM
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
from sixfold.recsys.models.fm import FM, FMConfig
from sixfold.recsys.models.fm import SYSTEM as FM_SYSTEM
from sixfold.recsys.models.lr import LR, LRConfig
from sixfold.recsys.models.lr import SYSTEM as LR_SYSTEM
from sixfold.recsys.models.mmoe import SYSTEM as MMOE
from sixfold.recsys.models.mmoe import MMoE, MMoEConfig
from sixfold.recsys.models.ple import PLE, PLEConfig
from sixfold.recsys.models.ple import SYSTEM as PLE_SYSTEM
from sixfold.recsys.models.shared_bottom import SYSTEM as SHARED_BOTTOM
from sixfold.recsys.models.shared_bottom import SharedBottom, SharedBottomConfig

if TYPE_CHECKING:  # what a type checker sees; `_TABLES` says the same to Python
    from sixfold.recsys.tables.encoder import Encoder
    from sixfold.recsys.tables.infer import infer_schema
    from sixfold.recsys.tables.schema import Schema

SYSTEMS = (
    FINALMLP,
    DUALMLP,
    FCN_SYSTEM,
    ECN_SYSTEM,
    LCN_SYSTEM,
    LR_SYSTEM,
    FM_SYSTEM,
    DNN_SYSTEM,
    CROSSNET_V2,
    DCNV2,
    DTRN_SYSTEM,
    SHARED_BOTTOM,
    MMOE,
    PLE_SYSTEM,
)

SCORE = "sixfold.recsys.scoring:score"  # behind `sixfold score recsys`
# Imported when first asked for: polars and pyarrow are for those who have tables.
_TABLES = {"Encoder": "encoder", "Schema": "schema", "infer_schema": "infer"}

__all__ = [
    "DNN",
    "DTRN",
    "ECN",
    "FCN",
    "FM",
    "LCN",
    "LR",
    "PLE",
    "SYSTEMS",
    "CrossNetV2",
    "CrossNetV2Config",
    "DCNv2",
    "DCNv2Config",
    "DNNConfig",
    "DTRNConfig",
    "DualMLP",
    "DualMLPConfig",
    "ECNConfig",
    "Encoder",
    "FCNConfig",
    "FMConfig",
    "FinalMLP",
    "FinalMLPConfig",
    "LCNConfig",
    "LRConfig",
    "MMoE",
    "MMoEConfig",
    "PLEConfig",
    "Schema",
    "SharedBottom",
    "SharedBottomConfig",
    "infer_schema",
]


def __getattr__(name: str) -> Any:
    if name in _TABLES:
        return getattr(import_module(f"sixfold.recsys.tables.{_TABLES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
