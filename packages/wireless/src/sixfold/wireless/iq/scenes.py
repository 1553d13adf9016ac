"""Wideband scenes: several signals side by side in noise, after the generator of CMuSeNet.

S. Shin, M. C. Vuran, arXiv:2506.11048. The SNR is that of the weakest signal's whole power over the
noise of the whole band: a narrow signal stands much higher above the noise around it.

All numbers that a scene needs are drawn for it alone, one scene after the other, so the scenes of a
seed are the same however they are cut into batches.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Complex, Float, Int
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from sixfold.core import Config
from sixfold.core.config import Range
from sixfold.wireless.iq.modulation import MODULATIONS, Modulation, modulate, symbols_needed

DRAWS_PER_SIGNAL = 10  # of a place, taken together for a whole scene
LARGEST_POWER_DB = 20
DOPPLER_HZ, RICIAN_K, PATHS = 30.0, 10.0, 16


class SceneConfig(Config):
    """Settings of the generator; the defaults are the published ones.

    Args:
        bins: Number of samples.
        sample_rate_hz: Sample rate.
        widths_hz: Widths of labels to draw from.
        signals: Smallest and largest number of signals.
        guard_hz: Smallest gap between two labels.
        modulations: Modulations to draw from.
        fading: Flat fading of all signals together.
        official_names: Whether "8psk" and "8qam" mean each other, as in the official data.
    """

    bins: PositiveInt = 16384
    sample_rate_hz: PositiveFloat = 20e6
    widths_hz: tuple[PositiveFloat, ...] = Field(
        default=(0.1e6, 0.2e6, 0.5e6, 1e6, 2e6), min_length=1
    )
    signals: Range[PositiveInt] = (1, 10)
    guard_hz: float = Field(default=100e3, ge=0)
    modulations: tuple[Modulation, ...] = Field(default=MODULATIONS, min_length=1)
    fading: Literal["none", "rayleigh", "rician"] = "none"
    official_names: bool = False

    @model_validator(mode="after")
    def _fits(self) -> "SceneConfig":
        for width in self.widths_hz:
            steps = 2 * self.sample_rate_hz / width
            if width > self.sample_rate_hz or abs(steps - round(steps)) > 1e-6:
                raise ValueError(
                    f"widths_hz: {width:g} should divide twice the sample rate, "
                    f"{2 * self.sample_rate_hz:g}, and be no larger than that rate"
                )
        return self


class Scenes(NamedTuple):
    """Scenes and what is in them.

    Args:
        samples: Samples, noise included.
        center_hz: Centre of each signal, relative to that of the band.
        width_hz: Width of each signal's label.
        power_db: Power of each signal.
        modulation: Index of each signal's modulation in the settings.
        placed: Whether the signal found a place; the others are not in the samples.
        noise_power_db: Power of the noise over the whole band.
    """

    samples: Complex[Tensor, "batch time"]
    center_hz: Float[Tensor, "batch signal"]
    width_hz: Float[Tensor, "batch signal"]
    power_db: Float[Tensor, "batch signal"]
    modulation: Int[Tensor, "batch signal"]
    placed: Bool[Tensor, "batch signal"]
    noise_power_db: Float[Tensor, " batch"]


def draw_scenes(
    config: SceneConfig, snr_db: Float[Tensor, " batch"], generator: torch.Generator
) -> Scenes:
    """Draw one scene for each SNR, on the generator's device.

    Args:
        config: Settings.
        snr_db: Power of the weakest signal drawn over that of the noise in the whole band.
        generator: Source of all random numbers.
    """
    most, device = config.signals[1], generator.device
    symbols = max(_symbols(config, width) for width in config.widths_hz)
    sizes = [1, 3 * most, DRAWS_PER_SIGNAL * most, most * symbols, 2 * PATHS + 2, 2 * config.bins]
    uniform = torch.rand(len(snr_db), sum(sizes), generator=generator, device=device)
    number, kinds, places, bits, paths, noise = uniform.split(sizes, 1)
    fewest = config.signals[0]
    count = fewest + (number[:, 0] * (most - fewest + 1)).long()
    width, power, modulation = _kinds(config, kinds.unflatten(1, (3, most)))
    drawn = torch.arange(most, device=device) < count[:, None]
    center, placed = _place(config, width, places, count)
    clean = _signals(config, bits.unflatten(1, (most, symbols)), center, width, power, modulation,
                     placed)  # fmt: skip
    clean = clean * _fading(config, paths)
    weakest = torch.where(drawn, power, math.inf).amin(1)
    noise_db = weakest - snr_db.to(power)
    samples = clean + 10 ** (noise_db[:, None] / 20) * _gaussian(noise)
    return Scenes(samples, center.float(), width.float(), power, modulation, placed, noise_db)


def scene_masks(config: SceneConfig, scenes: Scenes) -> Float[Tensor, "batch bin"]:
    """Return ones in the bins of the labels of all placed signals."""
    per_hz, half = config.bins / config.sample_rate_hz, config.sample_rate_hz / 2
    center, width = scenes.center_hz.double(), scenes.width_hz.double()
    first = ((half + center - width / 2) * per_hz).floor()[..., None]
    end = ((half + center + width / 2) * per_hz).ceil()[..., None]
    bins = torch.arange(config.bins, device=center.device)
    inside = (bins >= first) & (bins < end) & scenes.placed[..., None]
    return inside.any(1).float()


def _symbols(config: SceneConfig, width_hz: float) -> int:
    return symbols_needed(config.bins, round(2 * config.sample_rate_hz / width_hz))


def _kinds(config: SceneConfig, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return width in Hz (float64), power in dB and modulation of each signal."""
    widths = torch.tensor(config.widths_hz, dtype=torch.float64, device=uniform.device)
    width = widths[(uniform[:, 0] * len(widths)).long()]
    power = (uniform[:, 1] * (LARGEST_POWER_DB + 1)).floor()
    return width, power, (uniform[:, 2] * len(config.modulations)).long()


