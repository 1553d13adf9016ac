"""Darcy flow: the pressure in the unit square for a permeability of two values."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core.data.fetch import fetch
from sixfold.pde.data.catalog import DATASETS

Split = Literal["train_16", "test_16", "test_32"]


class Darcy(NamedTuple):
    """Permeabilities, 0 or 1 for the lower and the higher one, and the pressures they lead to."""

    permeability: Float[Tensor, "sample x y"]
    pressure: Float[Tensor, "sample x y"]


def load_darcy(split: Split) -> Darcy:
    """Read one file of the set ``neuralop_small``: 1000 or 50 samples, 16 or 32 points a side."""
    path = fetch(DATASETS["neuralop_small"]) / f"darcy_{split}.pt"
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    return Darcy(tensors["x"].float(), tensors["y"].float())
