"""System, Config, Run and fit: four ideas, no framework.

Only the first two and the reading of checkpoints are imported here, because every domain needs
them; ``from sixfold.core.training.fit import fit`` costs more and is paid by those who train.
"""

from sixfold.core.config import Config, UserError
from sixfold.core.system import System
from sixfold.core.weights.convert import from_pretrained, load_strict, rename

__all__ = ["Config", "System", "UserError", "from_pretrained", "load_strict", "rename"]
