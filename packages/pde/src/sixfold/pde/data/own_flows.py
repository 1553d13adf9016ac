"""One's own flows as training and validation sets, read from their files when they are needed."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.training.sampling import derive_seed
from sixfold.pde.data.files import Block, Trajectory, pieces, read, time_step
from sixfold.pde.fields.frames import FramesConfig, Normalizer
from sixfold.pde.fields.schedule import epoch_starts

JUMP = 3.0  # times the difference of neighbours: what is not periodic
SAME_STEP = 0.01  # relative difference of times between frames that is no other one


class Windows:
    """Histories and the frames after them, in normalised units, an epoch as published.

    Args:
        given: Trajectories.
        config: Numbers of frames.
        normalizer: Units.

    Raises:
        UserError: a trajectory is shorter than a window.
    """

    def __init__(
        self, given: Sequence[Trajectory], config: FramesConfig, normalizer: Normalizer
    ) -> None:
        self.given, self.history = given, config.time_history
        self.window = config.time_history + config.time_future
        self.mean, self.sd = normalizer.mean.cpu().clone(), normalizer.sd.cpu().clone()
        check_length(given, config)
        self._epoch: tuple[int, Tensor] | None = None  # seed and starts of the epoch last asked for

    def __len__(self) -> int:
        return sum(one.frames for one in self.given)

    def at(self, positions: Sequence[int], seed: int) -> dict[str, Tensor]:
        """Read some samples of the epoch that belongs to a seed."""
        if self._epoch is None or self._epoch[0] != seed:
            generator = torch.Generator().manual_seed(seed)
            frames = [one.frames for one in self.given]
            self._epoch = seed, epoch_starts(frames, self.window, generator)
        starts = self._epoch[1][list(positions)].tolist()
        frames = torch.stack([read(self.given[i], s, s + self.window) for i, s in starts])
        frames = (frames - self.mean) / self.sd
        return {"history": frames[:, : self.history], "future": frames[:, self.history :]}


@dataclass(frozen=True)
class HeldOut:
    """Trajectories for validation.

    Args:
        given: Trajectories.
        steps: Number of frames of a rollout.
        floor: Smallest root mean square that errors are divided by, in standard deviations.
    """

    given: Sequence[Trajectory]
    steps: int
    floor: float


def check_length(given: Iterable[Trajectory], config: FramesConfig) -> None:
    """Refuse trajectories that hold no history with a frame after it.

    Raises:
        UserError: one is shorter.
    """
    window = config.time_history + config.time_future
    for one in given:
        if one.frames < window:
            raise UserError(
                f"{one} has {one.frames} frames, but a history of {config.time_history} and "
                f"{config.time_future} to predict are {window}; set a shorter history (--set "
                "time_history=1), or leave it out"
            )


def check_planes(block: Block) -> None:
    """Refuse fields of three dimensions.

    Raises:
        UserError: the fields have them.
    """
    if len(block.sides) != 2:
        raise UserError(
            f"{block.file} has fields on {block.sides} points, and this network forecasts planes; "
            "pde/lesnets takes three dimensions"
        )


def check_block(block: Block, config: FramesConfig, weights: str | None = None) -> None:
    """Refuse fields that a network does not read.

    Raises:
        UserError: the dimensions, the number of channels or their order differ.
    """
    check_planes(block)
    who = weights or "this network"
    if len(block.channels) != config.input_channels:
        raise UserError(
            f"{block.file} has {len(block.channels)} channels ({', '.join(block.channels)}), {who} "
            f"reads {config.input_channels}; choose them with --fields"
        )
    if config.fields and config.fields != block.channels:
        raise UserError(
            f"{block.file} has {', '.join(block.channels)}, {who} was trained on "
            f"{', '.join(config.fields)}, in that order; name them with --fields"
        )


def split(
    found: Sequence[Trajectory],
    valid: Sequence[Trajectory] | float,
    seed: int,
    data: Path,
    least: int,
) -> tuple[list[Trajectory], list[Trajectory]]:
    """Split into training and validation; what a file calls test is left alone.

    Splits that the files have are kept. Else whole trajectories are held out, or of a single one
    its last frames.

    Args:
        found: Trajectories of the data.
        valid: Trajectories for validation, or the share to hold out where there is no such split.
        seed: Seed of what is held out.
        data: Name of the data in errors.
        least: Smallest number of frames to hold out of a single trajectory.

    Raises:
        UserError: there is nothing to train on.
    """
    train = [one for one in found if one.block.split in (None, "train")]
    held = [one for one in found if one.block.split == "valid"]
    if not train:
        raise UserError(
            f"{data} holds nothing to train on, but {len(found)} trajectories of other splits "
            "(groups or folders valid and test); add a group train"
        )
    if isinstance(valid, Sequence):
        return train, list(valid)
    if held:
        return train, held
    if len(train) == 1:
        span = train[0].span
        cut = max(0, len(span) - max(least, round(valid * len(span))))
        return [replace(train[0], span=span[:cut])], [replace(train[0], span=span[cut:])]
    generator = torch.Generator().manual_seed(derive_seed(seed, "held out"))
    order = torch.randperm(len(train), generator=generator).tolist()
    count = min(max(1, round(valid * len(train))), len(train) - 1)
    return [train[i] for i in sorted(order[count:])], [train[i] for i in sorted(order[:count])]


def moments(
    given: Iterable[Trajectory],
) -> tuple[Float[Tensor, " channel"], Float[Tensor, " channel"]]:
    """Return mean and standard deviation of each channel, in one pass of bounded memory.

    Raises:
        UserError: a value is not finite, or a channel is constant.
    """
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    channels: tuple[str, ...] = ()
    for one in given:
        channels = one.block.channels
        for frames in pieces(one):
            values = frames.movedim(1, 0).flatten(1).double()
            size, own = values.shape[1], values.mean(1)
            shift = own - mean
            # Chan's update of a sum of squares around the mean
            squares = squares + (values - own[:, None]).square().sum(1)
            squares = squares + shift.square() * (count * size / (count + size))
            mean = mean + shift * (size / (count + size))
            count += size
    sd = (squares / count).sqrt()
    for name, value in zip(channels, sd.tolist(), strict=True):
        if value == 0:
            raise UserError(
                f"the channel {name} is the same number in all training data; leave it out with "
                "--fields"
            )
    return mean.float(), sd.float()


def warn_of_jumps(frames: Float[Tensor, "time channel x y"], config: Any) -> None:
    """Warn of circular padding along an axis whose ends do not meet."""
    for axis, mode in enumerate(getattr(config, "padding", ())):
        if mode != "circular":
            continue
        found = boundary_jump(frames, axis + 2)
        if found > JUMP:
            warnings.warn(
                f"padding is circular along {'xy'[axis]}, but from the last point to the first the "
                f"fields jump {found:.1f} times as far as between neighbours: they are not "
                "periodic; set padding=zeros or replicate",
                stacklevel=3,
            )


def boundary_jump(frames: Float[Tensor, "time channel x y"], axis: int) -> float:
    """Return the difference across the ends of an axis over that of neighbours, at worst a channel.

    About one for what is periodic, at least of the grid's size for a ramp.
    """
    inside = frames.diff(dim=axis).square().transpose(0, 1).flatten(1).mean(1)
    ends = frames.select(axis, 0) - frames.select(axis, -1)
    across = ends.square().transpose(0, 1).flatten(1).mean(1)
    varies = inside > 0
    return float((across[varies] / inside[varies]).max().sqrt()) if bool(varies.any()) else 0.0


def warn_of_step(trajectory: Trajectory, config: FramesConfig) -> None:
    """Warn of frames that are further apart, or closer, than those of the training."""
    found = time_step(trajectory)
    if found is None or config.time_step is None:
        return
    if abs(found - config.time_step) > SAME_STEP * abs(config.time_step):
        warnings.warn(
            f"{trajectory} has frames {found:g} apart, the network was trained on "
            f"{config.time_step:g}; its forecasts are of that step (see --every)",
            stacklevel=3,
        )
