"""U-Net-Mod: a U-Net of pre-activation residual blocks; a baseline of SineNet.

J. K. Gupta, J. Brandstetter, "Towards Multi-spatiotemporal-scale Generalized PDE Modeling", TMLR
2023. arXiv:2209.15616

Modules have the official names: ``down`` and ``up`` are lists of blocks and changes of resolution.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from sixfold.core import System, UserError, from_pretrained
from sixfold.core.config import Depth
from sixfold.pde.fields.convolution import (
    ACTIVATIONS,
    Activation,
    Maps,
    Modes,
    PaddedConv,
    both_axes,
    check_sides,
)
from sixfold.pde.fields.frames import (
    Frames,
    FramesConfig,
    Normalizer,
    Predicted,
    flatten_frames,
    from_lightning,
    read_frames,
    unflatten_frames,
)

HEAD_GROUPS = 8


class UNetModConfig(FramesConfig):
    """The published size for the smoke flow (INS).

    Args:
        hidden_channels: Width of the finest level.
        mults: Growth of the width at each level.
        num_blocks: Number of residual blocks of each level.
        padding: Padding of each axis, or of both; the transposed convolutions have none.
        activation: Activation after each norm.
        norm: Whether there are norms.
    """

    hidden_channels: int = Field(default=64, ge=HEAD_GROUPS, multiple_of=HEAD_GROUPS)
    mults: tuple[PositiveInt, ...] = Field(default=(1, 2, 2, 4), min_length=1)
    num_blocks: Depth = 2
    padding: Modes = ("zeros", "zeros")
    activation: Activation = "gelu"
    norm: bool = True

    _both_axes = field_validator("padding", mode="before")(both_axes)

    def widths(self) -> list[int]:
        """List the widths: of the projection, then of each level."""
        widths = [self.hidden_channels]
        for mult in self.mults:
            widths.append(widths[-1] * mult)
        return widths


class UNetMod(nn.Module):
    """Predict the next frames of a flow: ``model(frames)``.

    Maps frames (batch, history, channel, x, y) in normalised units to (batch, future, channel, x,
    y). Sides are multiples of 2^(levels - 1).
    """

    def __init__(self, config: UNetModConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or UNetModConfig()
        widths, levels = config.widths(), len(config.mults)
        self.normalizer = Normalizer(config)
        inputs = config.time_history * config.input_channels
        self.image_proj = PaddedConv(inputs, widths[0], config.padding)
        down: list[nn.Module] = []
        for level, (before, width) in enumerate(pairwise(widths), 1):
            down += [Block(n, width, config) for n in [before] + [width] * (config.num_blocks - 1)]
            down += [Downsample(width, config)] if level < levels else []
        self.down = nn.ModuleList(down)
        self.middle = Middle(widths[-1], config)
        up: list[nn.Module] = []
        for level in range(levels, 0, -1):
            width, finer = widths[level], widths[level - 1]
            up += [Block(2 * width, width, config) for _ in range(config.num_blocks)]
            up += [Block(width + finer, finer, config)]
            up += [Upsample(finer)] if level > 1 else []
        self.up = nn.ModuleList(up)
        self.activation = ACTIVATIONS[config.activation]
        self.norm = nn.GroupNorm(HEAD_GROUPS, widths[0]) if config.norm else nn.Identity()
        outputs = config.time_future * config.output_channels
        self.final = PaddedConv(widths[0], outputs, config.padding)

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: Any) -> "UNetMod":
        """Load an official, a Lightning or a sixfold checkpoint, in eval mode.

        Args:
            path: Path of a checkpoint.
            settings: Settings that an official checkpoint does not hold: ``padding="circular"``.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        return cast(UNetMod, from_pretrained(path, SYSTEM, **settings))

    def forward(self, frames: Frames) -> Predicted:
        config = self.config
        x = flatten_frames(frames, config, "UNetMod")
        multiple = 2 ** (len(config.mults) - 1)
        check_sides(x.shape[2:], config.padding, multiple=multiple, circular_least=1, who="UNetMod")
        x = self.image_proj(x)
        skips = [x]
        for part in self.down:
            x = part(x)
            skips.append(x)
        x = self.middle(x)
        for part in self.up:
            x = part(torch.cat((x, skips.pop()), 1) if isinstance(part, Block) else x)
        return unflatten_frames(self.final(self.activation(self.norm(x))), config)


