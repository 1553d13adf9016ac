"""FNO: the Fourier neural operator over two axes; a baseline of SineNet.

Z. Li, N. Kovachki, K. Azizzadenesheli, B. Liu, K. Bhattacharya, A. Stuart, A. Anandkumar, "Fourier
Neural Operator for Parametric Partial Differential Equations", ICLR 2021. arXiv:2010.08895

Four layers of a Fourier layer beside a 1x1 convolution, without norms. Corner blocks of complex
weights are merged into one real tensor. Departs from the paper: a domain that is not periodic is
padded by a fraction of its length, not by points, so that another grid of the same domain is padded
alike.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import System, UserError, from_pretrained
from sixfold.core.config import Depth
from sixfold.kernels import merge_corners, spectral_conv
from sixfold.pde.fields.convolution import Maps
from sixfold.pde.fields.frames import (
    Frames,
    FramesConfig,
    Normalizer,
    Predicted,
    flatten_frames,
    from_lightning,
    read_frames,
    unflatten_frames,
    unit_coordinates,
)

HEAD_WIDTH = 128


class FNOConfig(FramesConfig):
    """The paper's FNO-2D for vorticity: ten frames in, one out.

    Args:
        width: Number of features.
        modes: Number of kept modes of each axis.
        num_layers: Number of layers.
        domain_padding: Length that is added to the end of each axis, in multiples of its own.
    """

    input_channels: int = Field(default=1, ge=1)
    output_channels: int = Field(default=1, ge=1)
    time_history: int = Field(default=10, ge=1)
    width: PositiveInt = 20
    modes: PositiveInt = 12
    num_layers: Depth = 4
    domain_padding: float = Field(default=0.0, ge=0, le=1)


class FNO(nn.Module):
    """Predict the next frames of a flow: ``model(frames)``.

    Maps frames (batch, history, channel, x, y) in normalised units to (batch, future, channel, x,
    y), of any sides from twice the modes.
    """

    def __init__(self, config: FNOConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FNOConfig()
        self.normalizer = Normalizer(config)
        self.fc0 = nn.Linear(config.time_history * config.input_channels + 2, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.fc1 = nn.Linear(config.width, HEAD_WIDTH)
        self.fc2 = nn.Linear(HEAD_WIDTH, config.time_future * config.output_channels)

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: Any) -> "FNO":
        """Load the authors', a Lightning or a sixfold checkpoint, in eval mode.

        Args:
            path: Path of a checkpoint.
            settings: Settings that such a checkpoint does not hold: ``domain_padding``.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        return cast(FNO, from_pretrained(path, SYSTEM, **settings))

    def forward(self, frames: Frames) -> Predicted:
        config = self.config
        x = flatten_frames(frames, config, "FNO")
        _check_modes(x, config.modes)
        coordinates = torch.stack(unit_coordinates(x)).expand(x.shape[0], -1, -1, -1)
        x = torch.cat((x, coordinates), 1).movedim(1, -1)
        x = self.fc0(x).movedim(-1, 1)
        rows, columns = x.shape[2:]
        added = [round(config.domain_padding * side) for side in (columns, rows)]
        x = functional.pad(x, (0, added[0], 0, added[1]))
        for number, layer in enumerate(self.layers, 1):
            x = layer(x)
            x = functional.gelu(x) if number < config.num_layers else x
        x = x[..., :rows, :columns].movedim(1, -1)
        x = self.fc2(functional.gelu(self.fc1(x)))
        return unflatten_frames(x.movedim(-1, 1), config)


def _check_modes(x: Tensor, modes: int) -> None:
    if min(x.shape[2:]) < 2 * modes:
        raise UserError(
            f"FNO keeps {modes} modes and takes grids from {2 * modes} points an axis, got "
            f"{tuple(x.shape[2:])}; give a finer grid, or build it with fewer modes"
        )


class Layer(nn.Module):
    """Fourier layer plus a 1x1 convolution."""

    def __init__(self, config: FNOConfig) -> None:
        super().__init__()
        width, modes = config.width, config.modes
        # uniform in [0, 1 / (in out)), as the authors begin
        first = torch.rand(2 * modes, modes, width, width, 2) / width**2
        self.spectral = nn.Parameter(first)
        self.w = nn.Conv2d(width, width, 1)

    def forward(self, x: Maps) -> Maps:
        return spectral_conv(x, self.spectral) + self.w(x)


WHAT = "this FNO checkpoint"
_BOTH = r"\.(weight|bias)"
KEY = re.compile(rf"fc[012]{_BOTH}|w\d+{_BOTH}|conv\d+\.weights[12]|normalizer\.(mean|sd)")


def convert(official: Mapping[str, Tensor]) -> tuple[FNOConfig, dict[str, Tensor]]:
    """Merge the corner blocks ``conv{i}.weights1``, ``weights2`` of the authors' checkpoint.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    state = from_lightning(official)
    if unknown := [key for key in state if not KEY.fullmatch(key)]:
        raise UserError(f"{WHAT} does not fit: its keys {', '.join(unknown[:5])} are not its own")
    layers = sum(key.startswith("conv") and key.endswith("weights1") for key in state)
    try:
        for i in range(layers):
            blocks = [state.pop(f"conv{i}.weights{corner}") for corner in (1, 2)]
            state[f"layers.{i}.spectral"] = merge_corners(blocks)
            for leaf in ("weight", "bias"):
                state[f"layers.{i}.w.{leaf}"] = state.pop(f"w{i}.{leaf}")
        inputs, outputs = state["fc0.weight"].shape[1] - 2, len(state["fc2.bias"])
        modes, width = state["layers.0.spectral"].shape[1:3]
    except KeyError as error:
        raise UserError(f"{WHAT} is incomplete: it has no {error}") from None
    values = read_frames(state, inputs, outputs)
    values |= {"width": width, "modes": modes, "num_layers": layers}
    return FNOConfig.parse(values, WHAT), state


def to_official(model: FNO) -> dict[str, Tensor]:
    """Cut the merged weights into the corner blocks of the authors' checkpoint."""
    state = dict(model.state_dict())
    for i in range(model.config.num_layers):
        weight = state.pop(f"layers.{i}.spectral")
        for corner, block in enumerate(weight.chunk(2), 1):
            official = torch.view_as_complex(block.movedim((-3, -2), (0, 1)).contiguous())
            state[f"conv{i}.weights{corner}"] = official
        for leaf in ("weight", "bias"):
            state[f"w{i}.{leaf}"] = state.pop(f"layers.{i}.w.{leaf}")
    return state


SYSTEM = System(
    name="fno",
    paper="arXiv:2010.08895",
    config=FNOConfig,
    build=FNO,
    convert=convert,
    run="sixfold.pde.own_data:run_fno",
    train="sixfold.pde.own_data:train_fno",
    export="sixfold.pde.fields.export:exportable",
    # a complex weight counts as two
    published={"vorticity, ten frames": (FNOConfig(), 926_357)},
)
