"""The blocks of a wave and the wave itself (section 3 of the paper).

arXiv:2403.19507; the citation is in the docstring of `sixfold.pde.models.sinenet`. Modules have the
official names. A wave has four levels: widths c_k = int(h m^k), k = 0 ... 4.
"""

import math
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core.config import Depth
from sixfold.pde.fields.convolution import (
    ACTIVATIONS,
    Activation,
    Maps,
    Modes,
    PaddedConv,
    Part,
    PointwiseConv,
    both_axes,
    group_norm,
    upsample,
)
from sixfold.pde.fields.frames import FramesConfig
from sixfold.pde.fields.recompute import recompute

LEVELS = 4
Conditioning = Literal["none", "add", "scale_shift"]


class WaveConfig(FramesConfig):
    """What a wave is made of.

    Args:
        hidden_channels: Width of the finest level (h).
        mult: Growth of the width from one level to the next (m).
        num_blocks: Number of convolution blocks of each level.
        padding: Padding of each axis, or of both.
        repeat_wrap: Whether circular maps smaller than the padding are wrapped more than once, so
            that sides begin at 16 instead of 32.
        activation: Activation after each norm.
        norm: Whether convolutions are followed by a norm.
        block_residual: Whether blocks have shortcuts.
        disentangle: Whether the pooled input of a wave stands beside its features at each level.
    """

    hidden_channels: int = Field(default=64, ge=1)
    mult: float = Field(default=1.425, gt=0, le=100)
    num_blocks: Depth = 1
    padding: Modes = ("zeros", "zeros")
    repeat_wrap: bool = False
    activation: Activation = "gelu"
    norm: bool = True
    block_residual: bool = True
    disentangle: bool = True

    _both_axes = field_validator("padding", mode="before")(both_axes)

    @model_validator(mode="after")
    def _levels_have_channels(self) -> "WaveConfig":
        if min(self.widths()) < 1:
            raise ValueError(f"the widths {self.widths()} leave a level without channels")
        return self

    def widths(self) -> list[int]:
        """List the widths of the levels, the finest first."""
        return [int(self.hidden_channels * self.mult**level) for level in range(LEVELS + 1)]


class ConvBlock(nn.Module):
    """Two times convolution, norm, activation; a condition enters between the two."""

    def __init__(
        self, inputs: int, outputs: int, config: WaveConfig, conditioning: Conditioning
    ) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.conv1 = PaddedConv(inputs, outputs, config.padding)
        self.conv2 = PaddedConv(outputs, outputs, config.padding)
        self.norm1 = nn.GroupNorm(1, outputs) if config.norm else None
        self.norm2 = nn.GroupNorm(1, outputs) if config.norm else None
        self.conditioning = conditioning
        if conditioning != "none":
            wide = 2 * outputs if conditioning == "scale_shift" else outputs
            self.cond_emb = nn.Linear(4 * config.hidden_channels, wide)

    def forward(
        self,
        *parts: Part,
        condition: Float[Tensor, "batch embedding"] | None = None,
        phases: int = 1,
    ) -> Float[Tensor, "batch out x y"]:
        first, second = (list(n.parameters()) if n else [] for n in (self.norm1, self.norm2))
        effect = [] if condition is None else [self.cond_emb(condition)[..., None, None]]

        def between(x: Tensor, *rest: Tensor) -> Tensor:
            weights, effect = rest[: len(first)], rest[len(first) :]
            return self._conditioned(self._activated(phases, x, *weights), *effect)

        x = self.conv2.of(between, self.conv1(*parts), *first, *effect)
        return recompute(partial(self._activated, phases), x, *second)

    def _activated(self, phases: int, x: Tensor, *weights: Tensor) -> Tensor:
        return self.activation(group_norm(x, *weights, phases=phases) if weights else x)

    def _conditioned(self, x: Tensor, *effect: Tensor) -> Tensor:
        if not effect:
            return x
        if self.conditioning == "add":
            return x + effect[0]
        scale, shift = effect[0].chunk(2, 1)
        return x * (1 + scale) + shift


