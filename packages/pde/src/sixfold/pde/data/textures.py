"""Textures that move by a known distance from frame to frame: fresh to train on, fixed to test."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import PositiveInt
from safetensors.torch import load_file, save_file
from torch import Tensor

from sixfold.core import Config
from sixfold.core.data.atomic import atomic_folder
from sixfold.core.training.sampling import derive_seed
from sixfold.pde.fields.advection import advect, random_texture
from sixfold.pde.fields.noise import uniform_numbers

SEED = 0  # of the test textures
STEPS = 5  # frames that a rollout predicts
REACH = 8.0  # points: the longest random shift along an axis, a quarter of the period
Shift = tuple[int, int] | Literal["random"]
Shifts = Float[Tensor, "sample 2"]


class TextureData(Config):
    """The ``data:`` block.

    Args:
        grid: Number of points a side.
        cutoff: Largest wavenumber, in waves per period.
        test_samples: Number of test textures.
    """

    grid: PositiveInt = 32
    cutoff: float = 12.0
    test_samples: PositiveInt = 128

    def memory_bytes(self) -> int:
        """Return what the test textures take."""
        return 4 * self.test_samples * self.grid**2

    def draw(self, samples: int, seed: int) -> Tensor:
        """Draw textures (sample, channel, x, y)."""
        generator = torch.Generator().manual_seed(seed)
        return random_texture(samples, (self.grid, self.grid), self.cutoff, generator)


class FreshTextures:
    """Pairs of frames that are drawn when asked for and never come again, as a training set.

    Args:
        data: What textures are drawn from.
        shift: Distance from frame to frame along x and y, in points; a random one of each sample
            is given to the network, see `with_shifts`.
        batch: Number of samples of a step, which are drawn together.
    """

    length = 1 << 24

    def __init__(self, data: TextureData, shift: Shift, batch: int) -> None:
        self.data, self.shift, self.size = data, shift, batch

    def __len__(self) -> int:
        return self.length

    def at(self, positions: Sequence[int], seed: int) -> dict[str, Tensor]:
        """Return the pairs of these positions; see `sixfold.core.training.sampling.steps`."""
        number = positions[0] // self.size
        rows = torch.tensor([position - number * self.size for position in positions])
        texture = self.data.draw(self.size, derive_seed(seed, "textures", number))[rows]
        if not isinstance(self.shift, str):
            frames = advect(texture, self.shift, 2)
            return {"history": frames[:, :1], "target": frames[:, 1:]}
        shifts = draw_shifts(self.size, derive_seed(seed, "shifts", number))[rows]
        frames = advect(texture, shifts, 2)
        return {"history": with_shifts(frames[:, :1], shifts), "target": frames[:, 1:]}


def draw_shifts(samples: int, seed: int) -> Shifts:
    """Draw a distance along x and y for each sample, uniform to `REACH` either way."""
    numbers = uniform_numbers(samples, 2, torch.Generator().manual_seed(seed))
    return (REACH * (2 * numbers - 1)).float()


def with_shifts(
    frames: Float[Tensor, "sample time 1 x y"], shifts: Shifts
) -> Float[Tensor, "sample time 3 x y"]:
    """Append the shift of each sample to its frames, over `REACH`, as two even channels."""
    _, time, _, x, y = frames.shape
    even = (shifts / REACH)[:, None, :, None, None].expand(-1, time, -1, x, y)
    return torch.cat((frames, even), 2)


def prepare(data: TextureData, source: str, folder: Path) -> None:
    """Write the test textures; all is generated."""
    tensors = {"texture": data.draw(data.test_samples, derive_seed(SEED, "test"))}
    facts = {"source": source, "seed": SEED, "data": data.model_dump(mode="json")}
    with atomic_folder(folder) as partial:
        save_file(tensors, partial / "textures.safetensors")
        text = json.dumps(facts, indent=1, sort_keys=True)
        (partial / "manifest.json").write_text(text + "\n", encoding="utf-8")


def read_test(folder: Path, shift: Shift) -> Tensor:
    """Return the test trajectories (sample, time, channel, x, y) of a shift."""
    texture = load_file(folder / "textures.safetensors")["texture"]
    shifts = read_shifts(len(texture)) if isinstance(shift, str) else shift
    return advect(texture, shifts, 1 + STEPS)


def read_shifts(samples: int) -> Shifts:
    """Return the random shifts of the test textures."""
    return draw_shifts(samples, derive_seed(SEED, "shifts"))
