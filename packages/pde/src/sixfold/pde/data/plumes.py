"""Trajectories of buoyant smoke, in the closed box and on the periodic grid."""

import json
from pathlib import Path

import torch
from pydantic import PositiveInt
from safetensors.torch import load_file, save_file
from torch import Tensor

from sixfold.core import Config
from sixfold.core.data.atomic import atomic_folder
from sixfold.core.training.sampling import derive_seed
from sixfold.pde.fields.smoke import SmokeSolver
from sixfold.pde.fields.smoke_data import smoke_trajectories

SEED = 0
BOUNDARIES = ("periodic", "closed")


class PlumeData(Config):
    """The ``data:`` block.

    Args:
        grid: Number of cells a side, of a box of 32 units.
        train: Number of training trajectories of each boundary.
        test: Number of test trajectories of each boundary.
    """

    grid: PositiveInt = 32
    train: PositiveInt = 96
    test: PositiveInt = 32

    def memory_bytes(self) -> int:
        """Return what one frame of all trajectories takes."""
        return 2 * 3 * 4 * self.grid**2 * (self.train + self.test)


class Windows:
    """Short pieces of trajectories, a random one each time, as a training set.

    Args:
        trajectories: Trajectories (sample, time, channel, x, y).
        history: Number of frames that are read; the next one is the target.
    """

    def __init__(self, trajectories: Tensor, history: int) -> None:
        self.trajectories, self.history = trajectories, history
        self.starts = trajectories.shape[1] - history

    def __len__(self) -> int:
        return len(self.trajectories) * self.starts

    def batch(self, indices: list[int]) -> dict[str, Tensor]:
        """Return the pieces of a batch."""
        index = torch.as_tensor(indices)
        sample, start = index // self.starts, index % self.starts
        frames = start[:, None] + torch.arange(self.history + 1)
        pieces = self.trajectories[sample[:, None], frames]
        return {"history": pieces[:, : self.history], "target": pieces[:, self.history :]}


def prepare(data: PlumeData, source: str, folder: Path) -> None:
    """Generate the trajectories of both boundaries."""
    tensors = {}
    for boundary in BOUNDARIES:
        solver = SmokeSolver(boundary=boundary)
        for part, count in (("train", data.train), ("test", data.test)):
            generator = torch.Generator().manual_seed(derive_seed(SEED, boundary, part))
            grid = (data.grid, data.grid)
            found = smoke_trajectories(count, generator, grid=grid, solver=solver)
            tensors[f"{boundary}/{part}"] = found.contiguous()
    facts = {"source": source, "seed": SEED, "data": data.model_dump(mode="json")}
    with atomic_folder(folder) as partial:
        save_file(tensors, partial / "plumes.safetensors")
        text = json.dumps(facts, indent=1, sort_keys=True)
        (partial / "manifest.json").write_text(text + "\n", encoding="utf-8")


def read_trajectories(folder: Path, boundary: str, part: str) -> Tensor:
    """Return trajectories (sample, time, channel, x, y) of smoke, u and v.

    Args:
        folder: Prepared folder.
        boundary: Boundary: ``periodic`` or ``closed``.
        part: Part of the data: ``train`` or ``test``.
    """
    return load_file(folder / "plumes.safetensors")[f"{boundary}/{part}"]
