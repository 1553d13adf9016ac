"""Simulated data of the precoding experiment: fresh channels to train on, fixed ones to test on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import Field, PositiveInt
from safetensors.torch import load_file, save_file
from torch import Tensor

from sixfold.core import Config
from sixfold.core.config import Decibels, Range
from sixfold.core.data.atomic import atomic_folder
from sixfold.core.training.sampling import derive_seed
from sixfold.wireless.data.one_thread import one_thread
from sixfold.wireless.iq.mimo_channels import rayleigh
from sixfold.wireless.iq.wmmse import wmmse

SEED = 0  # of the test channels


class Point(NamedTuple):
    """Size and SNR of test channels."""

    users: int
    antennas: int
    snr_db: int

    @property
    def key(self) -> str:
        """Name of the point's score."""
        return f"k{self.users}_m{self.antennas}_{self.snr_db}db"

    @property
    def noise(self) -> float:
        """Noise power at total power 1."""
        return 10 ** (-self.snr_db / 10)


TRAINED = (Point(8, 8, 0), Point(8, 8, 10), Point(8, 8, 20), Point(4, 4, 10), Point(8, 16, 10))
UNSEEN = (Point(12, 12, 10), Point(16, 16, 10), Point(24, 24, 10), Point(16, 16, 20))
POINTS = (*TRAINED, *UNSEEN)


class PrecodingData(Config):
    """The ``data:`` block.

    Args:
        users: Smallest and largest number of users to train on.
        antennas: Largest number of antennas, where they are not as many as users.
        square: Share of the batches with as many antennas as users: elsewhere closed forms are
            near the optimum.
        few_steps: Share of the batches that are solved by fewer steps of conjugate gradients than
            users; a network that always meets few of them gives up rate where it is solved exactly.
        snr_db: Smallest and largest SNR to train on, in dB.
        test_channels: Number of test channels of a point.
        wmmse_iterations: Largest number of iterations of the reference.
        wmmse_starts: Number of starts of the row "several starts".
    """

    users: Range[PositiveInt] = (4, 8)
    antennas: PositiveInt = 16
    square: float = Field(default=0.5, ge=0, le=1)
    few_steps: float = Field(default=0.25, ge=0, le=1)
    snr_db: Range[Decibels] = (0.0, 20.0)
    test_channels: PositiveInt = 100
    wmmse_iterations: PositiveInt = 300
    wmmse_starts: PositiveInt = 4

    def memory_bytes(self) -> int:
        """Return what the test channels of a point take."""
        return 8 * self.test_channels * self.antennas * self.users[1] * self.wmmse_starts


class FreshChannels:
    """Channels that are drawn when asked for and never come again, as a training set.

    All channels of a batch have one size; the size, the SNR of each and the number of steps of
    conjugate gradients are drawn with them.
    """

    length = 1 << 24

    def __init__(self, data: PrecodingData, batch: int) -> None:
        self.data, self.size = data, batch

    def __len__(self) -> int:
        return self.length

    def at(self, positions: Sequence[int], seed: int) -> dict[str, Tensor]:
        """Return the channels of these positions; see `sixfold.core.training.sampling.steps`."""
        number, data = positions[0] // self.size, self.data
        generator = torch.Generator().manual_seed(derive_seed(seed, "channels", number))

        def integer(low: int, high: int) -> int:
            return int(torch.randint(low, high + 1, (), generator=generator))

        users = integer(*data.users)
        square = float(torch.rand((), generator=generator)) < data.square
        antennas = users if square else integer(users, max(users, data.antennas))
        few = float(torch.rand((), generator=generator)) < data.few_steps
        steps = integer(min(2, users), users) if few else users
        rows = torch.tensor([position - number * self.size for position in positions])
        low, high = data.snr_db
        snr_db = low + (high - low) * torch.rand(self.size, generator=generator)
        channel = rayleigh(self.size, users, antennas, generator=generator)
        return {
            "channel": channel[rows],
            "noise": (10 ** (-snr_db / 10))[rows],
            "steps": torch.tensor(steps),
        }


@one_thread()
def prepare(data: PrecodingData, source: str, folder: Path) -> None:
    """Write test channels, and the sum rates that WMMSE reaches on them; all is simulated."""
    tensors, facts = {}, {"source": source, "seed": SEED, "data": data.model_dump(mode="json")}
    for point in POINTS:
        generator = torch.Generator().manual_seed(derive_seed(SEED, point.key))
        size = (data.test_channels, point.users, point.antennas)
        channel = rayleigh(*size, generator=generator)
        starts = {"wmmse": 1, "wmmse_starts": data.wmmse_starts}
        double = channel.to(torch.complex128)
        for name, number in starts.items():
            found = wmmse(double, point.noise, iterations=data.wmmse_iterations, starts=number)
            tensors[f"{point.key}/{name}"] = found.sum_rate
            tensors[f"{point.key}/{name}_iterations"] = found.iterations
        tensors[f"{point.key}/channel"] = torch.view_as_real(channel)
    with atomic_folder(folder) as partial:
        save_file(tensors, partial / "test.safetensors")
        text = json.dumps(facts, indent=1, sort_keys=True)
        (partial / "manifest.json").write_text(text + "\n", encoding="utf-8")


def read_test(folder: Path, point: Point) -> dict[str, Tensor]:
    """Return the channels of a point, and the sum rates of WMMSE."""
    tensors = load_file(folder / "test.safetensors")
    own = {k.partition("/")[2]: v for k, v in tensors.items() if k.startswith(f"{point.key}/")}
    return own | {"channel": torch.view_as_complex(own["channel"])}
