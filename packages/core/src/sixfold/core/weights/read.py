"""Find the weights in what a checkpoint holds, whoever saved it, and check that they are weights.

sixfold's own checkpoint is one .safetensors file whose metadata name the system and hold its
settings and a checksum.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sixfold.core.config import UserError
from sixfold.core.messages import shown, some
from sixfold.core.weights.files import OWN, SETTINGS, read_file, read_metadata

# Where trainers put the weights among other things; the last two are basicsr's.
NESTS = ("state_dict", "model_state_dict", "model", "params_ema", "params")
PREFIXES = ("module.", "_orig_mod.", "model.")  # DistributedDataParallel, torch.compile, wrappers
MOST_LEVELS = 8  # of nests and of prefixes
LONGEST_KEY = 500
SLACK = 2**26  # bytes that views of small storages may add up to


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    Args:
        state: Weights by name, on the CPU.
        system: Name of the system in sixfold's own checkpoint; None in any other.
        settings: Its settings.
    """

    state: dict[str, Tensor]
    system: str | None
    settings: dict[str, Any]


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of a .safetensors or torch checkpoint; see `read_checkpoint`."""
    return read_checkpoint(path).state


def read_pretrained(path: str | Path) -> tuple[str, dict[str, Any]] | None:
    """Read the system's name and settings from sixfold's own checkpoint; None from any other."""
    name, settings = _identify(Path(path), read_metadata(Path(path)))
    return None if name is None else (name, settings)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a .safetensors or torch checkpoint, told apart by content.

    Unwraps ``{"state_dict": ...}`` and the like, and strips ``module.`` and ``model.`` where every
    key begins so. Foreign weights of other precisions become float32, in which the systems compute.

    Raises:
        UserError: missing, damaged, refused, not a state dict, or with NaN.
    """
    path = Path(path)
    found, metadata = read_file(path)
    name, settings = _identify(path, metadata)
    state = _unwrap(found, path)
    _check_sizes(state, path)
    if name is None:
        state = {key: _single(key, value, path) for key, value in state.items()}
        for _ in range(MOST_LEVELS):
            prefix = next((p for p in PREFIXES if all(key.startswith(p) for key in state)), None)
            if prefix is None:
                break
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    if broken := [key for key, value in state.items() if _has_nan(value)]:
        raise UserError(f"{path} holds NaN in {some(broken, 3)}; its training had failed by then")
    return Checkpoint(state, name, settings)


def _identify(path: Path, metadata: Mapping[str, str]) -> tuple[str | None, dict[str, Any]]:
    """Return the system and the settings that the metadata of sixfold's own checkpoint say."""
    if OWN not in metadata:
        return None, {}
    try:
        settings = json.loads(metadata[SETTINGS])
    except (KeyError, ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        name = shown(metadata[OWN])
        raise UserError(f"{path} names {name} but holds no settings; save the model again")
    return metadata[OWN], settings


def _unwrap(found: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict in what was saved.

    Raises:
        UserError: there is none, or more than one.
    """
    for _ in range(MOST_LEVELS):
        if not isinstance(found, Mapping) or (nest := _nest(found)) is None:
            break
        found = found[nest]
    else:
        raise UserError(f"{path} holds nests in nests in nests; save its state dict alone")
    if not isinstance(found, Mapping) or not found:
        raise UserError(f"{path} holds no state dict but {shown(found)}")
    others = [f"{k} ({type(v).__name__})" for k, v in found.items() if not isinstance(v, Tensor)]
    if others:
        raise UserError(f"{path} is no state dict: it holds {some(others, 5, longest=30)}")
    if odd := [key for key in found if not isinstance(key, str) or len(key) > LONGEST_KEY]:
        raise UserError(f"{path} is no state dict: {shown(odd[0])} is no name of a tensor")
    return {key: value.detach() for key, value in found.items()}


def _nest(found: Mapping[Any, Any]) -> Any:
    """Return the key of the state dict among what a trainer saved; None if there is no such key."""
    for name in NESTS:
        if isinstance(found.get(name), Mapping):
            return name
    nests = [key for key, value in found.items() if isinstance(value, Mapping) and value]
    if len(nests) == len(found) == 1:
        return nests[0]
    nests = [key for key in nests if all(isinstance(v, Tensor) for v in found[key].values())]
    if len(nests) == 1 and not any(isinstance(value, Tensor) for value in found.values()):
        return nests[0]
    return next((name for name in NESTS if name in found), None)


def _check_sizes(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that are not plain numbers, or views that claim far more than is stored.

    A view of stride zero makes a terabyte of four bytes; a weight that is tied, or saved under two
    names, is fine.
    """
    for key, value in state.items():
        if value.layout != torch.strided or value.is_quantized or value.is_nested:
            raise UserError(
                f"{path} holds a sparse, quantised or nested {shown(key)}; save it dense"
            )
        if value.device.type != "cpu":
            raise UserError(f"{path} holds {shown(key)} without numbers (meta); save the weights")
    size = path.stat().st_size
    claimed = sum(value.numel() * value.element_size() for value in state.values())
    if claimed > 16 * size + SLACK:
        raise UserError(
            f"{path} is refused: its tensors claim {claimed} bytes, but the file has {size}; save "
            "them contiguous"
        )


def _single(key: str, value: Tensor, path: Path) -> Tensor:
    """Return a foreign weight in the precision in which the systems compute."""
    if not (value.is_complex() or value.is_floating_point()):
        return value
    try:
        return value.to(torch.complex64 if value.is_complex() else torch.float32)
    except (RuntimeError, NotImplementedError):  # two numbers of four bits in a byte
        raise UserError(
            f"{path}: {shown(key)} is {value.dtype}, which cannot become float32; save it so"
        ) from None


def _has_nan(value: Tensor) -> bool:
    if not (value.is_complex() or value.is_floating_point()):
        return False
    wide = value if value.element_size() > 1 else value.float()  # float8 has no isnan
    return bool(wide.isnan().any())