class Residual(nn.Module):
    """Twice norm, activation, convolution; added to the input."""

    def __init__(self, inputs: int, outputs: int, config: UNetModConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.conv1 = PaddedConv(inputs, outputs, config.padding)
        self.conv2 = PaddedConv(outputs, outputs, config.padding)
        self.norm1 = nn.GroupNorm(1, inputs) if config.norm else nn.Identity()
        self.norm2 = nn.GroupNorm(1, outputs) if config.norm else nn.Identity()
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Maps) -> Float[Tensor, "batch out x y"]:
        y = self.conv1(self.activation(self.norm1(x)))
        return self.conv2(self.activation(self.norm2(y))) + self.shortcut(x)


class Block(nn.Module):
    """A residual block on the way down or up."""

    def __init__(self, inputs: int, outputs: int, config: UNetModConfig) -> None:
        super().__init__()
        self.res = Residual(inputs, outputs, config)

    def forward(self, x: Maps) -> Float[Tensor, "batch out x y"]:
        return self.res(x)


class Middle(nn.Module):
    """Two residual blocks at the coarsest level."""

    def __init__(self, width: int, config: UNetModConfig) -> None:
        super().__init__()
        self.res1 = Residual(width, width, config)
        self.res2 = Residual(width, width, config)

    def forward(self, x: Maps) -> Maps:
        return self.res2(self.res1(x))


class Downsample(nn.Module):
    """Halve the grid by a strided convolution."""

    def __init__(self, width: int, config: UNetModConfig) -> None:
        super().__init__()
        self.conv = PaddedConv(width, width, config.padding, stride=2)

    def forward(self, x: Maps) -> Float[Tensor, "batch channel x_coarse y_coarse"]:
        return self.conv(x)


class Upsample(nn.Module):
    """Double the grid by a transposed convolution, which is never circular."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)

    def forward(self, x: Maps) -> Float[Tensor, "batch channel x_fine y_fine"]:
        return self.conv(x)


WHAT = "this U-Net-Mod checkpoint"
_BOTH = r"\.(weight|bias)"
_PART = r"(conv1|conv2|norm1|norm2|shortcut)"
FIRST_CONV = r"down\.(\d+)\.res\.conv1\.weight"
KEY = re.compile(
    rf"(image_proj|final|norm|(down|up)\.\d+\.conv){_BOTH}|normalizer\.(mean|sd)"
    rf"|((down|up)\.\d+\.res|middle\.res[12])\.{_PART}{_BOTH}"
)


def convert(official: Mapping[str, Tensor]) -> tuple[UNetModConfig, dict[str, Tensor]]:
    """Read settings off official weights, whose names are ours; padding and activation are guesses.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    state = from_lightning(official)
    if unknown := [key for key in state if not KEY.fullmatch(key)]:
        raise UserError(f"{WHAT} does not fit: its keys {', '.join(unknown[:5])} are not its own")
    try:
        width = len(state["image_proj.weight"])
        frames = read_frames(state, state["image_proj.weight"].shape[1], len(state["final.weight"]))
    except KeyError as error:
        raise UserError(f"{WHAT} is incomplete: it has no {error}") from None
    # A level is a run of blocks; the change of resolution after it has a number too.
    blocks = [int(found[1]) for key in state if (found := re.match(FIRST_CONV, key))]
    ends = [n for n in sorted(blocks) if n + 1 not in blocks]
    if not ends:
        raise UserError(f"{WHAT} is incomplete: it has no 'down.0.res.conv1.weight'")
    widths = [width, *(len(state[f"down.{n}.res.conv1.weight"]) for n in ends)]
    growth = [wide // narrow for narrow, wide in pairwise(widths)]
    values = {"hidden_channels": width, "mults": growth, "num_blocks": ends[0] + 1}
    values["norm"] = "norm.weight" in state
    return UNetModConfig.parse(values | frames, WHAT), state


SYSTEM = System(
    name="unet_mod",
    paper="arXiv:2209.15616",
    config=UNetModConfig,
    build=UNetMod,
    convert=convert,
    run="sixfold.pde.own_data:run_unet_mod",
    train="sixfold.pde.own_data:train_unet_mod",
    export="sixfold.pde.fields.export:exportable",
    published={"INS": (UNetModConfig(), 144_263_683)},
)