def _place(
    config: SceneConfig, width: Tensor, uniform: Tensor, count: Tensor
) -> tuple[Tensor, Tensor]:
    """Place one signal after the other, each until it fits or all draws are spent."""
    room = config.sample_rate_hz - width
    center, placed = torch.zeros_like(width), torch.zeros_like(width, dtype=torch.bool)
    rows, current = torch.arange(len(width), device=width.device), torch.zeros_like(count)
    for draw in range(uniform.shape[1]):
        active = (current < count) & (draw < DRAWS_PER_SIGNAL * count)
        j = current.clamp_max(width.shape[1] - 1)
        own = width[rows, j]
        at = (-room[rows, j] / 2 + uniform[:, draw].double() * (room[rows, j] + 1)).floor()
        at = torch.minimum(at, room[rows, j] / 2)
        gap = (own[:, None] + width) / 2 + config.guard_hz
        free = ~(((at[:, None] - center).abs() < gap) & placed).any(1) & active
        center[rows[free], j[free]] = at[free]
        placed[rows[free], j[free]] = True
        current = current + free
    return center, placed


def _signals(
    config: SceneConfig,
    uniform: Tensor,
    center: Tensor,
    width: Tensor,
    power: Tensor,
    modulation: Tensor,
    placed: Tensor,
) -> Tensor:
    """Sum the signals of each scene, those of one kind and width made together."""
    batch, time = len(width), torch.arange(config.bins, dtype=torch.float64, device=width.device)
    total = torch.zeros(batch, config.bins, dtype=torch.complex64, device=width.device)
    for width_hz in config.widths_hz:
        for index, name in enumerate(config.modulations):
            chosen = placed & (width == width_hz) & (modulation == index)
            scene, signal = torch.nonzero(chosen, as_tuple=True)
            if not len(scene):
                continue
            step = round(2 * config.sample_rate_hz / width_hz)
            made = modulate(_true_name(config, name), uniform[scene, signal], step, config.bins)
            cycles = center[scene, signal][:, None] / config.sample_rate_hz * time
            angle = (2 * math.pi * cycles.remainder(1.0)).float()
            amplitude = 10 ** (power[scene, signal][:, None] / 20)
            # one after the other, so that a sum does not depend on the batch
            shifted = made * torch.polar(amplitude.expand_as(angle).contiguous(), angle)
            for row, one in zip(scene.tolist(), shifted, strict=True):
                total[row] += one
    return total


def _true_name(config: SceneConfig, name: Modulation) -> Modulation:
    swapped: dict[Modulation, Modulation] = {"8psk": "8qam", "8qam": "8psk"}
    return swapped.get(name, name) if config.official_names else name


def _fading(config: SceneConfig, uniform: Tensor) -> Tensor:
    """Return the flat gain over time: sums of sinusoids of random angles and phases."""
    if config.fading == "none":
        return uniform.new_ones(())
    time = torch.arange(config.bins, device=uniform.device) / config.sample_rate_hz
    turns, rest = 2 * math.pi * uniform[:, : 2 * PATHS], uniform[:, -2:]
    angle, phase = turns.chunk(2, 1)
    argument = 2 * math.pi * DOPPLER_HZ * angle.cos()[..., None] * time + phase[..., None]
    scattered = torch.polar(torch.ones_like(argument), argument).sum(1) / PATHS**0.5
    if config.fading == "rayleigh":
        return scattered
    sight = 2 * math.pi * (DOPPLER_HZ * torch.cos(2 * math.pi * rest[:, :1]) * time + rest[:, 1:])
    direct = torch.polar(torch.ones_like(sight), sight)
    return (RICIAN_K**0.5 * direct + scattered) / (RICIAN_K + 1) ** 0.5


def _gaussian(uniform: Tensor) -> Tensor:
    """Return circular complex noise of unit power, by Box and Muller."""
    first, second = uniform.chunk(2, 1)
    return torch.polar((-torch.log1p(-first)).sqrt(), 2 * math.pi * second)
