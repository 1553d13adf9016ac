"""Simulated data of channel estimation: fresh slots to train on, a grid of points to test on.

A point is an SNR, a delay spread and a Doppler. Every row of the table sees the same slots of it,
and an error counts in dB over the point's bound: errors of fast channels are thousands of times
those of slow ones, and would be all that a mean over slots shows.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Complex, Float
from pydantic import PositiveInt
from safetensors.torch import load_file, save_file
from torch import Tensor

from sixfold.core import Config
from sixfold.core.data.atomic import atomic_folder
from sixfold.core.training.sampling import derive_seed
from sixfold.wireless.data.one_thread import one_thread
from sixfold.wireless.data.slots import Fading, SlotsConfig, SyntheticSlots
from sixfold.wireless.iq.estimators import Estimator, lmmse, tdl_statistics
from sixfold.wireless.iq.ofdm import Grid, Pilots, noise_variance
from sixfold.wireless.iq.tdl import TDL

Level = Literal["bound", "known"]
SEED = 0  # of the slots that are prepared
SNRS_DB = (0.0, 10.0, 20.0)
DELAY_SPREADS_S = (5e-8, 1.5e-7, 3e-7)
MAX_DOPPLERS_HZ = (50.0, 100.0, 200.0, 400.0, 600.0, 800.0, 1000.0)


class Point(NamedTuple):
    """Conditions of test slots: SNR in dB, RMS delay spread in s, maximum Doppler in Hz."""

    snr_db: float
    delay_spread_s: float
    max_doppler_hz: float


AXES = (SNRS_DB, DELAY_SPREADS_S, MAX_DOPPLERS_HZ)
POINTS = [Point(*one) for one in itertools.product(*AXES)]
# Groups of points over which gaps are averaged.
GROUPS: dict[str, Callable[[Point], bool]] = {
    "slow": lambda point: point.max_doppler_hz <= 200,
    "middle": lambda point: 200 < point.max_doppler_hz <= 600,
    "fast": lambda point: point.max_doppler_hz > 600,
    "slow_10db": lambda point: point.max_doppler_hz <= 200 and point.snr_db >= 10,
    **{f"snr_{x:g}": lambda point, x=x: point.snr_db == x for x in SNRS_DB},
    **{f"spread_{x * 1e9:g}": lambda p, x=x: p.delay_spread_s == x for x in DELAY_SPREADS_S},
    **{f"doppler_{x:g}": lambda p, x=x: p.max_doppler_hz == x for x in MAX_DOPPLERS_HZ},
}


class ChannelData(Config):
    """The ``data:`` block.

    Args:
        subcarriers: Number of subcarriers of the grid; every third has pilots, from the second.
        start_slots: Number of slots that give the linear start and the averaged statistics.
        test_slots: Number of test slots of a point.
        trained: Conditions of the slots that are trained on: those of the published data, or those
            of the test points alone.
    """

    subcarriers: PositiveInt = 24
    start_slots: PositiveInt = 2000
    test_slots: PositiveInt = 64
    trained: Literal["published", "test"] = "published"

    def memory_bytes(self) -> int:
        """Return what the slots of the linear start and of a test point, of 14 symbols, take."""
        return 8 * 14 * self.subcarriers * (self.start_slots + self.test_slots)

    def slots(self, fading: Fading, **changed: object) -> SlotsConfig:
        """Return what slots are drawn from."""
        grid = Grid(subcarriers=self.subcarriers)
        pilots = Pilots(subcarriers=tuple(range(1, self.subcarriers, 3)))
        config = SlotsConfig(grid=grid, pilots=pilots, fading=fading)
        axes = dict(zip(Point._fields, AXES, strict=True)) if self.trained == "test" else {}
        return config.model_copy(update=axes | changed)


class FreshSlots:
    """Slots that are drawn when asked for and never come again, as a training set.

    Args:
        config: What slots are drawn from.
    """

    length = 1 << 24

    def __init__(self, config: SlotsConfig) -> None:
        self.slots = SyntheticSlots(config, self.length, SEED)

    def __len__(self) -> int:
        return self.length

    def at(self, positions: Sequence[int], seed: int) -> dict[str, Tensor]:
        """Return the slots of these positions; see `sixfold.core.training.sampling.steps`."""
        return self.slots.draw(positions, seed)


@one_thread()
def prepare(fadings: Sequence[Fading], data: ChannelData, source: str, folder: Path) -> None:
    """Write the slots of the linear start and of the test, for each kind of fading."""
    tensors: dict[str, Tensor] = {}
    for fading in fadings:
        start = SyntheticSlots(data.slots(fading), data.start_slots, derive_seed(SEED, "start"))
        for name, value in start.batch(range(data.start_slots)).items():
            tensors[f"{fading}/start/{name}"] = value
        for name, value in _draw_test(data, fading).items():
            tensors[f"{fading}/test/{name}"] = value
    facts = {"source": source, "seed": SEED, "data": data.model_dump(mode="json")}
    with atomic_folder(folder) as partial:
        save_file(tensors, partial / "slots.safetensors")
        text = json.dumps(facts, indent=1, sort_keys=True)
        (partial / "manifest.json").write_text(text + "\n", encoding="utf-8")


def _draw_test(data: ChannelData, fading: Fading) -> dict[str, Tensor]:
    """Draw the test slots of every point, with its bounds and the error of the best estimator."""
    drawn = []
    for number, point in enumerate(POINTS):
        alone = {name: (value,) for name, value in point._asdict().items()}
        config, seed = data.slots(fading, **alone), derive_seed(SEED, "test", number)
        slots = SyntheticSlots(config, data.test_slots, seed)
        batch = slots.batch(range(data.test_slots))
        pilots, true = (torch.view_as_complex(batch[name]) for name in ("pilots", "target"))
        levels = {
            "bound": slots.bounds.flatten(),
            "part_bound": slots.part_bounds.flatten(),
            "known": point_errors(known_statistics(config, point)(pilots)[None], true[None]),
        }
        drawn.append(batch | levels)
    return {name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}


def known_statistics(config: SlotsConfig, point: Point) -> Estimator:
    """Return LMMSE that knows a point's statistics: the best of all estimators."""
    channel = TDL(config.profile, config.grid)
    statistics = tdl_statistics(channel, point.delay_spread_s, point.max_doppler_hz)
    noise = noise_variance(point.snr_db, config.grid, config.pilots)
    return lmmse(statistics, config.pilots, noise)


