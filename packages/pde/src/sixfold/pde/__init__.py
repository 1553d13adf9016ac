"""Neural solvers of partial differential equations: SineNet and LESnets."""

from sixfold.pde.losses import scaled_norm
from sixfold.pde.metrics import mean_error, rollout_error, scaled_l2
from sixfold.pde.models.dil_resnet import SYSTEM as DIL_RESNET
from sixfold.pde.models.dil_resnet import DilResNet, DilResNetConfig
from sixfold.pde.models.ffno import FFNO, FFNOConfig
from sixfold.pde.models.ffno import SYSTEM as FFNO_SYSTEM
from sixfold.pde.models.fno import FNO, FNOConfig
from sixfold.pde.models.fno import SYSTEM as FNO_SYSTEM
from sixfold.pde.models.lesnets import SYSTEM as LESNETS
from sixfold.pde.models.lesnets import LESnets, LESnetsConfig
from sixfold.pde.models.sinenet import ODE_SYSTEM as SINENET_ODE
from sixfold.pde.models.sinenet import SYSTEM as SINENET
from sixfold.pde.models.sinenet import SineNet, SineNetConfig, SineNetODE, SineNetODEConfig
from sixfold.pde.models.unet_mod import SYSTEM as UNET_MOD
from sixfold.pde.models.unet_mod import UNetMod, UNetModConfig

SYSTEMS = (
    SINENET,
    SINENET_ODE,
    LESNETS,
    UNET_MOD,
    DIL_RESNET,
    FFNO_SYSTEM,
    FNO_SYSTEM,
)
SCORE = "sixfold.pde.scoring:score"  # behind `sixfold score pde`

__all__ = [
    "FFNO",
    "FNO",
    "SYSTEMS",
    "DilResNet",
    "DilResNetConfig",
    "FFNOConfig",
    "FNOConfig",
    "LESnets",
    "LESnetsConfig",
    "SineNet",
    "SineNetConfig",
    "SineNetODE",
    "SineNetODEConfig",
    "UNetMod",
    "UNetModConfig",
    "mean_error",
    "rollout_error",
    "scaled_l2",
    "scaled_norm",
]
