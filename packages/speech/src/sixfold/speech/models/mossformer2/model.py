"""MossFormer2's network: encoder, mask network and decoder; and MossFormer.

arXiv:2312.11825 and, without the memory blocks, arXiv:2302.11824; the citations are in the
docstring of `sixfold.speech.models.mossformer2`.
"""

from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import Config, UserError, from_pretrained
from sixfold.core.config import Depth
from sixfold.speech.models.mossformer2.layers import (
    Attention,
    GlobalNorm,
    MemoryBlock,
    Sequence,
    rotary_table,
)


class MaskNetConfig(Config):
    """Sizes of the paper's mask network."""

    speakers: PositiveInt = 2
    channels: PositiveInt = 512
    blocks: Depth = 24
    group: PositiveInt = 256  # frames
    key_channels: PositiveInt = 128
    expansion: float = Field(default=4.0, gt=0)
    memory_channels: PositiveInt | None = 256  # None: no memory blocks, MossFormer
    memory: PositiveInt = 20
    dropout: float = Field(default=0.1, ge=0, lt=1)
    causal_attention: bool = False  # in the released code, but in no released model

    @model_validator(mode="after")
    def _channels_are_even(self) -> "MaskNetConfig":
        if self.channels % 2:
            raise ValueError(f"channels {self.channels} should be even")
        return self


class MossFormer2Config(MaskNetConfig):
    """The paper's size, at 8 kHz; the network for 16 kHz is the same."""

    kernel_size: PositiveInt = 16  # samples of a frame; half of it is the hop
    masking: bool = True  # False: the network's output is the features (WHAMR!)
    sample_rate: PositiveInt = 8000

    @model_validator(mode="after")
    def _kernel_is_even(self) -> "MossFormer2Config":
        if self.kernel_size % 2:
            raise ValueError(f"kernel_size {self.kernel_size} should be even")
        return self


class MossFormerConfig(MossFormer2Config):
    """MossFormer(L): the same sizes without memory blocks."""

    memory_channels: PositiveInt | None = None


