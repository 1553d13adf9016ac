"""F-FNO: a Fourier neural operator whose spectral layers act along one axis at a time; a baseline.

A. Tran, A. Mathews, L. Xie, C. S. Ong, "Factorized Fourier Neural Operators", ICLR 2023.
arXiv:2111.13802

Follows SineNet's repository: the head reads the last layer's update and not the sum of all; there
is no activation in the head; inputs carry noise in training. Its feature normaliser is ``features``
here, because ``normalizer`` holds the statistics of the data set, as in every network of this
package. Departs from it: a network whose features were never counted leaves them as they are.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import System, UserError, from_pretrained
from sixfold.core.config import Depth
from sixfold.kernels import spectral_conv
from sixfold.pde.fields.frames import (
    Frames,
    FramesConfig,
    Normalizer,
    Predicted,
    flatten_frames,
    from_lightning,
    read_frames,
    to_lightning,
    unflatten_frames,
    unit_coordinates,
)

HEAD_WIDTH = 128
LEAST_SD = 1e-8
Points = Float[Tensor, "batch x y feature"]


class FFNOConfig(FramesConfig):
    """The published size for the smoke flow (INS).

    Args:
        width: Number of features.
        modes: Number of kept modes of each axis.
        num_layers: Number of layers.
        factor: Width of the feed-forward networks, in multiples of ``width``.
        share_weight: Whether all layers have the same spectral weights.
        gain: Gain of the first shared weights.
        noise_sd: Standard deviation of the noise on the features in training.
    """

    width: PositiveInt = 96
    modes: PositiveInt = 32
    num_layers: Depth = 24
    factor: PositiveInt = 4
    share_weight: bool = False
    gain: float = Field(default=0.1, gt=0)
    noise_sd: float = Field(default=0.01, ge=0)


class FFNO(nn.Module):
    """Predict the next frames of a flow: ``model(frames)``.

    Maps frames (batch, history, channel, x, y) to (batch, future, channel, x, y), of any sides from
    twice the modes less one. Call ``count_features`` with the training set once before training.
    """

    def __init__(self, config: FFNOConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FFNOConfig()
        if config.input_channels != config.output_channels:
            raise UserError(
                f"F-FNO scales its outputs as its inputs: {config.input_channels} input and "
                f"{config.output_channels} output channels do not fit; give it the same ones"
            )
        self.normalizer = Normalizer(config)
        self.features = FeatureNormalizer(config.input_channels)
        self.conv = Operator(config)

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: Any) -> "FFNO":
        """Load an official, a Lightning or a sixfold checkpoint, in eval mode.

        Args:
            path: Path of a checkpoint.
            settings: Settings that an official checkpoint does not hold: ``noise_sd``.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        return cast(FFNO, from_pretrained(path, SYSTEM, **settings))

    def count_features(self, batches: Iterable[Tensor]) -> None:
        """Take the statistics of the input features over a training set, afresh."""
        self.features.reset()
        for frames in batches:
            self.features.count_frames(frames)

    def forward(self, frames: Frames) -> Predicted:
        config = self.config
        _check_modes(frames, config.modes)
        mean, sd = self.features.statistics()
        x = flatten_frames((frames - mean) / sd, config, "FFNO")
        coordinates = torch.stack([_standardized(c) for c in unit_coordinates(x)])
        x = torch.cat((x, coordinates.expand(x.shape[0], -1, -1, -1)), 1).movedim(1, -1)
        if self.training and config.noise_sd:
            x = x + config.noise_sd * torch.randn_like(x)
        return unflatten_frames(self.conv(x).movedim(-1, 1), config) * sd + mean


def _check_modes(frames: Tensor, modes: int) -> None:
    sides = tuple(frames.shape[3:])
    if min(sides) // 2 + 1 < modes:
        raise UserError(
            f"F-FNO keeps {modes} modes, a grid of {sides} has {min(sides) // 2 + 1}; give "
            f"{2 * modes - 2} points an axis or more, or build it with fewer modes"
        )


