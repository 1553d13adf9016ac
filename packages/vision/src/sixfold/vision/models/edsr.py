"""EDSR: a plain residual network for super-resolution; a baseline of CFSR.

B. Lim, S. Son, H. Kim, S. Nah, K. M. Lee, "Enhanced Deep Residual Networks for Single Image
Super-Resolution", CVPR Workshops 2017. arXiv:1707.02921

The "baseline" of the paper: 3x3 convolutions in residual blocks without norms or scales. Parameters
have the official names; parity with official weights was not tested, because none are at hand.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sixfold.core import Config, System, UserError, from_pretrained, rename
from sixfold.core.config import Depth
from sixfold.core.devices import check_device
from sixfold.vision.images.enlarging import check_scale, enlarge_files
from sixfold.vision.images.network import check_pictures

MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K's pictures


class EDSRConfig(Config):
    """Sizes of the paper's baseline, x2.

    Args:
        features: Channels of the features.
        blocks: Number of residual blocks.
        upscale: Factor of the enlargement.
        img_range: Factor on the picture, once its mean is subtracted.
    """

    features: PositiveInt = 64
    blocks: Depth = 16
    upscale: Literal[2, 3, 4] = 2
    img_range: float = Field(default=255.0, gt=0)

    @property
    def in_chans(self) -> int:
        """Channels of a picture."""
        return 3

    def receptive_radius(self) -> int:
        """Return how many pixels around a pixel of the input decide its part of the output."""
        return 2 * self.blocks + 4  # at most: the last two lie at the size of the output


class EDSR(nn.Module):
    """Enlarge pictures (batch, 3, height, width) of values in [0, 1]: ``model(pictures)``."""

    mean: Tensor

    def __init__(self, config: EDSRConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or EDSRConfig()
        width = config.features
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.head = nn.Sequential(conv3x3(3, width))
        blocks = [ResidualBlock(width) for _ in range(config.blocks)]
        self.body = nn.Sequential(*blocks, conv3x3(width, width))
        factors = (2, 2) if config.upscale == 4 else (config.upscale,)
        steps = [(conv3x3(width, f * f * width), nn.PixelShuffle(f)) for f in factors]
        enlargement = nn.Sequential(*(part for step in steps for part in step))
        self.tail = nn.Sequential(enlargement, conv3x3(width, 3))

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "EDSR":
        """Load an official or a sixfold checkpoint, in eval mode.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        return cast(EDSR, from_pretrained(path, SYSTEM))

    def forward(self, pictures: Tensor) -> Float[Tensor, "batch channel height_out width_out"]:
        check_pictures(self, pictures)
        x = (pictures - self.mean) * self.config.img_range
        x = self.head(x.contiguous(memory_format=torch.channels_last))
        return self.tail(self.body(x) + x) / self.config.img_range + self.mean


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a ReLU in between, and a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = conv3x3(channels, channels), conv3x3(channels, channels)
        self.body = nn.Sequential(first, nn.ReLU(), second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """Make a 3x3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


OFFICIAL = {
    "sub_mean.{leaf}": None,  # fixed: the mean of the pictures
    "add_mean.{leaf}": None,
    "head.0.{leaf}": "head.0.{leaf}",
    "body.{i}.body.{j}.{leaf}": "body.{i}.body.{j}.{leaf}",
    "body.{i}.{leaf}": "body.{i}.{leaf}",
    "tail.{i}.{leaf}": "tail.{i}.{leaf}",
    "tail.0.{i}.{leaf}": "tail.0.{i}.{leaf}",
}


def convert(official: Mapping[str, Tensor]) -> tuple[EDSRConfig, dict[str, Tensor]]:
    """Read settings off official weights, whose names are ours.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    what = "this EDSR checkpoint"
    state = rename(official, OFFICIAL, what=what)
    try:
        width = state["head.0.weight"].shape[0]
        factor = math.isqrt(state["tail.0.0.weight"].shape[0] // width)
    except KeyError as error:
        raise UserError(f"{what} is incomplete: it has no {error}") from None
    values: dict[str, Any] = {
        "features": width,
        "blocks": sum(key.endswith(".body.0.weight") for key in state),
        "upscale": factor**2 if "tail.0.2.weight" in state else factor,
    }
    return EDSRConfig.parse(values, what), state


def run(
    *paths: Path,
    weights: str,
    scale: int | None = None,
    tile: int | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> None:
    """Enlarge pictures as the weights do.

    Args:
        paths: One or more pictures, folders of them or quoted patterns ('*.png') and, last, the
            output: a picture or a folder.
        weights: Official or sixfold checkpoint.
        scale: Factor that the weights should have.
        tile: Side of a tile in pixels of the input; by default as large as memory allows.
        device: Torch device: cpu, cuda, cuda:1 ...
        overwrite: Whether finished outputs in a folder are made again.
    """
    check_device(device)
    model = EDSR.from_pretrained(weights)
    check_scale(model, scale, weights)
    enlarge_files(model, paths, tile=tile, device=device, overwrite=overwrite)


SYSTEM = System(
    name="edsr",
    paper="arXiv:1707.02921",
    config=EDSRConfig,
    build=EDSR,
    convert=convert,
    published={
        "baseline, x2": (EDSRConfig(), 1_369_859),
        "baseline, x3": (EDSRConfig(upscale=3), 1_554_499),
        "baseline, x4": (EDSRConfig(upscale=4), 1_517_571),
    },
    run="sixfold.vision.models.edsr:run",
    train="sixfold.vision.own_data:train_edsr",
)
