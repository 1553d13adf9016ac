"""Training crops and whole validation recordings of one's own files, read when they are needed."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor

from sixfold.core.config import Config, Decibels, Range
from sixfold.core.training.sampling import derive_seed
from sixfold.speech.audio.files import open_recording
from sixfold.speech.audio.resampling import resample
from sixfold.speech.data.layouts import Item, Layout
from sixfold.speech.data.mixing import random_integer, random_uniform


class CropConfig(Config):
    """How one's own recordings are used.

    Args:
        seconds: Length of a training crop in seconds; shorter recordings are padded with zeros.
        snr_db: Range of signal-to-noise ratios where noise is added on the fly, in decibels.
        valid_items: Largest number of validation recordings that are scored.
        valid_seconds: Seconds of each that are scored.
    """

    seconds: float = Field(default=2.0, gt=0, le=86_400)
    snr_db: Range[Decibels] = (-5.0, 15.0)
    valid_items: PositiveInt = 50
    valid_seconds: float = Field(default=10.0, gt=0.5)


class Crops:
    """Random crops of recordings, at the network's sample rate.

    Args:
        layout: Recordings, and noises to add to them.
        sample_rate: The network's sample rate in Hz.
        config: Lengths and levels.
    """

    def __init__(self, layout: Layout, sample_rate: int, config: CropConfig) -> None:
        self.items, self.noises = layout.items, layout.noises
        self.sample_rate, self.config = sample_rate, config

    def __len__(self) -> int:
        return len(self.items)

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Cut one crop: ``input`` (channel, time) and ``targets`` (source, time)."""
        return self._read(index, self.config.seconds, generator, padded=True)

    def recordings(self) -> Iterator[tuple[Float[Tensor, "channel time"], Tensor]]:
        """Yield input and targets of the recordings that are scored, the same each time."""
        for index in range(min(len(self), self.config.valid_items)):
            generator = torch.Generator().manual_seed(derive_seed(0, "validation", index))
            crop = self._read(index, self.config.valid_seconds, generator, padded=False)
            yield crop["input"], crop["targets"]

    def _read(
        self, index: int, seconds: float, generator: torch.Generator, *, padded: bool
    ) -> dict[str, Tensor]:
        item = self.items[index]
        start = self._start(item, seconds, generator)
        first, *others = (
            self._cut(path, item, start, seconds, padded=padded)
            for path in (item.input, *item.targets)
        )
        if item.targets:
            return {"input": first, "targets": torch.cat([other[:1] for other in others])}
        clean = first[:1]
        noise = self._noise(clean.shape[1], generator)
        snr_db = random_uniform(self.config.snr_db, generator)
        ratio = clean.norm() / noise.norm().clamp_min(1e-9) * 10 ** (-snr_db / 20)
        return {"input": clean + ratio * noise, "targets": clean}

    def _start(self, item: Item, seconds: float, generator: torch.Generator) -> int:
        return random_integer(max(1, item.samples - _count(item, seconds) + 1), generator)

    def _noise(self, samples: int, generator: torch.Generator) -> Float[Tensor, "1 time"]:
        """Cut noise of some length, repeated where its recording is too short."""
        item = self.noises[random_integer(len(self.noises), generator)]
        seconds = samples / self.sample_rate
        start = self._start(item, seconds, generator)
        noise = self._cut(item.input, item, start, seconds, padded=False)[:1]
        return noise.repeat(1, math.ceil(samples / noise.shape[1]))[:, :samples]

    def _cut(
        self, path: Path, item: Item, start: int, seconds: float, *, padded: bool
    ) -> Float[Tensor, "channel time"]:
        count = min(_count(item, seconds), item.samples - start)
        with open_recording(path) as recording:
            audio = recording.part(start, count)
        audio = resample(audio, item.sample_rate, self.sample_rate)
        length = round(seconds * self.sample_rate)
        missing = length - audio.shape[1] if padded else 0
        return torch.nn.functional.pad(audio, (0, max(0, missing)))[:, :length]


def _count(item: Item, seconds: float) -> int:
    return math.ceil(seconds * item.sample_rate)


def hold_out(layout: Layout, fraction: float, seed: int) -> tuple[Layout, Layout]:
    """Split recordings into training and validation, at least one for each if there are two."""
    order = torch.Generator().manual_seed(derive_seed(seed, "held out"))
    indices = torch.randperm(len(layout.items), generator=order).tolist()
    held = min(max(1, round(fraction * len(indices))), len(indices) - 1)
    valid, train = (_chosen(layout.items, part) for part in (indices[:held], indices[held:]))
    return Layout(train, layout.noises), Layout(valid, layout.noises)


def _chosen(items: Sequence[Item], indices: Sequence[int]) -> list[Item]:
    return [items[i] for i in sorted(indices)]
