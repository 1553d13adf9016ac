"""Simulated data of the cell-free experiment: fresh layouts to train on, fixed ones to test on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import PositiveInt
from safetensors.torch import load_file, save_file
from torch import Tensor

from sixfold.core import Config
from sixfold.core.config import Range
from sixfold.core.data.atomic import atomic_folder
from sixfold.core.training.sampling import derive_seed
from sixfold.wireless.data.one_thread import one_thread
from sixfold.wireless.iq.cell_free import draw_layout, strongest_access_points
from sixfold.wireless.iq.power_control import projected_gradient, spectral_efficiency

SEED = 0  # of the test layouts


class Size(NamedTuple):
    """Size of test layouts: access points, users, antennas, access points of a user."""

    points: int
    users: int
    antennas: int
    each: int

    @property
    def key(self) -> str:
        """Name of the size's score."""
        return f"l{self.points}_k{self.users}_n{self.antennas}_s{self.each}"


TRAINED = (Size(16, 6, 2, 5), Size(30, 10, 4, 8))
UNSEEN = (Size(60, 10, 4, 8), Size(30, 24, 4, 8), Size(30, 10, 16, 8), Size(80, 32, 12, 12))
SIZES = (*TRAINED, *UNSEEN)


class PowerData(Config):
    """The ``data:`` block.

    Args:
        points: Smallest and largest number of access points to train on.
        users: Smallest and largest number of users.
        antennas: Smallest and largest number of antennas of an access point.
        each: Smallest and largest number of access points of a user.
        test_layouts: Number of test layouts of a size.
        gradient_steps: Number of steps of the projected gradient.
    """

    points: Range[PositiveInt] = (10, 40)
    users: Range[PositiveInt] = (4, 16)
    antennas: Range[PositiveInt] = (1, 8)
    each: Range[PositiveInt] = (2, 10)
    test_layouts: PositiveInt = 50
    gradient_steps: PositiveInt = 500

    def memory_bytes(self) -> int:
        """Return what the test layouts of a size take."""
        return 4 * self.test_layouts * self.points[1] * self.users[1] * self.antennas[1]


class FreshLayouts:
    """Layouts that are drawn when asked for and never come again, as a training set.

    All layouts of a batch have one size.
    """

    length = 1 << 24

    def __init__(self, data: PowerData, batch: int) -> None:
        self.data, self.size = data, batch

    def __len__(self) -> int:
        return self.length

    def at(self, positions: Sequence[int], seed: int) -> dict[str, Tensor]:
        """Return the layouts of these positions; see `sixfold.core.training.sampling.steps`."""
        number, data = positions[0] // self.size, self.data
        generator = torch.Generator().manual_seed(derive_seed(seed, "layouts", number))
        ranges = (data.points, data.users, data.antennas, data.each)
        points, users, antennas, each = (
            int(torch.randint(low, high + 1, (), generator=generator)) for low, high in ranges
        )
        size = Size(points, users, antennas, min(each, points))
        rows = torch.tensor([position - number * self.size for position in positions])
        drawn = draw(size, self.size, generator)
        return {name: value[rows] for name, value in drawn.items()}


def draw(size: Size, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw layouts: gains over noise, who serves whom, antennas of each access point, places."""
    layout = draw_layout(batch, size.points, size.users, generator=generator)
    gain_db = layout.gain_over_noise_db
    return {
        "gain": 10 ** (gain_db / 10),
        "serve": strongest_access_points(gain_db, size.each),
        "antennas": torch.full((batch, size.points), float(size.antennas)),
        "access_points": layout.access_points,
        "users": layout.users,
    }


@one_thread()
def prepare(data: PowerData, source: str, folder: Path) -> None:
    """Write test layouts, and the sums that the projected gradient reaches; all is simulated."""
    tensors, facts = {}, {"source": source, "seed": SEED, "data": data.model_dump(mode="json")}
    for size in SIZES:
        generator = torch.Generator().manual_seed(derive_seed(SEED, size.key))
        drawn = draw(size, data.test_layouts, generator)
        gain, antennas = drawn["gain"], drawn["antennas"]
        eta = projected_gradient(gain, drawn["serve"], antennas, steps=data.gradient_steps)
        rates = spectral_efficiency(gain, eta, antennas)
        for name, value in (drawn | {"projected_gradient": rates.sum(-1)}).items():
            tensors[f"{size.key}/{name}"] = value
    with atomic_folder(folder) as partial:
        save_file(tensors, partial / "test.safetensors")
        text = json.dumps(facts, indent=1, sort_keys=True)
        (partial / "manifest.json").write_text(text + "\n", encoding="utf-8")


def read_test(folder: Path, size: Size) -> dict[str, Tensor]:
    """Return the layouts of a size, and the sums that the projected gradient reaches."""
    tensors = load_file(folder / "test.safetensors")
    return {k.partition("/")[2]: v for k, v in tensors.items() if k.startswith(f"{size.key}/")}