def read_slots(folder: Path, fading: Fading, part: str) -> dict[str, Tensor]:
    """Return prepared slots.

    Args:
        folder: Prepared folder.
        fading: Kind of fading.
        part: Part of the data: ``start``, or ``test``, whose tensors have a first axis of points.
    """
    tensors, prefix = load_file(folder / "slots.safetensors"), f"{fading}/{part}/"
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def read_settings(folder: Path) -> ChannelData:
    """Return the settings that slots were prepared with."""
    facts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return ChannelData.parse(facts["data"], str(folder))


def point_errors(
    found: Complex[Tensor, "point slot subcarrier symbol"],
    true: Complex[Tensor, "point slot subcarrier symbol"],
) -> Float[Tensor, " point"]:
    """Return the mean square error of each point, in float64."""
    return (found - true).abs().double().square().mean((1, 2, 3))


def gaps_db(
    errors: Float[Tensor, " point"], test: Mapping[str, Tensor], against: Level
) -> dict[str, float]:
    """Score errors by what they have over others.

    Args:
        errors: Mean square error of each point.
        test: Test slots, with bounds and errors of the points.
        against: Error that they are compared with: the ``bound``, or that of LMMSE with ``known``
            statistics on the same slots, where these are too few channels to average over.

    Returns:
        ``gap``, the mean over all points in dB, the same of each group of points as ``gap_...``,
        and ``mse``, the mean error over all points in dB, which is that of the fast ones.
    """
    gap = 10 * (errors / test[against].flatten()).log10()
    scores = {"gap": float(gap.mean()), "mse": float(10 * errors.mean().log10())}
    for name, holds in GROUPS.items():
        scores[f"gap_{name}"] = float(gap[torch.tensor([holds(p) for p in POINTS])].mean())
    return scores


def levels_db(bounds: Float[Tensor, " point"]) -> dict[str, float]:
    """Return the mean of bounds over each group of points, in dB."""
    level = 10 * bounds.log10()
    return {
        name: float(level[torch.tensor([holds(p) for p in POINTS])].mean())
        for name, holds in GROUPS.items()
    }
