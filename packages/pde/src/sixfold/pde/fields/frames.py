"""What all forecasting networks share: frames in, frames out, and the units of the fields."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from sixfold.core import Config, UserError

Frames = Float[Tensor, "batch time channel x y"]
Predicted = Float[Tensor, "batch future predicted x y"]


class FramesConfig(Config):
    """Frames that a network reads and writes; the defaults are those of the smoke flow (INS).

    Args:
        input_channels: Number of channels of an input frame: scalars, then two for each vector.
        output_channels: Number of channels of an output frame.
        time_history: Number of input frames.
        time_future: Number of output frames.
        grid: Sides of the training grid, which exports keep.
        normalized: Whether the mean and standard deviation of each channel belong to the weights.
        fields: Names of the channels in the training files, where they are known.
        time_step: Time between two frames of the training, in its units, where it is known.
    """

    input_channels: int = Field(default=3, ge=1)
    output_channels: int = Field(default=3, ge=1)
    time_history: int = Field(default=4, ge=1)
    time_future: int = Field(default=1, ge=1)
    grid: tuple[int, int] = (128, 128)
    normalized: bool = True
    fields: tuple[str, ...] = ()
    time_step: float | None = None


class Normalizer(nn.Module):
    """Mean and standard deviation of each channel, kept with the weights of a network.

    Networks compute in normalised units; `sixfold.pde.fields.forecast` takes physical ones.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, config: FramesConfig) -> None:
        super().__init__()
        shape = (1, 1, config.output_channels, 1, 1)
        self.register_buffer("mean", torch.zeros(shape), persistent=config.normalized)
        self.register_buffer("sd", torch.ones(shape), persistent=config.normalized)

    def normalize(self, frames: Frames) -> Frames:
        """Go from physical to normalised units."""
        return (frames - self.mean) / self.sd

    def denormalize(self, frames: Frames) -> Frames:
        """Go from normalised to physical units."""
        return frames * self.sd + self.mean

    def set(self, mean: Float[Tensor, " channel"], sd: Float[Tensor, " channel"]) -> None:
        """Take the statistics of a training set.

        Raises:
            UserError: their number differs from that of the channels, or an sd is not positive.
        """
        channels = self.mean.shape[2]
        if len(mean) != channels or len(sd) != channels:
            raise UserError(
                f"statistics of {len(mean)} and {len(sd)} channels do not fit a network of "
                f"{channels}; give one mean and one standard deviation a channel"
            )
        if not bool((sd > 0).all()):
            raise UserError(
                f"a standard deviation of the fields is not positive ({sd.tolist()}); drop the "
                "constant channel"
            )
        self.mean.copy_(mean.view(1, 1, -1, 1, 1))
        self.sd.copy_(sd.view(1, 1, -1, 1, 1))


def flatten_frames(
    frames: Frames, config: FramesConfig, who: str
) -> Float[Tensor, "batch features x y"]:
    """Check frames and put time and channels on one axis, time first.

    Raises:
        UserError: the shape is not what the network takes.
    """
    expected = (config.time_history, config.input_channels)
    if frames.ndim != 5 or frames.shape[1:3] != expected:
        raise UserError(
            f"{who} takes frames (batch, {expected[0]}, {expected[1]}, x, y): a history of "
            f"{expected[0]} frames of {expected[1]} channels, got {tuple(frames.shape)}; slice the "
            "trajectory, or build the network for these frames"
        )
    return frames.flatten(1, 2)


def unflatten_frames(maps: Float[Tensor, "batch features x y"], config: FramesConfig) -> Predicted:
    """Undo `flatten_frames` on the outputs of a network."""
    return maps.unflatten(1, (config.time_future, config.output_channels))


def read_frames(
    state: Mapping[str, Tensor], inputs: int, outputs: int, statistic: str = "normalizer.mean"
) -> dict[str, Any]:
    """Read the frames of an official checkpoint off the widths of its ends.

    The weights hold the products of frames and channels alone; a statistic beside them says how
    many channels there are. Without, the network is taken to predict one frame of the channels that
    it reads: what is otherwise is a setting for ``from_pretrained``.
    """
    channels = state[statistic].numel() if statistic in state else outputs
    normalized = "normalizer.mean" in state
    if inputs % channels or outputs % channels:
        values = {"input_channels": inputs, "output_channels": outputs, "time_history": 1}
        return values | {"normalized": normalized}
    return {
        "input_channels": channels,
        "output_channels": channels,
        "time_history": inputs // channels,
        "time_future": outputs // channels,
        "normalized": normalized,
    }


def from_lightning(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the keys of a Lightning checkpoint our names; leave a bare network's as they are.

    There the network is ``model.*`` and its normaliser stands beside it.
    """
    if not any(key.startswith("model.") for key in state):
        return dict(state)
    beside = ("model.", "normalizer.mean", "normalizer.sd")
    return {
        key.removeprefix("model.") if key.startswith(beside) else f"beside model.*: {key}": value
        for key, value in state.items()
    }


def to_lightning(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `from_lightning`: write the keys that the official trainer reads."""
    beside = ("normalizer.mean", "normalizer.sd")
    return {k if k in beside else f"model.{k}": v for k, v in state.items()}


def unit_coordinates(maps: Float[Tensor, "batch features x y"]) -> list[Float[Tensor, "x y"]]:
    """Make the coordinates of a grid along each axis, from 0 to 1 with both ends."""
    rows, columns = maps.shape[2:]
    x = torch.linspace(0, 1, rows, device=maps.device, dtype=maps.dtype)
    y = torch.linspace(0, 1, columns, device=maps.device, dtype=maps.dtype)
    return [x[:, None].expand(rows, columns), y.expand(rows, columns)]
