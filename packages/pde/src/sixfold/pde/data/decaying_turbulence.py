"""Decaying turbulence: direct numerical simulation, filtered to the grid of large-eddy simulation.

Frames are (sample, x, y, z, component, time); the first is the field that a forecast begins with.
"""

import json
import math
from pathlib import Path

import torch
from pydantic import PositiveFloat, PositiveInt
from safetensors.torch import load_file, save_file
from torch import Tensor

from sixfold.core import Config
from sixfold.core.data.atomic import atomic_folder
from sixfold.core.training.sampling import derive_seed
from sixfold.pde.fields.modes import CUBE
from sixfold.pde.fields.sequences import filtered_turbulence, sequence
from sixfold.pde.fields.turbulence import SpectralSolver
from sixfold.pde.models.lesnets.loss import Flow

SEED = 0
TOGETHER = 4  # samples that are computed at once: bounds the memory


class TurbulenceData(Config):
    """The ``data:`` block; lengths in units of a box of 2 pi, velocities in those of u_rms = 1.

    Args:
        fine: Number of points a side of the direct simulation.
        grid: Number of points a side of the filtered fields.
        cutoff: Largest wavenumber that the filter keeps.
        viscosity: Kinematic viscosity.
        time_step: Time step of the direct simulation.
        every: Time from one frame to the next.
        spin_up: Time before the first frame, by which gradients are skewed as in turbulence.
        frames: Number of frames after the first.
        train: Number of training trajectories.
        test: Number of test trajectories.
        smagorinsky: Squared Smagorinsky constant of large-eddy simulation and of the residual.
    """

    fine: PositiveInt = 32
    grid: PositiveInt = 16
    cutoff: PositiveFloat = 5.0
    viscosity: PositiveFloat = 1 / 32
    time_step: PositiveFloat = 0.01
    every: PositiveFloat = 0.02
    spin_up: PositiveFloat = 0.6
    frames: PositiveInt = 30
    train: PositiveInt = 8
    test: PositiveInt = 8
    smagorinsky: PositiveFloat = 0.01

    def memory_bytes(self) -> int:
        """Return what the direct simulation and the filtered trajectories take."""
        frames = (self.train + self.test) * (self.frames + 1)
        return 3 * 4 * (max(self.train, self.test) * self.fine**3 + frames * self.grid**3)

    def flow(self) -> Flow:
        """Return the filtered equations on the coarse grid."""
        return Flow(
            viscosity=self.viscosity,
            box=CUBE,
            time_step=self.every,
            smagorinsky=self.smagorinsky,
            filter_width=2 * math.pi / self.grid,
        )


def prepare(data: TurbulenceData, source: str, folder: Path) -> None:
    """Simulate and filter the trajectories of training and test."""
    tensors = {
        part: simulate(data, count, torch.Generator().manual_seed(derive_seed(SEED, part)))
        for part, count in (("train", data.train), ("test", data.test))
    }
    facts = {"source": source, "seed": SEED, "data": data.model_dump(mode="json")}
    with atomic_folder(folder) as partial:
        save_file(tensors, partial / "turbulence.safetensors")
        text = json.dumps(facts, indent=1, sort_keys=True)
        (partial / "manifest.json").write_text(text + "\n", encoding="utf-8")


def simulate(data: TurbulenceData, samples: int, generator: torch.Generator) -> Tensor:
    """Return frames of direct simulation, filtered, from the spin-up on."""
    counts = [min(TOGETHER, samples - first) for first in range(0, samples, TOGETHER)]
    parts = [
        filtered_turbulence(
            count,
            generator,
            viscosity=data.viscosity,
            dns_points=data.fine,
            points=data.grid,
            cutoff=data.cutoff,
            time_step=data.time_step,
            spin_up=data.spin_up,
            frames=data.frames + 1,
            every=data.every,
        )
        for count in counts
    ]
    return torch.cat(parts).contiguous()


def read_turbulence(folder: Path, part: str) -> Tensor:
    """Return the frames (sample, x, y, z, component, time) of ``train`` or ``test``."""
    return load_file(folder / "turbulence.safetensors")[part]


def read_settings(folder: Path) -> TurbulenceData:
    """Return the settings that the trajectories were prepared with."""
    facts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return TurbulenceData.parse(facts["data"], str(folder))


def large_eddies(data: TurbulenceData, u0: Tensor, model: str, time_step: float) -> Tensor:
    """Return frames of large-eddy simulation, the first of which is given.

    Args:
        data: Settings of the flow.
        u0: Fields to start from (sample, 3, x, y, z).
        model: Model of the stress; see `sixfold.pde.fields.turbulence.SpectralSolver`.
        time_step: Time step.
    """
    solver = SpectralSolver(
        viscosity=data.viscosity,
        time_step=time_step,
        model=model,  # type: ignore[arg-type]
        smagorinsky=data.smagorinsky,
    )
    return sequence(solver, u0, data.frames + 1, data.every)
