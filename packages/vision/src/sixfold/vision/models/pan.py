"""PAN: pixel attention for light super-resolution; a baseline of CFSR.

H. Zhao, X. Kong, J. He, Y. Qiao, C. Dong, "Efficient Image Super-Resolution Using Pixel Attention",
ECCVW 2020. arXiv:2010.01073

Parameters have the official names.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import Config, System, UserError, from_pretrained, rename
from sixfold.core.config import Depth
from sixfold.core.devices import check_device
from sixfold.vision.data.catalog import published_files
from sixfold.vision.images.enlarging import check_scale, enlarge_files
from sixfold.vision.images.network import check_pictures

SLOPE = 0.2


class PANConfig(Config):
    """Sizes of the released x4 network."""

    in_chans: PositiveInt = 3
    features: int = Field(default=40, ge=2, multiple_of=2)
    upsampled_features: PositiveInt = 24
    blocks: Depth = 16
    upscale: Literal[2, 3, 4] = 4

    def steps(self) -> tuple[int, ...]:
        """List the factors by which the features are enlarged, one after the other."""
        return (2, 2) if self.upscale == 4 else (self.upscale,)

    def receptive_radius(self) -> int:
        """Return how many pixels around a pixel of the input decide its part of the output: 36."""
        reach = 2 + 2 * self.blocks  # two 3x3 convolutions in a row in each block
        for factor in self.steps():
            reach = reach * factor + 2
        return -(-(reach + 1) // self.upscale)


class PAN(nn.Module):
    """Enlarge pictures (batch, channel, height, width) of values in [0, 1]: ``model(pictures)``."""

    def __init__(self, config: PANConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PANConfig()
        wide, narrow = config.features, config.upsampled_features
        self.conv_first = conv3x3(config.in_chans, wide)
        self.SCPA_trunk = nn.Sequential(*(SelfCalibratedBlock(wide) for _ in range(config.blocks)))
        self.trunk_conv = conv3x3(wide, wide)
        for number, _ in enumerate(config.steps(), 1):
            self.add_module(f"upconv{number}", conv3x3(wide if number == 1 else narrow, narrow))
            self.add_module(f"att{number}", PixelAttention(narrow))
            self.add_module(f"HRconv{number}", conv3x3(narrow, narrow))
        self.conv_last = conv3x3(narrow, config.in_chans)

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: Any) -> "PAN":
        """Load an official or a sixfold checkpoint, in eval mode.

        Args:
            path: Path of a checkpoint, or name of published weights, e.g. ``PANx4_DF2K.pth``.
            settings: Settings that an official checkpoint does not hold: ``upscale=3``.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        return cast(PAN, from_pretrained(path, SYSTEM, **settings))

    def forward(self, pictures: Tensor) -> Float[Tensor, "batch channel height_out width_out"]:
        check_pictures(self, pictures)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        y = self.conv_first(pictures)
        y = y + self.trunk_conv(self.SCPA_trunk(y))
        for number, factor in enumerate(self.config.steps(), 1):
            y = functional.interpolate(y, scale_factor=factor, mode="nearest")
            y = self.get_submodule(f"upconv{number}")(y)
            y = functional.leaky_relu(self.get_submodule(f"att{number}")(y), SLOPE)
            y = functional.leaky_relu(self.get_submodule(f"HRconv{number}")(y), SLOPE)
        enlarged = functional.interpolate(
            pictures, scale_factor=self.config.upscale, mode="bilinear", align_corners=False
        )
        return self.conv_last(y) + enlarged


class PixelAttention(nn.Module):
    """Gate every value by a 1x1 convolution of its pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(x))


class SelfCalibratedBlock(nn.Module):
    """Self-calibrated convolutions with pixel attention (SCPA): one half of them is gated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1_a = nn.Conv2d(channels, half, 1, bias=False)
        self.conv1_b = nn.Conv2d(channels, half, 1, bias=False)
        self.k1 = nn.Sequential(conv3x3(half, half, bias=False))
        self.PAConv = GatedConv(half)
        self.conv3 = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a = functional.leaky_relu(self.conv1_a(x), SLOPE)
        b = functional.leaky_relu(self.conv1_b(x), SLOPE)
        a = functional.leaky_relu(self.k1(a), SLOPE)
        b = functional.leaky_relu(self.PAConv(b), SLOPE)
        return self.conv3(torch.cat([a, b], 1)) + x


class GatedConv(nn.Module):
    """Two 3x3 convolutions with pixel attention in between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.k2 = nn.Conv2d(channels, channels, 1)
        self.k3 = conv3x3(channels, channels, bias=False)
        self.k4 = conv3x3(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.k4(self.k3(x) * torch.sigmoid(self.k2(x)))


def conv3x3(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    """Make a 3x3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


OFFICIAL = {
    name: name
    for name in (
        "conv_{part}.{leaf}",
        "trunk_conv.{leaf}",
        "upconv{i}.{leaf}",
        "HRconv{i}.{leaf}",
        "SCPA_trunk.{i}.{part}.weight",
        "SCPA_trunk.{i}.k1.0.weight",
        "SCPA_trunk.{i}.PAConv.{part}.{leaf}",
        "att{i}.conv.{leaf}",
    )
}


def convert(official: Mapping[str, Tensor]) -> tuple[PANConfig, dict[str, Tensor]]:
    """Read settings off official weights, whose names are ours.

    One step of enlargement is x2 or x3, which the weights do not say: it is taken to be x2.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    what = "this PAN checkpoint"
    state = rename(official, OFFICIAL, what=what)
    try:
        wide, channels = state["conv_first.weight"].shape[:2]
        values: dict[str, Any] = {
            "in_chans": channels,
            "features": wide,
            "upsampled_features": state["upconv1.weight"].shape[0],
            "blocks": sum(key.endswith(".k1.0.weight") for key in state),
            "upscale": 4 if "upconv2.weight" in state else 2,
        }
    except KeyError as error:
        raise UserError(f"{what} is incomplete: it has no {error}") from None
    config = PANConfig.parse(values, what)
    with torch.device("meta"):
        expected = PAN(config).state_dict()
    return config, rename(state, {"{*key}": "{key}"}, expected, what)


def run(
    *paths: Path,
    scale: int | None = None,
    weights: str = "PANx4_DF2K.pth",
    device: str = "cpu",
    tile: int | None = None,
    overwrite: bool = False,
) -> None:
    """Enlarge pictures four times, or as the weights do.

    Args:
        paths: One or more pictures, folders of them or quoted patterns ('*.png') and, last, the
            output: a picture or a folder.
        scale: Factor that the weights should have.
        weights: Official or sixfold checkpoint, or name of published weights.
        device: Torch device: cpu, cuda, cuda:1 ...
        tile: Side of a tile in pixels of the input; by default as large as memory allows.
        overwrite: Whether finished outputs in a folder are made again.
    """
    check_device(device)
    model = PAN.from_pretrained(weights)
    check_scale(model, scale, weights)
    enlarge_files(model, paths, tile=tile, device=device, overwrite=overwrite)


SYSTEM = System(
    name="pan",
    paper="arXiv:2010.01073",
    config=PANConfig,
    build=PAN,
    convert=convert,
    published={"x4": (PANConfig(), 272_419)},
    weights={
        file.path: replace(
            file, path=f"sr_baselines/{file.path}", licence="none is stated; research use"
        )
        for file in published_files("sr_baselines")
        if file.path.startswith("PAN")
    },
    run="sixfold.vision.models.pan:run",
    train="sixfold.vision.own_data:train_pan",
)
