"""RVNN: the real-valued ResNet that CMuSeNet is measured against, of as many real parameters.

S. Shin, M. C. Vuran, "I Can't Believe It's Not Real: CV-MuSeNet: Complex-Valued Multi-Signal
Segmentation", IEEE DySPAN 2025. arXiv:2506.11048

The paper's own real network is not released. This one has CMuSeNet's stages with wider channels, so
that both have the same number of real parameters within a percent, and reads the spectrum's
magnitude, or its real and imaginary part as two channels.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import Config, System, UserError, from_pretrained, rename
from sixfold.core.config import Depth
from sixfold.wireless.iq.spectrum import folded_shape


class RVNNConfig(Config):
    """Sizes; the defaults have the published CMuSeNet's number of parameters within a percent.

    Args:
        bins: Number of FFT bins, of which each gets a decision.
        sample_rate_hz: Sample rate that the weights were trained at.
        width: Number of channels of the first stage; each further one doubles it.
        layers: Number of blocks of each stage.
        reads: Whether the network reads |X| or the two parts of X.
    """

    bins: int = Field(default=16384, ge=4)
    sample_rate_hz: PositiveFloat = 20e6
    width: PositiveInt = 98
    layers: tuple[Depth, ...] = Field(default=(2, 2, 2, 2), min_length=1)
    reads: Literal["magnitude", "parts"] = "magnitude"

    def folded_shape(self) -> tuple[int, int]:
        """Return height and width of the folded spectrum."""
        return folded_shape(self.bins)


class RVNN(nn.Module):
    """Tell for each FFT bin whether a signal occupies it, from planar spectra, in real numbers.

    Both probabilities of a bin are the same, so that CMuSeNet's rules and losses apply.
    """

    def __init__(self, config: RVNNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RVNNConfig()
        channels = config.width
        self.conv1 = nn.Conv2d(2 if config.reads == "parts" else 1, channels, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        blocks: list[nn.Module] = []
        for number, count in enumerate(config.layers):
            width = config.width * 2**number
            for i in range(count):
                blocks.append(RealBlock(channels, width, 2 if number and i == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, config.bins)

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: Any) -> "RVNN":
        """Load a sixfold checkpoint, in eval mode.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        return cast(RVNN, from_pretrained(path, SYSTEM, **settings))

    def forward(
        self, folded: Float[Tensor, "batch _parts height width"]
    ) -> Float[Tensor, "batch 2 bin"]:
        if folded.shape[1] != 2:
            raise UserError(
                f"RVNN takes planar spectra (batch, 2, height, width), got {tuple(folded.shape)}; "
                "sixfold.wireless.iq.spectrum.fold makes them"
            )
        if self.config.reads == "magnitude":
            folded = folded.square().sum(1, keepdim=True).sqrt()
        y = functional.relu(self.bn1(self.conv1(folded)))
        probabilities = torch.sigmoid(self.fc(self.blocks(y).mean((2, 3))))
        return probabilities[:, None].expand(-1, 2, -1)


class RealBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != width:
            conv = nn.Conv2d(inputs, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self.shortcut(x))


def equal_width(parameters: int, config: RVNNConfig) -> int:
    """Return the width whose number of parameters is nearest to a given one."""

    def distance(width: int) -> int:
        with torch.device("meta"):
            model = RVNN(config.model_copy(update={"width": width}))
        return abs(sum(p.numel() for p in model.parameters()) - parameters)

    low, high = 1, 2
    while distance(high) < distance(high - 1):
        low, high = high, 2 * high
    return min(range(low // 2 or 1, high + 1), key=distance)


def convert(official: Mapping[str, Tensor]) -> tuple[RVNNConfig, dict[str, Tensor]]:
    """Read sizes off a bare state dict; no official checkpoint exists.

    Raises:
        UserError: a key is missing or unknown.
    """
    what = "this RVNN checkpoint"
    try:
        width, channels = official["conv1.weight"].shape[:2]
        bins = official["fc.weight"].shape[0]
    except KeyError as error:
        names = ", ".join(list(official)[:3])
        raise UserError(f"{what} has no {error}; it has {names}") from None
    widths = [v.shape[0] for k, v in official.items() if k.endswith("conv2.weight")]
    layers = tuple(widths.count(one) for one in sorted(set(widths)))
    reads = "parts" if channels == 2 else "magnitude"
    values = {"bins": bins, "width": width, "layers": layers, "reads": reads}
    config = RVNNConfig.parse(values, what)
    with torch.device("meta"):
        expected = RVNN(config).state_dict()
    return config, rename(official, {"{*key}": "{key}"}, expected, what)


SYSTEM = System(
    name="rvnn",
    paper="arXiv:2506.11048",
    config=RVNNConfig,
    build=RVNN,
    convert=convert,
    published={"of CMuSeNet's size": (RVNNConfig(), 39_042_238)},
)