class Level(nn.Module):
    """Convolution blocks in a row, with shortcuts: one level of a wave, on its way down or up.

    Called with the maps of the shortcut, then those that the first block takes side by side.

    Args:
        main: Width of the maps that the shortcut takes (pooled features, or upsampled ones).
        beside: Width of what is concatenated to them.
        outputs: Width of the level.
        config: Settings of the wave.
        conditioning: How a condition enters.
    """

    def __init__(
        self,
        main: int,
        beside: int,
        outputs: int,
        config: WaveConfig,
        conditioning: Conditioning,
    ) -> None:
        super().__init__()
        widths = [main + beside] + [outputs] * (config.num_blocks - 1)
        self.conv = nn.ModuleList(
            ConvBlock(width, outputs, config, conditioning) for width in widths
        )
        self.shortcut = PointwiseConv(main, outputs) if config.block_residual else None

    def forward(
        self,
        main: Part,
        *parts: Part,
        condition: Float[Tensor, "batch embedding"] | None = None,
        phases: int = 1,
    ) -> Float[Tensor, "batch out x y"]:
        first, *others = self.conv
        y = first(*parts, condition=condition, phases=phases)
        y = y if self.shortcut is None else y + self.shortcut(main)
        for block in others:
            update = block(y, condition=condition, phases=phases)
            y = update if self.shortcut is None else update + y
        return y


def make_wave(
    config: WaveConfig, conditioning: Conditioning = "none"
) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Make the levels of a wave: down, and up from the deepest."""
    c = config.widths()
    carried = [0] + [c[0] if config.disentangle else 0] * (LEVELS - 1)
    down = [Level(c[i], carried[i], c[i + 1], config, conditioning) for i in range(LEVELS)]
    up = [Level(c[i + 1], c[i], c[i], config, conditioning) for i in reversed(range(LEVELS))]
    return nn.ModuleList(down), nn.ModuleList(up)


def run_wave(
    down: nn.Module,
    up: nn.Module,
    x: Maps,
    config: WaveConfig,
    condition: Float[Tensor, "batch embedding"] | None = None,
    phases: int = 1,
) -> Maps:
    """Run one small U-Net, without the residual around it.

    Going down, each level sees the pooled features and, beside them, the wave's own input pooled as
    often (disentangled): what the skip connections carry need not be what the features evolve to.
    """
    skips = [x]
    carried = x
    for depth, level in enumerate(down.children()):
        pooled = functional.avg_pool2d(skips[-1], 2)
        carried = functional.avg_pool2d(carried, 2) if depth else pooled
        beside = [carried] if depth and config.disentangle else []
        skips.append(level(pooled, pooled, *beside, condition=condition, phases=phases))
    y = skips.pop()
    for level in up.children():
        y = upsample(y, config.padding)
        y = level(y, skips.pop(), y, condition=condition, phases=phases)
    return y


def embed(value: Float[Tensor, " batch"], width: int) -> Float[Tensor, "batch width"]:
    """Embed numbers as cosines, then sines, of falling frequencies; an odd width ends in a zero."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=value.device)
    angles = value[:, None].float() * torch.exp(-math.log(10000.0) / half * steps)
    waves = torch.cat((angles.cos(), angles.sin()), 1)
    return functional.pad(waves, (0, width % 2))


class Embedding(nn.Sequential):
    """Two linear layers on the embedding of a number."""

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.width, self.activation = width, ACTIVATIONS[activation]
        self.add_module("0", nn.Linear(width, 4 * width))
        self.add_module("2", nn.Linear(4 * width, 4 * width))

    def forward(self, value: Float[Tensor, " batch"]) -> Float[Tensor, "batch embedding"]:
        first, second = self
        waves = embed(value, self.width).to(next(self.parameters()).dtype)
        return second(self.activation(first(waves)))
