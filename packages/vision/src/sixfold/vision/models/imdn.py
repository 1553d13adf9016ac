"""IMDN: information multi-distillation for light super-resolution; a baseline of CFSR.

Z. Hui, X. Gao, Y. Yang, X. Wang, "Lightweight Image Super-Resolution with Information
Multi-distillation Network", ACM MM 2019. arXiv:1909.11856

Parameters have the official names.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

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

SLOPE = 0.05


class IMDNConfig(Config):
    """Sizes of the released x4 network."""

    in_chans: PositiveInt = 3
    features: int = Field(default=64, ge=16, multiple_of=16)
    blocks: Depth = 6
    upscale: PositiveInt = 4

    def receptive_radius(self) -> None:
        """Return None: channel attention pools over the whole picture."""


class IMDN(nn.Module):
    """Enlarge pictures (batch, channel, height, width) of values in [0, 1]: ``model(pictures)``."""

    def __init__(self, config: IMDNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or IMDNConfig()
        width = config.features
        self.fea_conv = conv3x3(config.in_chans, width)
        for number in range(1, config.blocks + 1):
            self.add_module(f"IMDB{number}", DistillationBlock(width))
        self.c = nn.Sequential(nn.Conv2d(config.blocks * width, width, 1), nn.LeakyReLU(SLOPE))
        self.LR_conv = conv3x3(width, width)
        conv = conv3x3(width, config.upscale**2 * config.in_chans)
        self.upsampler = nn.Sequential(conv, nn.PixelShuffle(config.upscale))

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "IMDN":
        """Load an official or a sixfold checkpoint, in eval mode.

        Args:
            path: Path of a checkpoint, or name of published weights, e.g. ``IMDN_x4.pth``.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        return cast(IMDN, from_pretrained(path, SYSTEM))

    def forward(self, pictures: Tensor) -> Float[Tensor, "batch channel height_out width_out"]:
        check_pictures(self, pictures)
        shallow = self.fea_conv(pictures.contiguous(memory_format=torch.channels_last))
        distilled, x = [], shallow
        for number in range(1, self.config.blocks + 1):
            x = self.get_submodule(f"IMDB{number}")(x)
            distilled.append(x)
        return self.upsampler(self.LR_conv(self.c(torch.cat(distilled, 1))) + shallow)


class DistillationBlock(nn.Module):
    """Information multi-distillation block (IMDB): thrice, a quarter of the features is kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.kept, self.rest = channels // 4, channels - channels // 4
        self.c1 = conv3x3(channels, channels)
        self.c2 = conv3x3(self.rest, channels)
        self.c3 = conv3x3(self.rest, channels)
        self.c4 = conv3x3(self.rest, self.kept)
        self.c5 = nn.Conv2d(channels, channels, 1)
        self.cca = ContrastAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        kept, rest = [], x
        for conv in (self.c1, self.c2, self.c3):
            part, rest = functional.leaky_relu(conv(rest), SLOPE).split((self.kept, self.rest), 1)
            kept.append(part)
        return self.c5(self.cca(torch.cat([*kept, self.c4(rest)], 1))) + x


class ContrastAttention(nn.Module):
    """Contrast-aware channel attention (CCA), from the mean and the deviation over all pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // 16
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, narrow, 1), nn.ReLU(), nn.Conv2d(narrow, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        return x * self.conv_du(variance.sqrt() + mean)


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """Make a 3x3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


OFFICIAL = {
    name: name
    for name in (
        "fea_conv.{leaf}",
        "LR_conv.{leaf}",
        "IMDB{i}.{part}.{leaf}",
        "IMDB{i}.cca.conv_du.{part}.{leaf}",
        "c.0.{leaf}",
        "upsampler.0.{leaf}",
    )
}


def convert(official: Mapping[str, Tensor]) -> tuple[IMDNConfig, dict[str, Tensor]]:
    """Read settings off official weights, whose names are ours.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    what = "this IMDN checkpoint"
    state = rename(official, OFFICIAL, what=what)
    try:
        width, channels = state["fea_conv.weight"].shape[:2]
        values: dict[str, Any] = {
            "in_chans": channels,
            "features": width,
            "blocks": sum(key.endswith(".c5.weight") for key in state),
            "upscale": math.isqrt(state["upsampler.0.weight"].shape[0] // channels),
        }
    except KeyError as error:
        raise UserError(f"{what} is incomplete: it has no {error}") from None
    config = IMDNConfig.parse(values, what)
    with torch.device("meta"):
        expected = IMDN(config).state_dict()
    return config, rename(state, {"{*key}": "{key}"}, expected, what)


def run(
    *paths: Path,
    scale: int | None = None,
    weights: str = "IMDN_x4.pth",
    device: str = "cpu",
    overwrite: bool = False,
) -> None:
    """Enlarge pictures four times, or as the weights do.

    Args:
        paths: One or more pictures, folders of them or quoted patterns ('*.png') and, last, the
            output: a picture or a folder.
        scale: Factor that the weights should have.
        weights: Official or sixfold checkpoint, or name of published weights.
        device: Torch device: cpu, cuda, cuda:1 ...
        overwrite: Whether finished outputs in a folder are made again.
    """
    check_device(device)
    model = IMDN.from_pretrained(weights)
    check_scale(model, scale, weights)
    enlarge_files(model, paths, tile=None, device=device, overwrite=overwrite)


SYSTEM = System(
    name="imdn",
    paper="arXiv:1909.11856",
    config=IMDNConfig,
    build=IMDN,
    convert=convert,
    published={"x4": (IMDNConfig(), 715_176)},
    weights={
        file.path: replace(
            file, path=f"sr_baselines/{file.path}", licence="none is stated; research use"
        )
        for file in published_files("sr_baselines")
        if file.path.startswith("IMDN")
    },
    run="sixfold.vision.models.imdn:run",
    train="sixfold.vision.own_data:train_imdn",
)
