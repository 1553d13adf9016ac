"""The published schedule of the learning rate, and the starts of the published epochs."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from sixfold.core import UserError
from sixfold.core.training.schedule import ScheduleConfig
from sixfold.pde.fields.stepping import check_counts, check_not_negative


def learning_rate(
    epoch: int,
    *,
    peak: float = 2e-4,
    warmup: int = 5,
    epochs: int = 50,
    start: float = 1e-7,
    end: float = 1e-7,
) -> float:
    """Return the learning rate of an epoch: linear warm-up, then half a cosine.

    The last epoch of the warm-up and the first of the cosine both have the peak. The cosine goes on
    after the last epoch, as in the released code.

    Args:
        epoch: Number of the epoch, from 0.
        peak: Largest rate.
        warmup: Number of epochs of the warm-up.
        epochs: Number of epochs.
        start: Rate of epoch 0.
        end: Smallest rate of the cosine.

    Raises:
        UserError: the epoch is negative, or the warm-up takes all epochs.
    """
    check_not_negative(epoch=epoch, warmup=warmup)
    if warmup >= epochs:
        raise UserError(f"a warm-up of {warmup} epochs leaves no other of {epochs}; shorten it")
    if epoch < warmup:
        return start + (peak - start) * epoch / max(1, warmup - 1)
    angle = math.pi * (epoch - warmup) / (epochs - warmup)
    return end + (peak - end) / 2 * (1 + math.cos(angle))


class ScheduledAdamW(torch.optim.AdamW):
    """AdamW whose rate is `learning_rate` of the epoch; `LEFT_ALONE` keeps `fit` from changing it.

    All parameters are decayed, as published.

    Args:
        model: Network.
        peak: Largest rate.
        betas: Decays of the moments.
        weight_decay: Decay of the parameters.
        epoch_steps: Number of steps of an epoch.
        epochs: Number of epochs; a tenth of them is the warm-up. After the last the rate stays.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        peak: float,
        betas: tuple[float, float],
        weight_decay: float,
        epoch_steps: int,
        epochs: int,
    ) -> None:
        self.peak, self.epoch_steps, self.epochs = peak, epoch_steps, epochs
        trained = [p for p in model.parameters() if p.requires_grad]
        super().__init__(trained, self._rate(0), betas, weight_decay=weight_decay)

    def _rate(self, steps: int) -> float:
        epoch = min(steps // self.epoch_steps, self.epochs)
        warmup = round(self.epochs / 10)
        return learning_rate(epoch, peak=self.peak, warmup=warmup, epochs=self.epochs)

    def step(self, closure: Any = None) -> Any:
        """Take a step, and set the rate of the next one."""
        result = super().step(closure)
        steps = max((int(state["step"]) for state in self.state.values()), default=0)
        for group in self.param_groups:
            group["lr"] = self._rate(steps)
        return result


LEFT_ALONE = ScheduleConfig(name="plateau", patience=10**9)  # never comes to lower the rate


def epoch_starts(
    frames: Sequence[int], window: int, generator: torch.Generator
) -> Int[Tensor, "sample 2"]:
    """Draw an epoch as published: each trajectory as often as it has frames, at random starts.

    Args:
        frames: Number of frames of each trajectory.
        window: Number of frames of a sample, history and future together.
        generator: Source of starts and order.

    Returns:
        Trajectory and first frame of each sample, in shuffled order.

    Raises:
        UserError: there is no trajectory, or one is shorter than a window.
    """
    check_counts(window=window)
    if min(frames, default=0) < window:
        raise UserError(
            f"a window of {window} frames does not fit trajectories of {list(frames)}; leave the "
            "shorter ones out"
        )
    lengths = torch.as_tensor(frames)
    which = torch.arange(len(lengths)).repeat_interleave(lengths)
    place = torch.rand(len(which), generator=generator, dtype=torch.float64)
    start = (place * (lengths[which] - window + 1)).long()
    order = torch.randperm(len(which), generator=generator)
    return torch.stack((which, start), 1)[order]
