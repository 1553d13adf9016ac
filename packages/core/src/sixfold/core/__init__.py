"""System, Config, Run and fit: four ideas, no framework.

Only the first two and the reading of checkpoints are imported here, because every domain needs
them; ``from sixfold.core.fit import fit`` costs more and is paid by those who train.
"""

from sixfold.core.config import Config, UserError
from sixfold.core.convert import from_pretrained, load_strict, rename
from sixfold.core.system import System

__all__ = ["Config", "System", "UserError", "from_pretrained", "load_strict", "rename"]
