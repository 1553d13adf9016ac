"""System, Config, Run and fit: four ideas, no framework.

Only the first two and the reading of checkpoints are handed on here, because every domain needs
them; ``from sixfold.core.training.fit import fit`` costs more and is paid by those who train. A
name is imported when it is first asked for, so that the command's help needs no PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what a type checker sees; `_HOMES` says the same to Python
    from sixfold.core.config import Config, UserError
    from sixfold.core.own_data import train
    from sixfold.core.system import System
    from sixfold.core.weights.convert import from_pretrained, load_strict, rename

__all__ = ["Config", "System", "UserError", "from_pretrained", "load_strict", "rename", "train"]

_HOMES = {
    "config": ("Config", "UserError"),
    "own_data": ("train",),
    "system": ("System",),
    "weights.convert": ("from_pretrained", "load_strict", "rename"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"sixfold.core.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
