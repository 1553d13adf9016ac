"""Conditional networks and files: pairs of frames at any distance, and a number a trajectory.

PDEArena's conditioned smoke is the published case: its files hold the buoyancy of each trajectory
as ``buo_y``, a frame a time step.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sixfold.core import UserError
from sixfold.pde.data.files import Trajectory, numbers_of, open_file, read
from sixfold.pde.data.own_flows import check_length
from sixfold.pde.fields.frames import Normalizer, Predicted


class Pairs:
    """Histories and frames a random time after them, an epoch as published for conditioned smoke.

    A sample also has the ``time`` from the last frame of its history to the first predicted one, in
    frames, and the ``parameter`` of its trajectory where the network takes one.

    Args:
        given: Trajectories.
        config: Settings of a conditional network.
        normalizer: Units.

    Raises:
        UserError: a trajectory is shorter than a window, or has no such parameter.
    """

    def __init__(self, given: Sequence[Trajectory], config: Any, normalizer: Normalizer) -> None:
        self.given, self.config = given, config
        self.mean, self.sd = normalizer.mean.cpu().clone(), normalizer.sd.cpu().clone()
        check_length(given, config)
        self.parameters = [parameter_of(one, config) for one in given]
        self._epoch: tuple[int, Tensor] | None = None  # seed and pairs of the epoch last asked for

    def __len__(self) -> int:
        return sum(one.frames for one in self.given)

    def at(self, positions: Sequence[int], seed: int) -> dict[str, Tensor]:
        """Read some samples of the epoch that belongs to a seed."""
        history, future = self.config.time_history, self.config.time_future
        if self._epoch is None or self._epoch[0] != seed:
            frames = [one.frames for one in self.given]
            generator = torch.Generator().manual_seed(seed)
            self._epoch = seed, epoch_pairs(frames, history, future, generator)
        pairs = self._epoch[1][list(positions)].tolist()
        before = torch.stack([read(self.given[i], s, s + history) for i, s, _ in pairs])
        after = torch.stack([read(self.given[i], end, end + future) for i, _, end in pairs])
        batch = {
            "history": (before - self.mean) / self.sd,
            "future": (after - self.mean) / self.sd,
            "time": torch.tensor([float(end - s - history + 1) for _, s, end in pairs]),
        }
        if self.config.condition_on_parameter:
            batch["parameter"] = torch.tensor([self.parameters[i] for i, _, _ in pairs])
        return batch


def epoch_pairs(
    frames: Sequence[int], history: int, future: int, generator: torch.Generator
) -> Int[Tensor, "sample 3"]:
    """Draw an epoch as published: each trajectory as often as it has frames, in shuffled order.

    The first predicted frame is uniform over those that have a history before them, the first
    frame s of the history is drawn with a probability proportional to 1 / (s + 1).

    Args:
        frames: Number of frames of each trajectory.
        history: Number of frames of a history.
        future: Number of frames to predict.
        generator: Source of the draws.

    Returns:
        Trajectory, first frame of the history and first predicted frame of each sample.
    """
    lengths = torch.as_tensor(frames)
    which = torch.arange(len(lengths)).repeat_interleave(lengths)
    place, chance = torch.rand(2, len(which), generator=generator, dtype=torch.float64)
    end = history + (place * (lengths[which] - history - future + 1)).long()
    harmonic = (1 / torch.arange(1, int(lengths.max()) + 1, dtype=torch.float64)).cumsum(0)
    start = torch.searchsorted(harmonic, chance * harmonic[end - history], right=True)
    order = torch.randperm(len(which), generator=generator)
    return torch.stack((which, torch.minimum(start, end - history), end), 1)[order]


class AtOneStep:
    """A conditional network at the time step of one frame, and the parameter of a trajectory.

    Args:
        model: Network.
        parameter: Parameter, where the network takes one.
    """

    def __init__(self, model: Any, parameter: float | None) -> None:
        self.model, self.parameter = model, parameter
        self.config, self.normalizer = model.config, model.normalizer

    def __call__(self, frames: Tensor) -> Predicted:
        """Predict the next frames of histories of the same flow."""
        time = frames.new_ones(len(frames))
        return self.model(frames, time, None if self.parameter is None else self.parameter * time)


def for_trajectory(model: Any, one: Trajectory) -> Any:
    """Return what forecasts a trajectory: a network that takes no condition, as it is.

    Raises:
        UserError: the network takes a parameter that the file does not hold.
    """
    return AtOneStep(model, parameter_of(one, model.config)) if is_conditional(model) else model


def is_conditional(model: Any) -> bool:
    """Return whether a network takes the time step, and maybe a parameter."""
    return getattr(model.config, "conditioning", "none") != "none"


def parameter_of(one: Trajectory, config: Any) -> float | None:
    """Read the number of a trajectory that a network takes; None for one that takes none.

    Raises:
        UserError: the file has no such number for each trajectory, or it is not finite.
    """
    if not getattr(config, "condition_on_parameter", False):
        return None
    name, block = config.parameter_name, one.block
    with open_file(block.file) as file:
        known = numbers_of(file, block)
        if name not in known:
            raise UserError(
                f"{block.file} has no {name!r}, the number of each trajectory that this network is "
                f"conditioned on; it has: {', '.join(sorted(known)) or 'none'}; add it, or train "
                "on another (sixfold train --set parameter_name=...)"
            )
        values = np.asarray(known[name][()], dtype=float)
    value = float(values[one.row] if values.ndim else values)
    if not np.isfinite(value):
        raise UserError(f"{one}: {name} is {value}, no finite number; repair it")
    return value
