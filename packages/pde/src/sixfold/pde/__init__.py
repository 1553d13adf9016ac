"""Neural solvers of partial differential equations: SineNet and LESnets."""

from sixfold.pde.models.lesnets import SYSTEM as LESNETS
from sixfold.pde.models.lesnets import LESnets, LESnetsConfig

SYSTEMS = (LESNETS,)

__all__ = ["SYSTEMS", "LESnets", "LESnetsConfig"]