class MossFormer2(nn.Module):
    """Separate the speakers of a mixture (batch, time) into (batch, speaker, time).

    The speakers are in no particular order. The outputs are as long as the mixture, whose level is
    not normalised.
    """

    def __init__(self, config: MossFormer2Config | None = None) -> None:
        super().__init__()
        self.config = config = config or MossFormer2Config()
        n, kernel = config.channels, config.kernel_size
        self.encoder = nn.Conv1d(1, n, kernel, bias=False)
        self.mask = MaskNet(config, n, n)
        self.decoder = nn.ConvTranspose1d(n, 1, kernel, bias=False)

    @classmethod
    def from_pretrained(cls, path: str | Path, sample_rate: int | None = None) -> "MossFormer2":
        """Load an official or a sixfold checkpoint, in eval mode.

        Args:
            path: Path of a checkpoint, or name of published weights.
            sample_rate: Sample rate that the network was trained at, in Hz. Official checkpoints
                do not hold it: unset, it is that of the published name, else 8000.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        from sixfold.speech.models.mossformer2 import SYSTEM  # that module imports this one

        return cast(MossFormer2, from_pretrained(path, SYSTEM, sample_rate=sample_rate))

    def forward(self, mixture: Tensor) -> Float[Tensor, "batch speaker time"]:
        self.check(mixture)
        size, hop = self.config.kernel_size, self.config.kernel_size // 2
        frames = mixture.unfold(1, size, hop)
        features = torch.relu(frames @ self.encoder.weight[:, 0].t())
        masks = self.mask(features)
        if self.config.masking:
            masks = masks * features[:, :, None]
        first, second = (masks @ self.decoder.weight[:, 0]).unflatten(-1, (2, hop)).unbind(-2)
        first, second = first.transpose(1, 2), second.transpose(1, 2)  # (B, speaker, L, hop)
        signal = functional.pad(first, (0, 0, 0, 1)) + functional.pad(second, (0, 0, 1, 0))
        missing = mixture.shape[1] - signal.shape[2] * hop
        return functional.pad(signal.flatten(2), (0, missing))

    def check(self, mixture: Tensor) -> None:
        """Raise a UserError if the mixture is not float audio (batch, time) of at least a frame."""
        if mixture.ndim != 2 or not mixture.is_floating_point():
            raise UserError(
                f"MossFormer2 takes float audio shaped (batch, time), got {mixture.dtype} "
                f"{tuple(mixture.shape)}; for one signal pass x[None], for a channel axis of one "
                "x.squeeze(1)"
            )
        if mixture.shape[0] == 0:
            raise UserError(
                f"MossFormer2 was given a signal of zero samples, shape {tuple(mixture.shape)}"
            )
        if mixture.shape[1] < self.config.kernel_size:
            raise UserError(
                f"MossFormer2 was given {mixture.shape[1]} samples, less than a frame of "
                f"{self.config.kernel_size}"
            )


class MossFormer(MossFormer2):
    """MossFormer2 without memory blocks: a mixture (batch, time) to (batch, speaker, time)."""

    def __init__(self, config: MossFormer2Config | None = None) -> None:
        super().__init__(config or MossFormerConfig())

    @classmethod
    def from_pretrained(cls, path: str | Path, sample_rate: int | None = None) -> "MossFormer":
        """Load a checkpoint in eval mode, see `MossFormer2.from_pretrained`."""
        from sixfold.speech.models.mossformer2 import MOSSFORMER  # that module imports this one

        return cast(MossFormer, from_pretrained(path, MOSSFORMER, sample_rate=sample_rate))


class MaskNet(nn.Module):
    """Map features (batch, frame, inputs) to a mask for each speaker, (batch, frame, speaker, out).

    Args:
        config: Sizes of the network.
        inputs: Number of features per frame.
        out: Number of mask values per frame and speaker.
        dense: Kind of memory, see `MemoryBlock`.
    """

    def __init__(self, config: MaskNetConfig, inputs: int, out: int, *, dense: bool = True) -> None:
        super().__init__()
        d, inner = config.channels, config.memory_channels
        self.key_channels = config.key_channels
        self.norm, self.in_proj = GlobalNorm(inputs), nn.Linear(inputs, d, bias=False)
        self.position_scale = nn.Parameter(torch.ones(1))
        sizes = (d, config.group, config.key_channels, config.expansion, config.dropout)
        self.attention = nn.ModuleList(
            Attention(*sizes, config.causal_attention) for _ in range(config.blocks)
        )
        self.memories = nn.ModuleList(
            MemoryBlock(d, inner, config.memory, config.dropout, dense=dense)
            for _ in range(config.blocks if inner else 0)
            if inner
        )
        self.stack_norm = nn.LayerNorm(d, eps=1e-6)
        self.skip_norm, self.prelu = GlobalNorm(d), nn.PReLU()
        self.speakers = nn.Linear(d, d * config.speakers)
        self.value, self.gate = nn.Linear(d, d), nn.Linear(d, d)
        self.out_proj = nn.Linear(d, out, bias=False)

    def forward(self, features: Sequence) -> Float[Tensor, "batch frame speaker out"]:
        frames = features.shape[1]
        embedded = self.in_proj(self.norm(features))
        embedded = embedded + self.position_scale * position_encoding(frames, embedded)
        x, rotary = embedded, rotary_table(frames, self.key_channels, embedded)
        for i, attention in enumerate(self.attention):
            x = attention(x, rotary)
            if len(self.memories):
                x = self.memories[i](x)
        x = self.prelu(self.skip_norm(self.stack_norm(x)) + embedded)
        each = self.speakers(x).unflatten(-1, (-1, x.shape[-1]))
        gated = torch.tanh(self.value(each)) * torch.sigmoid(self.gate(each))
        return torch.relu(self.out_proj(gated))


def position_encoding(frames: int, like: Tensor) -> Float[Tensor, "frame channel"]:
    """Compute the sinusoidal position encoding: all sines, then all cosines."""
    channels = like.shape[-1]
    position = torch.arange(frames, device=like.device, dtype=torch.float32)
    exponent = torch.arange(0, channels, 2, device=like.device, dtype=torch.float32) / channels
    angle = position[:, None] * 10000.0**-exponent
    return torch.cat([angle.sin(), angle.cos()], -1).to(like.dtype)
