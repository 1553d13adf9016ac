"""DeFTAN-II's network, on channels-last feature maps (batch, frame, frequency, channel).

arXiv:2308.15777; the citation is in the docstring of `sixfold.speech.models.deftan2`. The published
code unfolds overlapping windows and then takes every ks-th channel; that equals the map shifted by
the tap, so here it is a view and the windows are never stored.
"""

from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import Config, from_pretrained
from sixfold.core.config import Depth
from sixfold.speech.audio.array_stft import check_array, map_spectrum
from sixfold.speech.models.deftan2.layers import Axis, GroupNorm, SplitDense, convolve


class DeFTAN2Config(Config):
    """Sizes of the paper's base network for four microphones; times at 16 kHz."""

    microphones: PositiveInt = 4
    sources: PositiveInt = 1
    n_fft: PositiveInt = 512  # 32 ms; the hop is half of it
    blocks: Depth = 6  # 12: large
    channels: PositiveInt = 64
    heads: PositiveInt = 4  # also the number of groups of the first and the last dense block
    head_channels: PositiveInt = 64
    hidden: PositiveInt = 256
    window: PositiveInt = 4  # steps along frequency or time that become one step of attention
    stride: PositiveInt = 1
    dropout: float = Field(default=0.1, ge=0, lt=1)
    sample_rate: PositiveInt = 16_000

    @model_validator(mode="after")
    def _sizes_fit(self) -> "DeFTAN2Config":
        if self.n_fft % 2 or self.hidden % 2:
            raise ValueError(f"n_fft {self.n_fft} and hidden {self.hidden} should be even")
        if self.window > self.n_fft // 2 + 1:
            raise ValueError(f"a window of {self.window} is more than the bins of {self.n_fft}")
        return self


LARGE = DeFTAN2Config(blocks=12)
"""The paper's large network (twelve blocks, inferred from its number of parameters)."""


class DeFTAN2(nn.Module):
    """Map an array recording (batch, microphone, time) to direct sound (batch, source, time).

    Microphone 0 is the reference. The level is normalised and restored.
    """

    def __init__(self, config: DeFTAN2Config | None = None) -> None:
        super().__init__()
        self.config = config = config or DeFTAN2Config()
        c, heads, out = config.channels, config.heads, 2 * config.sources
        self.in_proj = nn.Conv2d(2 * config.microphones, c * heads, 3)
        self.in_norm = GroupNorm(c * heads)
        self.in_dense = SplitDense(c, heads, (3, 3))
        self.blocks = nn.ModuleList(Block(config, 2**i) for i in range(config.blocks))
        self.out_proj = nn.Conv2d(c, out * heads, 3)
        self.out_dense = SplitDense(out, heads, (3, 3))
        self.register_buffer("hann", torch.hann_window(config.n_fft), persistent=False)

    @classmethod
    def from_pretrained(cls, path: str | Path, sample_rate: int | None = None) -> "DeFTAN2":
        """Load an official or a sixfold checkpoint, in eval mode.

        Args:
            path: Path of a checkpoint.
            sample_rate: Sample rate that the network was trained at, in Hz. Official checkpoints
                do not hold it: unset, it is 16000, as released.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        from sixfold.speech.models.deftan2 import SYSTEM  # that module imports this one

        return cast(DeFTAN2, from_pretrained(path, SYSTEM, sample_rate=sample_rate))

    def forward(self, noisy: Tensor) -> Float[Tensor, "batch source time"]:
        check_array(noisy, self.config.microphones, "DeFTAN2")
        return map_spectrum(noisy, self.map_spectra, cast(Tensor, self.hann))

    def map_spectra(
        self, x: Float[Tensor, "batch frame frequency features"]
    ) -> Float[Tensor, "batch _frame _frequency parts"]:
        """Map real and imaginary parts of all microphones to those of all sources."""
        x = self.in_norm(convolve(x, self.in_proj, (1, 1)), 3)
        x = self.in_dense(self.in_dense.split(x), 3)
        for block in self.blocks:
            x = block(x)
        x = convolve(x, self.out_proj, (1, 1))
        return self.out_dense(self.out_dense.split(x), 3)


class Block(nn.Module):
    """One `Axis` along frequency in every frame, then one along time at every frequency."""

    def __init__(self, config: DeFTAN2Config, dilation: int) -> None:
        super().__init__()
        self.window, self.stride = config.window, config.stride
        sizes = (config.channels, config.window, config.stride, config.heads)
        more = (config.head_channels, config.hidden, config.dropout, dilation)
        self.frequency, self.time = Axis(*sizes, *more), Axis(*sizes, *more)

    def forward(
        self, x: Float[Tensor, "batch frame frequency channel"]
    ) -> Float[Tensor, "batch _frame _frequency channel"]:
        missing = [-(n - self.window) % self.stride for n in x.shape[1:3]]
        if any(missing):  # as published, this padding is never removed
            x = functional.pad(x, (0, 0, 0, missing[1], 0, missing[0]))
        return self.time(self.frequency(x).transpose(1, 2)).transpose(1, 2)
