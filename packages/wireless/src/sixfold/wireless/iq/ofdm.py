"""The OFDM grid of a slot, its pilots, both definitions of SNR, and what a receiver observes."""

import math
from typing import Literal

import torch
from jaxtyping import Complex, Float
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from sixfold.core import Config, UserError

SnrReference = Literal["grid", "pilot"]
NoiseReference = Literal["ensemble", "sample"]


class Grid(Config):
    """Subcarriers and symbols of a slot; the defaults are those of the paper's data.

    Args:
        subcarriers: Number of subcarriers.
        symbols: Number of OFDM symbols.
        spacing_hz: Distance of subcarriers in Hz.
        fft_size: Number of samples of a symbol without its prefix.
        prefix_samples: Length of a cyclic prefix.
        long_prefix_samples: Length of the prefix of symbols 0, 7, 14 and so on.
    """

    subcarriers: PositiveInt = 120
    symbols: PositiveInt = 14
    spacing_hz: PositiveFloat = 15e3
    fft_size: PositiveInt = 256
    prefix_samples: int = Field(default=18, ge=0)
    long_prefix_samples: int = Field(default=20, ge=0)

    @model_validator(mode="after")
    def _the_subcarriers_fit(self) -> "Grid":
        if self.subcarriers > self.fft_size:
            raise ValueError(
                f"{self.subcarriers} subcarriers do not fit an FFT of {self.fft_size}; raise "
                "fft_size"
            )
        return self

    @property
    def sample_rate_hz(self) -> float:
        """Sample rate in Hz."""
        return self.fft_size * self.spacing_hz

    @property
    def prefix_s(self) -> float:
        """Length of the shorter prefix in seconds: how late an echo may come."""
        return self.prefix_samples / self.sample_rate_hz

    def frequencies_hz(self) -> Float[Tensor, " subcarrier"]:
        """Return the frequency of each subcarrier, relative to the carrier, in float64."""
        numbers = torch.arange(self.subcarriers, dtype=torch.float64)
        return (numbers - self.subcarriers // 2) * self.spacing_hz

    def starts_samples(self) -> list[int]:
        """List the first sample of each symbol after its prefix."""
        starts, position = [], 0
        for symbol in range(self.symbols):
            position += self.prefix_samples if symbol % 7 else self.long_prefix_samples
            starts.append(position)
            position += self.fft_size
        return starts

    def times_s(self) -> Float[Tensor, " symbol"]:
        """Return the middle of each symbol in seconds, in float64."""
        starts = torch.tensor(self.starts_samples(), dtype=torch.float64)
        return (starts + self.fft_size // 2) / self.sample_rate_hz


class Pilots(Config):
    """Where the pilots are: on all crossings of some subcarriers and some symbols.

    Args:
        subcarriers: Numbers of the subcarriers, counted from 0, ascending.
        symbols: Numbers of the symbols, counted from 0, ascending.
    """

    subcarriers: tuple[int, ...] = tuple(range(1, 120, 3))
    symbols: tuple[int, ...] = (2, 11)

    @model_validator(mode="after")
    def _numbers_ascend(self) -> "Pilots":
        for name, numbers in (("subcarriers", self.subcarriers), ("symbols", self.symbols)):
            if not numbers or numbers[0] < 0 or list(numbers) != sorted(set(numbers)):
                raise ValueError(f"the {name} of pilots ascend from 0; got {numbers}")
        return self

    @property
    def count(self) -> int:
        """Number of pilots."""
        return len(self.subcarriers) * len(self.symbols)

    def check(self, grid: Grid) -> None:
        """Check that the pilots lie on a grid.

        Raises:
            UserError: one does not.
        """
        for name, numbers, size in (
            ("subcarrier", self.subcarriers, grid.subcarriers),
            ("symbol", self.symbols, grid.symbols),
        ):
            if numbers[-1] >= size:
                raise UserError(
                    f"a pilot is on {name} {numbers[-1]}, but the grid ends at {size - 1} (counted "
                    "from 0); move the pilots or enlarge the grid"
                )

    def pick(
        self, channel: Complex[Tensor, "*batch subcarrier symbol"]
    ) -> Complex[Tensor, "*batch pilot_subcarrier pilot_symbol"]:
        """Return the values of a grid at the pilots."""
        return channel[..., list(self.subcarriers), :][..., list(self.symbols)]


def noise_variance(
    snr_db: Float[Tensor, "*batch"] | float,
    grid: Grid,
    pilots: Pilots,
    reference: SnrReference = "grid",
) -> Float[Tensor, "*batch"]:
    """Return the variance of the noise of a resource element, for channels with E|H|^2 = 1.

    Args:
        snr_db: Signal-to-noise ratio in dB.
        grid: OFDM grid.
        pilots: Places of the pilots, which have power 1 and are all that is sent.
        reference: Signal power: "grid", the mean over all elements, most of them empty (the
            official data: 13.2 dB more per pilot with 80 of 1680), or "pilot", that of a pilot.
    """
    snr = torch.as_tensor(snr_db, dtype=torch.float64 if isinstance(snr_db, float) else None)
    share = pilots.count / (grid.subcarriers * grid.symbols) if reference == "grid" else 1.0
    return share * torch.exp(-math.log(10) / 10 * snr)


def observe(
    channel: Complex[Tensor, "batch subcarrier symbol"],
    pilots: Pilots,
    variance: Float[Tensor, " batch"],
    *,
    generator: torch.Generator,
    reference: NoiseReference = "ensemble",
) -> Complex[Tensor, "batch pilot_subcarrier pilot_symbol"]:
    """Return least-squares estimates at the pilots: the channel with white noise.

    Args:
        channel: Channel of the whole grid.
        pilots: Places of the pilots.
        variance: Variance of the noise; see `noise_variance`.
        generator: Source of the noise, of the channel's device.
        reference: Meaning of the variance; see `add_noise`.
    """
    real = channel.real
    shape = (len(channel), 2 * pilots.count)
    uniform = torch.rand(shape, generator=generator, dtype=real.dtype, device=real.device)
    return add_noise(pilots.pick(channel), variance, uniform, reference)


def add_noise(
    received: Complex[Tensor, "batch pilot_subcarrier pilot_symbol"],
    variance: Float[Tensor, " batch"],
    uniform: Float[Tensor, "batch two_per_pilot"],
    reference: NoiseReference = "ensemble",
) -> Complex[Tensor, "batch pilot_subcarrier pilot_symbol"]:
    """Add circular white noise to the channel at the pilots.

    Pilots have magnitude 1, so dividing by them leaves the noise what it is.

    Args:
        received: Channel at the pilots.
        variance: Variance of the noise.
        uniform: Uniform numbers in [0, 1) that make the noise.
        reference: Whether the variance holds as it is, or is scaled by each sample's own received
            power as in the official data, which makes the noise depend on the channel.
    """
    if reference == "sample":
        variance = variance * received.abs().square().mean((1, 2))
    noise = complex_normal(uniform.unflatten(1, (*received.shape[1:], 2)))
    return received + noise * variance.to(uniform).sqrt()[:, None, None]


def complex_normal(uniform: Float[Tensor, "*shape 2"]) -> Complex[Tensor, "*shape"]:
    """Make circular complex normal numbers of variance 1 from pairs of uniform ones in [0, 1).

    The stream of `torch.randn` depends on how it is cut into batches, that of `torch.rand` does
    not: the same seed gives a sample the same numbers on any batch size.
    """
    radius = (-torch.log1p(-uniform[..., 0])).sqrt()
    angle = 2 * math.pi * uniform[..., 1]
    return torch.complex(radius * angle.cos(), radius * angle.sin())
