"""Checkpoints as folders: written completely or not at all, verified before they are used.

A checkpoint holds one ``<name>.safetensors`` per registered object that has tensors,
``state.json`` with everything that is no tensor, and ``MANIFEST.json`` with the size and SHA-256
of every file.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sixfold.core.config import UserError
from sixfold.core.data.atomic import atomic_folder

MANIFEST = "MANIFEST.json"
MARKS = {"<tensor>", "<tuple>", "<items>"}  # what `pack` writes in the place of these
# How an optimiser runs, not where it is: these may differ between saving and loading.
EXECUTION = ("fused", "foreach", "capturable", "differentiable")


class CorruptCheckpointError(Exception):
    """A checkpoint that is damaged; the message says which file, and why."""


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make ``folder`` with these files; after a crash it is there and complete, or not there."""
    manifest = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    }
    with atomic_folder(folder) as partial:
        for name, data in files.items():
            (partial / name).write_bytes(data)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))


def read(folder: Path) -> dict[str, bytes]:
    """Read the files of a checkpoint, having compared each with the manifest.

    Raises:
        CorruptCheckpointError: a file is missing, cut short or changed.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        files = {name: (folder / name).read_bytes() for name in manifest}
        for name, data in files.items():
            if len(data) != manifest[name]["bytes"]:
                raise CorruptCheckpointError(
                    f"{name} has {len(data)} bytes instead of {manifest[name]['bytes']}"
                )
            if hashlib.sha256(data).hexdigest() != manifest[name]["sha256"]:
                raise CorruptCheckpointError(f"{name} differs from its checksum")
    except OSError as error:
        raise CorruptCheckpointError(f"{error.filename} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptCheckpointError(f"{MANIFEST} is damaged: {error}") from None
    return files


def pack(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Split nested state into what JSON can hold and its tensors, named by their place in it.

    Keys that print alike, as ``1`` and ``"1"``, stay apart. A tensor that occurs twice (tied
    weights) is stored once. A sharded tensor is gathered, which is a collective: every rank packs
    the same state.
    """
    tensors: dict[str, Tensor] = {}
    places: dict[tuple, str] = {}

    def walk(value: Any, place: str) -> Any:
        if isinstance(value, Tensor):
            local = getattr(value, "_local_tensor", value)
            same = (local.data_ptr() or place, local.shape, local.stride(), local.dtype)
            if same not in places:
                name = place
                while name in tensors:  # of a key that prints alike
                    name += "'"
                places[same] = name
                tensors[name] = full_copy(value.detach())
            return {"<tensor>": places[same]}
        if isinstance(value, Mapping):
            if odd := [k for k in value if k is not None and not isinstance(k, int | float | str)]:
                raise TypeError(f"{place!r} has the key {odd[0]!r}; keep plain keys")
            items = [[k, walk(v, f"{place}/{k}" if place else str(k))] for k, v in value.items()]
            plain = all(isinstance(k, str) for k in value) and not MARKS & value.keys()
            return dict(items) if plain else {"<items>": items}
        if isinstance(value, list | tuple):
            values = [walk(v, f"{place}/{i}" if place else str(i)) for i, v in enumerate(value)]
            return values if isinstance(value, list) else {"<tuple>": values}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"{place!r} is a {type(value).__name__}; keep tensors and plain values")

    return walk(state, ""), tensors


def unpack(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo `pack`."""
    if isinstance(plain, list):
        return [unpack(value, tensors) for value in plain]
    if not isinstance(plain, dict):
        return plain
    if "<tensor>" in plain:
        return tensors[plain["<tensor>"]]
    if "<tuple>" in plain:
        return tuple(unpack(value, tensors) for value in plain["<tuple>"])
    if "<items>" in plain:
        return {key: unpack(value, tensors) for key, value in plain["<items>"]}
    return {key: unpack(value, tensors) for key, value in plain.items()}


def full_copy(tensor: Tensor) -> Tensor:
    """Copy to the CPU, contiguous; shards are gathered from all ranks."""
    full = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # type: ignore[operator]
    return full.to("cpu", copy=True).contiguous()


def shard_like(tensor: Any, target: Tensor) -> Any:
    """Shard a full tensor as ``target`` is, if ``target`` is sharded and has the same shape."""
    if not hasattr(target, "full_tensor") or not isinstance(tensor, Tensor):
        return tensor
    if tensor.shape != target.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = target.device_mesh, target.placements  # type: ignore[attr-defined]
    return distribute_tensor(tensor.to(target.device), mesh, placements)


def state_of(obj: Any, names: Mapping[int, str]) -> Any:
    """Return what must be kept of a registered object.

    Args:
        obj: An optimiser, a generator, or anything with ``state_dict``.
        names: Name of each parameter, by its id, for optimisers.
    """
    if isinstance(obj, torch.Generator):
        return {"state": obj.get_state()}
    if not isinstance(obj, Optimizer):
        return obj.state_dict()
    if any(id(p) not in names for group in obj.param_groups for p in group["params"]):
        raise ValueError("an optimiser holds a parameter of no registered module; register that")
    groups = [
        {k: v for k, v in group.items() if k not in EXECUTION}
        | {"params": [names[id(p)] for p in group["params"]]}
        for group in obj.param_groups
    ]
    slots = {
        names[id(p)]: {
            slot: torch.as_tensor(value, dtype=torch.float32) if slot == "step" else value
            for slot, value in obj.state[p].items()
        }
        for group in obj.param_groups
        for p in group["params"]
        if p in obj.state
    }
    return {"groups": groups, "slots": slots}


def load_into(obj: Any, state: Any, names: Mapping[int, str]) -> None:
    """Load into a registered object what `state_of` returned.

    Raises:
        UserError: an optimiser holds other parameters than the saved one.
    """
    if isinstance(obj, torch.Generator):
        obj.set_state(state["state"])
    elif isinstance(obj, Optimizer):
        _load_optimizer(obj, state, names)
    elif isinstance(obj, nn.Module):
        targets = obj.state_dict()
        obj.load_state_dict(
            {k: shard_like(v, targets[k]) if k in targets else v for k, v in state.items()}
        )
    else:
        obj.load_state_dict(state)


def _load_optimizer(optimizer: Optimizer, state: Any, names: Mapping[int, str]) -> None:
    parameters = {names[id(p)]: p for group in optimizer.param_groups for p in group["params"]}
    saved = [name for group in state["groups"] for name in group["params"]]
    if list(parameters) != saved:
        odd = sorted(set(parameters) ^ set(saved)) or "the same ones in another order"
        raise UserError(f"the optimiser's parameters are not those of the checkpoint: {odd}")
    number = {name: i for i, name in enumerate(parameters)}
    groups = [
        {k: v for k, v in group.items() if k in EXECUTION}
        | {k: v for k, v in loaded.items() if k != "params"}
        | {"params": [number[name] for name in loaded["params"]]}
        for group, loaded in zip(optimizer.param_groups, state["groups"], strict=True)
    ]
    slots = {
        number[name]: {slot: shard_like(value, parameters[name]) for slot, value in held.items()}
        for name, held in state["slots"].items()
    }
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
