"""Means and deviations that a published set comes with: with its paper, or in a file beside it.

SineNet's three sets have theirs in its released code. The Well writes those of a set to
``stats.yaml`` in its root, above ``data/train``.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.yaml_files import read_yaml
from sixfold.pde.data.files import Block
from sixfold.pde.fields.smoke_data import OFFICIAL_DEVIATION, OFFICIAL_MEAN

Channels = Float[Tensor, " channel"]
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {  # layout: mean and deviation of a channel
    "PDEArena": dict(
        zip(("u", "vx", "vy"), zip(OFFICIAL_MEAN, OFFICIAL_DEVIATION, strict=True), strict=True)
    ),
    "SineNet, compressible": {
        "D": (5.0413975716, 2.9829258919),
        "P": (25.0861053467, 21.7112350464),
        "Vx": (-3.756e-5, 0.1635208875),
        "Vy": (1.138e-5, 0.1634908617),
    },
    "PDEArena, shallow water": {
        "pres": (9.767e-4, 1.0120806694),  # standardised before by the set's own normstats file
        "u": (-0.4592400789, 3.4489285946),
        "v": (-0.0141550088, 3.4050679207),
    },
}
STATS = "stats.yaml"
FAR = 10.0  # root mean square in units that are of other data
LEVELS = 4  # a file of The Well lies in data/train below its statistics


def published_units(block: Block) -> tuple[Channels, Channels]:
    """Return the mean and standard deviation of each channel, as the set is published with.

    Raises:
        UserError: none are known, or those of the set lack a field.
    """
    if block.layout == "The Well":
        return _of_the_well(block)
    known = PUBLISHED.get(block.layout, {})
    if not known.keys() >= set(block.channels):
        raise UserError(
            f"{block.file}: no published units are known for {', '.join(block.channels)} of the "
            f"layout {block.layout}; those of the training data are fitted without this option"
        )
    mean, deviation = torch.tensor([known[name] for name in block.channels]).unbind(1)
    return mean, deviation


def warn_of_units(
    frames: Float[Tensor, "time channel x y"],
    names: Sequence[str],
    units: tuple[Channels, Channels],
) -> None:
    """Warn of fields that a set's units leave far from a root mean square of one."""
    mean, sd = (values[:, None, None] for values in units)
    sizes = ((frames - mean) / sd).square().mean((0, 2, 3)).sqrt().tolist()
    for name, size in zip(names, sizes, strict=True):
        if size > FAR:
            warnings.warn(
                f"in the published units {name} has a root mean square of {size:.3g}, not of about "
                "one: these are other data, or not prepared as the published ones (the pressure of "
                "shallow water by its normstats file); leave the option out, and units are fitted",
                stacklevel=3,
            )


def _of_the_well(block: Block) -> tuple[Channels, Channels]:
    folders = list(block.file.absolute().parents)[:LEVELS]  # a link stays where it is
    found = next((folder / STATS for folder in folders if (folder / STATS).is_file()), None)
    if found is None:
        raise UserError(
            f"no {STATS} lies beside {block.file} or above it; fetch that of the set, or leave "
            "this option out, and the units of the training data are fitted"
        )
    known = read_yaml(found)
    values = [_numbers(known, kind, block, found) for kind in ("mean", "std")]
    return values[0], values[1]


def _numbers(known: Any, kind: str, block: Block, path: Path) -> Channels:
    """Return one statistic of all channels; that of a vector or tensor is a list, maybe nested."""
    numbers: list[Tensor] = []
    for field in block.fields:
        try:
            value = torch.tensor(known[kind][field.name], dtype=torch.float32).flatten()
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{path} has no {kind} of {field.name}; fetch it again") from None
        if len(value) != len(field.channels):
            raise UserError(
                f"{path} has {len(value)} numbers as {kind} of {field.name}, which has "
                f"{len(field.channels)} components; fetch it again"
            )
        if not bool(value.isfinite().all()) or (kind == "std" and bool((value <= 0).any())):
            raise UserError(
                f"{path} has {known[kind][field.name]} as {kind} of {field.name}; fetch it again"
            )
        numbers.append(value)
    return torch.cat(numbers)