def _standardized(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std()


class FeatureNormalizer(nn.Module):
    """Sums over all points and frames of the inputs, a number a channel."""

    sum: Tensor
    sum_squared: Tensor
    count: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("sum", torch.zeros(channels))
        self.register_buffer("sum_squared", torch.zeros(channels))
        self.register_buffer("count", torch.tensor(0.0))

    def reset(self) -> None:
        """Forget what was counted."""
        for buffer in self.buffers():
            buffer.zero_()

    def count_frames(self, frames: Frames) -> None:
        """Add the frames of a batch."""
        self.sum += frames.sum((0, 1, 3, 4))
        self.sum_squared += frames.square().sum((0, 1, 3, 4))
        self.count += frames[:, :, 0].numel()

    def statistics(
        self,
    ) -> tuple[Float[Tensor, "channel 1 1"], Float[Tensor, "channel 1 1"]]:
        """Return the mean and standard deviation of each channel."""
        count = self.count.clamp(min=1)
        mean = self.sum / count
        sd = (self.sum_squared / count - mean.square()).clamp(min=0).sqrt().clamp(min=LEAST_SD)
        sd = torch.where(self.count == 0, 1.0, sd)
        return mean[:, None, None], sd[:, None, None]


class Operator(nn.Module):
    """Lift, run the layers, and read the last update."""

    def __init__(self, config: FFNOConfig) -> None:
        super().__init__()
        width = config.width
        self.in_proj = NormedLinear(config.time_history * config.input_channels + 2, width)
        shared = spectral_weights(config, config.gain) if config.share_weight else None
        if shared is not None:
            self.fourier_weight = shared
        self.spectral_layers = nn.ModuleList(
            Layer(config, shared or spectral_weights(config, 1.0)) for _ in range(config.num_layers)
        )
        outputs = config.time_future * config.output_channels
        self.out = nn.Sequential(NormedLinear(width, HEAD_WIDTH), NormedLinear(HEAD_WIDTH, outputs))

    def forward(self, x: Points) -> Float[Tensor, "batch x y out"]:
        x = self.in_proj(x)
        update = x
        for layer in self.spectral_layers:
            update = layer(x)
            x = x + update
        return self.out(update)


def spectral_weights(config: FFNOConfig, gain: float) -> nn.ParameterList:
    """Make the weights (in, out, mode, 2) of the y and of the x axis."""
    shape = (config.width, config.width, config.modes, 2)
    weights = [nn.Parameter(torch.empty(shape)) for _ in range(2)]
    for weight in weights:
        nn.init.xavier_normal_(weight, gain)
    return nn.ParameterList(weights)


class Layer(nn.Module):
    """A feed-forward network of the spectral convolutions along both axes, summed."""

    def __init__(self, config: FFNOConfig, weights: nn.ParameterList) -> None:
        super().__init__()
        self.fourier_weight = weights
        self.backcast_ff = FeedForward(config.width, config.factor * config.width)

    def forward(self, x: Points) -> Points:
        along_y, along_x = (weight.permute(2, 0, 1, 3) for weight in self.fourier_weight)
        mixed = _mix_lines(x.movedim(3, 2), along_y).movedim(2, 3)
        return self.backcast_ff(
            mixed + _mix_lines(x.permute(0, 2, 3, 1), along_x).permute(0, 3, 1, 2)
        )


def _mix_lines(
    x: Float[Tensor, "batch line in point"], weight: Float[Tensor, "mode in out 2"]
) -> Float[Tensor, "batch line out point"]:
    lines = x.contiguous().flatten(0, 1)
    return spectral_conv(lines, weight).unflatten(0, x.shape[:2])


class FeedForward(nn.Module):
    """Two linear layers; ReLU between them."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            (
                nn.Sequential(NormedLinear(width, inner), nn.ReLU()),
                nn.Sequential(NormedLinear(inner, width)),
            )
        )

    def forward(self, x: Points) -> Points:
        first, second = self.layers
        return second(first(x))


class NormedLinear(nn.Module):
    """Linear layer whose weight is ``g v / ||v||`` per output."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        start = nn.Linear(inputs, outputs)
        assert start.bias is not None
        self.bias = nn.Parameter(start.bias.detach())
        self.weight_g = nn.Parameter(start.weight.detach().norm(dim=1, keepdim=True))
        self.weight_v = nn.Parameter(start.weight.detach())

    def forward(self, x: Float[Tensor, "*points feature"]) -> Float[Tensor, "*points out"]:
        scale = self.weight_g / self.weight_v.norm(dim=1, keepdim=True)
        return functional.linear(x, self.weight_v * scale, self.bias)


WHAT = "this F-FNO checkpoint"
COUNTED = ("sum", "sum_squared", "count")
# What the official module keeps besides and ours does not need.
BOOKKEEPING = {
    "_float": lambda channels: torch.tensor([0.1]),
    "normalizer.max_accumulations": lambda channels: torch.tensor(0),
    "normalizer.n_accumulations": lambda channels: torch.tensor(0.0),
    "normalizer.one": lambda channels: torch.tensor(1.0),
    "normalizer.std_epsilon": lambda channels: torch.full((channels,), LEAST_SD),
}
_LINEAR = r"\.(bias|weight_[gv])"
_LAYER = rf"(fourier_weight\.[01]|backcast_ff\.layers\.[01]\.0{_LINEAR})"
KEY = re.compile(
    rf"conv\.(in_proj{_LINEAR}|out\.[01]{_LINEAR}|fourier_weight\.[01]|spectral_layers\.\d+\.{_LAYER})"
    r"|normalizer\.(mean|sd)|features\.(sum|sum_squared|count)"
)


def convert(official: Mapping[str, Tensor]) -> tuple[FFNOConfig, dict[str, Tensor]]:
    """Read settings off official weights; its feature normaliser is ``features`` here.

    Raises:
        UserError: a key is missing or unknown, or sizes contradict each other.
    """
    state = {key: v for key, v in from_lightning(official).items() if key not in BOOKKEEPING}
    for name in COUNTED:
        if (key := f"normalizer.{name}") in state:
            state[f"features.{name}"] = state.pop(key)
    if unknown := [key for key in state if not KEY.fullmatch(key)]:
        raise UserError(f"{WHAT} does not fit: its keys {', '.join(unknown[:5])} are not its own")
    try:
        width, _, modes, _ = state["conv.spectral_layers.0.fourier_weight.0"].shape
        inner = len(state["conv.spectral_layers.0.backcast_ff.layers.0.0.bias"])
        inputs, outputs = state["conv.in_proj.weight_v"].shape[1] - 2, len(state["conv.out.1.bias"])
    except KeyError as error:
        raise UserError(f"{WHAT} is incomplete: it has no {error}") from None
    values = read_frames(state, inputs, outputs, "features.sum") | {
        "width": width,
        "modes": modes,
        "num_layers": sum(key.endswith("layers.0.0.bias") for key in state),
        "factor": inner // width,
        "share_weight": "conv.fourier_weight.0" in state,
    }
    return FFNOConfig.parse(values, WHAT), state


def to_official(model: FFNO) -> dict[str, Tensor]:
    """Name the weights as the official code does, with what its module keeps besides."""
    channels = model.config.input_channels
    state = {key: make(channels) for key, make in BOOKKEEPING.items()}
    for key, value in model.state_dict().items():
        state[key.replace("features.", "normalizer.")] = value
    return to_lightning(state) if model.config.normalized else state


SYSTEM = System(
    name="ffno",
    paper="arXiv:2111.13802",
    config=FFNOConfig,
    build=FFNO,
    convert=convert,
    run="sixfold.pde.own_data:run_ffno",
    train="sixfold.pde.own_data:train_ffno",
    export="sixfold.pde.fields.export:exportable",
    published={
        "INS": (FFNOConfig(), 30_118_534),
        "INS, shared weights": (FFNOConfig(share_weight=True), 2_986_630),
    },
)
