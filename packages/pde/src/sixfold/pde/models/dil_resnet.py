"""Dil-ResNet: residual blocks of dilated convolutions at one resolution; a baseline of SineNet.

K. Stachenfeld et al., "Learned Coarse Models for Efficient Turbulence Simulation", ICLR 2022.
arXiv:2112.15275

Modules have the names of SineNet's repository. A norm stands before its convolution, the activation
after it. The table of SineNet's paper has the width 256, the released code 128.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

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
    pad,
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

DILATIONS = (1, 2, 4, 8, 4, 2, 1)
MARGIN = 9  # points that are added to the end of each axis, and cropped


class DilResNetConfig(FramesConfig):
    """The size of the paper's table for the smoke flow (INS).

    Args:
        hidden_channels: Width.
        blocks: Number of blocks of each of the groups in which the official names count them.
        padding: Padding of each axis, or of both.
        activation: Activation after each convolution.
        norm: Whether there are norms.
    """

    hidden_channels: PositiveInt = 256
    blocks: tuple[Depth, ...] = Field(default=(1, 1, 1, 1), min_length=1)
    padding: Modes = ("zeros", "zeros")
    activation: Activation = "gelu"
    norm: bool = True

    _both_axes = field_validator("padding", mode="before")(both_axes)


class DilResNet(nn.Module):
    """Predict the next frames of a flow: ``model(frames)``.

    Maps frames (batch, history, channel, x, y) in normalised units to (batch, future, channel, x,
    y), of any sides (circular: from 9).
    """

    def __init__(self, config: DilResNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DilResNetConfig()
        width = config.hidden_channels
        self.activation = ACTIVATIONS[config.activation]
        self.normalizer = Normalizer(config)
        self.conv_in1 = nn.Conv2d(config.time_history * config.input_channels, width, 1)
        self.conv_in2 = nn.Conv2d(width, width, 1)
        self.layers = nn.ModuleList(
            nn.Sequential(*(DilatedBlock(config) for _ in range(count))) for count in config.blocks
        )
        self.conv_out1 = nn.Conv2d(width, width, 1)
        self.conv_out2 = nn.Conv2d(width, config.time_future * config.output_channels, 1)

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: Any) -> "DilResNet":
        """Load an official, a Lightning or a sixfold checkpoint, in eval mode.

        Args:
            path: Path of a checkpoint.
            settings: Settings that an official checkpoint does not hold: ``padding="circular"``.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        return cast(DilResNet, from_pretrained(path, SYSTEM, **settings))

    def forward(self, frames: Frames) -> Predicted:
        x = flatten_frames(frames, self.config, "DilResNet")
        sides = x.shape[2:]
        x = self.activation(self.conv_in2(self.activation(self.conv_in1(x))))
        x = pad(x, 0, MARGIN, self.config.padding)
        for layer in self.layers:
            x = layer(x)
        x = x[..., : sides[0], : sides[1]]
        x = self.conv_out2(self.activation(self.conv_out1(x)))
        return unflatten_frames(x, self.config)


class DilatedBlock(nn.Module):
    """Seven times norm, dilated convolution, activation; added to the input."""

    def __init__(self, config: DilResNetConfig) -> None:
        super().__init__()
        width = config.hidden_channels
        self.activation = ACTIVATIONS[config.activation]
        self.dilation_layers = nn.ModuleList(
            PaddedConv(width, width, config.padding, dilation=dilation) for dilation in DILATIONS
        )
        self.norm_layers = nn.ModuleList(
            nn.GroupNorm(1, width) if config.norm else nn.Identity() for _ in DILATIONS
        )

    def forward(self, x: Maps) -> Maps:
        y = x
        for conv, norm in zip(self.dilation_layers, self.norm_layers, strict=True):
            y = self.activation(conv(norm(y)))
        return y + x


WHAT = "this Dil-ResNet checkpoint"
_PART = r"layers\.(\d+)\.(\d+)\.(dilation|norm)_layers\.\d"
KEY = re.compile(rf"(conv_(in|out)[12]|{_PART})\.(weight|bias)|normalizer\.(mean|sd)")


def convert(official: Mapping[str, Tensor]) -> tuple[DilResNetConfig, dict[str, Tensor]]:
    """Read settings off official weights, whose names are ours; padding and activation are guesses.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    state = from_lightning(official)
    if unknown := [key for key in state if not KEY.fullmatch(key)]:
        raise UserError(f"{WHAT} does not fit: its keys {', '.join(unknown[:5])} are not its own")
    try:
        width, inputs = state["conv_in1.weight"].shape[:2]
        frames = read_frames(state, inputs, len(state["conv_out2.weight"]))
    except KeyError as error:
        raise UserError(f"{WHAT} is incomplete: it has no {error}") from None
    places = {
        (int(found[1]), int(found[2]))
        for key in state
        if (found := re.match(_PART, key)) is not None
    }
    layers = sorted({layer for layer, _ in places})
    values = {
        "hidden_channels": width,
        "blocks": [sum(layer == of for of, _ in places) for layer in layers],
        "norm": any("norm_layers" in key for key in state),
    }
    return DilResNetConfig.parse(values | frames, WHAT), state


SYSTEM = System(
    name="dil_resnet",
    paper="arXiv:2112.15275",
    config=DilResNetConfig,
    build=DilResNet,
    convert=convert,
    run="sixfold.pde.own_data:run_dil_resnet",
    train="sixfold.pde.own_data:train_dil_resnet",
    export="sixfold.pde.fields.export:exportable",
    published={
        "INS": (DilResNetConfig(), 16_672_259),
        "INS, as released": (DilResNetConfig(hidden_channels=128), 4_174_595),
    },
)
