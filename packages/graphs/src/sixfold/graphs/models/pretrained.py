"""Checkpoints of estimators: one .safetensors file with weights and settings."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.core import System, UserError, from_pretrained
from sixfold.core.weights.convert import read_state_dict, save_pretrained
from sixfold.core.weights.published import find_weights


def save(path: str | Path, model: Any, system: str) -> None:
    """Write a checkpoint, which `load` reads.

    Args:
        path: Path of the file, which ends in .safetensors.
        model: Estimator, with its ``config``.
        system: Name of the system.

    Raises:
        UserError: the path has another ending, or cannot be written.
    """
    if Path(path).suffix != ".safetensors":
        name = Path(path).stem or "model"
        raise UserError(f"a checkpoint is a .safetensors file; give a path like {name}.safetensors")
    save_pretrained(path, model, system, model.config)


def load(path: str | Path, system: System, build: Callable[[Any], nn.Module]) -> nn.Module:
    """Load an official or a sixfold checkpoint, in eval mode and in the precision it was saved in.

    Args:
        path: Path of the file.
        system: Record of the system.
        build: Function that makes the estimator from its settings.

    Raises:
        UserError: the file is missing, damaged, or another system's.
    """
    state = read_state_dict(find_weights(path, system))
    dtypes = [value.dtype for value in state.values() if value.is_floating_point()]
    dtype = dtypes[0] if dtypes else torch.float32
    return from_pretrained(path, replace(system, build=lambda config: build(config).to(dtype)))


def refuse_other_sizes(model: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Say in one line what a state dict lacks: the sizes that ``fit`` chose; a hook of estimators.

    Raises:
        UserError: a tensor has another shape than the estimator's.
    """
    for key, own in model.state_dict().items():
        given = state.get(prefix + key, own)
        if given.shape != own.shape:
            name = type(model).__name__
            raise UserError(
                f"{key} is {tuple(given.shape)}, this {name} has {tuple(own.shape)}: a state dict "
                "holds no settings. Save with model.save('m.safetensors') and load with "
                f"{name}.from_pretrained, or build it with the features and classes of the fitted "
                "model"
            )
