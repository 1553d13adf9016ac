"""Synthetic slots for training and tests: channels, their pilots, conditions and bounds.

``independent`` draws a fading for every sample. ``frozen_240`` draws one for each pair of delay
spread and Doppler (12 x 20 in the published data), as the official generator does, which never
seeds its channel: a network that is told both can look the channel up, and goes below a bound that
no estimator passes on independent fading. The two are never mixed.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import Config
from sixfold.core.training.sampling import derive_seed
from sixfold.wireless.iq.estimators import Statistics, lmmse, tdl_statistics
from sixfold.wireless.iq.ofdm import Grid, NoiseReference, Pilots, SnrReference, add_noise
from sixfold.wireless.iq.ofdm import noise_variance as variance_of
from sixfold.wireless.iq.tdl import TDL

Fading = Literal["independent", "frozen_240"]


class SlotsConfig(Config):
    """What slots are drawn from; the defaults are those of the published training set.

    Args:
        profile: Letter of the tapped delay line.
        grid: OFDM grid.
        pilots: Places of the pilots.
        snr_db: SNRs in dB, each as likely.
        delay_spread_s: RMS delay spreads in seconds.
        max_doppler_hz: Maximum Dopplers in Hz.
        fading: Whether every sample has a fading of its own.
        snr_reference: Meaning of the SNR; see `noise_variance`.
        noise_reference: Meaning of the variance of noise; see `add_noise`.
    """

    profile: Literal["A", "B", "C", "D", "E"] = "A"
    grid: Grid = Grid()
    pilots: Pilots = Pilots()
    snr_db: tuple[float, ...] = tuple(range(0, 26, 5))
    delay_spread_s: tuple[float, ...] = tuple(25e-9 * n for n in range(1, 13))
    max_doppler_hz: tuple[float, ...] = tuple(50.0 * n for n in range(1, 21))
    fading: Fading = "independent"
    snr_reference: SnrReference = "grid"
    noise_reference: NoiseReference = "ensemble"


class SyntheticSlots:
    """A dataset of any length, for `fit`: sample i is the same in every batch that has it.

    Args:
        config: What slots are drawn from.
        count: Number of samples.
        seed: Seed of conditions and noise, and of fading that is independent.
        frozen_seed: Seed of frozen fading, which training and test share.
    """

    def __init__(self, config: SlotsConfig, count: int, seed: int, frozen_seed: int = 73) -> None:
        config.pilots.check(config.grid)
        self.config, self.count, self.seed, self.frozen_seed = config, count, seed, frozen_seed
        self.channel = TDL(config.profile, config.grid)
        self._frozen: dict[tuple[float, float], Tensor] = {}

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return ``pilots`` and ``target`` as pairs of reals, ``conditions`` and ``bound``."""
        return self.draw(indices, self.seed)

    def draw(self, indices: Sequence[int], seed: int) -> dict[str, Tensor]:
        """Return what `batch` does, of another seed."""
        config, pairs = self.config, 2 * self.config.pilots.count
        axes = (config.snr_db, config.delay_spread_s, config.max_doppler_hz)
        places, fadings, noises = [], [], []
        for index in indices:
            generator = torch.Generator().manual_seed(derive_seed(seed, "slot", index))
            places.append([int(torch.randint(len(axis), (), generator=generator)) for axis in axes])
            noises.append(torch.rand(pairs, generator=generator))
            _, spread, doppler = (axis[i] for axis, i in zip(axes, places[-1], strict=True))
            fadings.append(self._fading(generator, spread, doppler))
        place = torch.tensor(places).unbind(1)
        conditions = torch.stack(
            [torch.tensor(axis)[i] for axis, i in zip(axes, place, strict=True)], 1
        )
        h = self.channel.response(torch.stack(fadings), conditions[:, 1], conditions[:, 2])
        variance = variance_of(conditions[:, 0], config.grid, config.pilots, config.snr_reference)
        estimates = add_noise(
            config.pilots.pick(h), variance, torch.stack(noises), config.noise_reference
        )
        return {
            "pilots": torch.view_as_real(estimates),
            "target": torch.view_as_real(h),
            "conditions": conditions,
            "bound": self.bounds[place].float(),
        }

    @cached_property
    def bounds(self) -> Float[Tensor, "snr delay_spread doppler"]:
        """The error that no estimator passes on independent fading, for all conditions.

        It is the expected error of LMMSE with known statistics, for the ensemble's noise.
        """
        return self._table(real_part=False)

    @cached_property
    def part_bounds(self) -> Float[Tensor, "snr delay_spread doppler"]:
        """The same for estimators that take real and imaginary part each on its own."""
        return self._table(real_part=True)

    def _table(self, real_part: bool) -> Float[Tensor, "snr delay_spread doppler"]:
        config = self.config
        snr = torch.tensor(config.snr_db, dtype=torch.float64)
        noise = variance_of(snr, config.grid, config.pilots, config.snr_reference)
        rows: list[Any] = []
        for spread in config.delay_spread_s:
            for doppler in config.max_doppler_hz:
                one = tdl_statistics(self.channel, spread, doppler)
                each = Statistics(*(part.expand(len(snr), *part.shape) for part in one))
                rows.append(lmmse(each, config.pilots, noise, real_part=real_part).mse)
        shape = (len(config.delay_spread_s), len(config.max_doppler_hz))
        return torch.stack(rows, 1).unflatten(1, shape)

    def _fading(self, generator: torch.Generator, spread_s: float, doppler_hz: float) -> Tensor:
        if self.config.fading == "independent":
            return self.channel.draw(1, generator)[0]
        key = spread_s, doppler_hz
        if key not in self._frozen:
            seed = derive_seed(self.frozen_seed, "frozen", f"{spread_s:g}", f"{doppler_hz:g}")
            fixed = torch.Generator().manual_seed(seed)
            self._frozen[key] = self.channel.draw(1, fixed)[0]
        return self._frozen[key]
