"""Learning-rate schedules: closed forms of the step, and the plateau rule.

All lengths are fractions of the whole training, so that a run of another length (``budget``) keeps
the shape of its schedule. ``learning_rate`` is the peak; a schedule is a factor on it.
"""

import bisect
import math
from collections.abc import Callable
from typing import Literal

from pydantic import Field
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

from sixfold.core.config import Config


class ScheduleConfig(Config):
    """A schedule by name; in brackets, the schedules that read a field.

    Args:
        name: Name of the schedule; ``noam`` is the inverse square root of "Attention is all you
            need", scaled to peak at ``learning_rate``.
        warmup: Fraction of linear rise from ``start`` (all but onecycle, plateau); place of the
            peak (noam, onecycle).
        start: Factor at step 0 of the warm-up.
        floor: Smallest factor (cosine, polynomial, plateau).
        period: Fraction between two multiplications by ``gamma`` (step).
        milestones: Fractions at each of which ``gamma`` is multiplied in (multistep).
        gamma: Multiplier (step, multistep, plateau).
        power: Exponent (polynomial); 1 is linear decay.
        patience: Number of evaluations without improvement of the early-stopping monitor that are
            forgiven; the next one reduces the rate (plateau).
        reload_best: Whether each reduction goes back to the best weights (plateau).
        every: Number of steps that hold one factor, e.g. an epoch's.
    """

    name: Literal[
        "constant", "step", "multistep", "cosine", "onecycle", "plateau", "polynomial", "noam"
    ] = "constant"
    warmup: float = Field(default=0.0, ge=0, lt=1)
    start: float = Field(default=0.0, ge=0, le=1)
    floor: float = Field(default=0.0, ge=0, le=1)
    period: float = Field(default=0.25, gt=0)
    milestones: tuple[float, ...] = ()
    gamma: float = Field(default=0.1, gt=0)
    power: float = Field(default=1.0, ge=0)
    patience: int = Field(default=0, ge=0)
    reload_best: bool = False
    every: int = Field(default=1, ge=1)


def factor(config: ScheduleConfig, steps: int) -> Callable[[int], float]:
    """Return the factor on the learning rate as a function of the step alone."""

    def at(step: int) -> float:
        done = (step // config.every) * config.every / steps
        if config.name == "noam":
            peak = max(config.warmup * steps, 1.0)
            place = (step + 1) / peak
            return min(place, place**-0.5)
        if done < config.warmup:
            return config.start + (1 - config.start) * done / config.warmup
        left = max(0.0, 1 - (done - config.warmup) / (1 - config.warmup))
        match config.name:
            case "step":
                return config.gamma ** int(done / config.period)
            case "multistep":
                return config.gamma ** bisect.bisect_right(sorted(config.milestones), done)
            case "cosine":
                fall = (1 - math.cos(math.pi * left)) / 2
                return config.floor + (1 - config.floor) * fall
            case "polynomial":
                return config.floor + (1 - config.floor) * left**config.power
        return 1.0

    return at


class OneCycle(OneCycleLR):
    """torch's schedule, which may also be stepped after the last step."""

    def step(self, epoch: int | None = None) -> None:
        """Go to the next step's rate, if there is a next step."""
        if self.last_epoch + 1 < self.total_steps:
            super().step()


def make_schedule(
    optimizer: Optimizer,
    config: ScheduleConfig,
    steps: int,
    mode: Literal["min", "max"] = "min",
    min_delta: float = 0.0,
) -> LambdaLR | OneCycle | ReduceLROnPlateau:
    """Attach a schedule to an optimiser; call its ``step()`` once after every optimiser step.

    A plateau's ``step(value)`` is called after every evaluation instead.

    Args:
        optimizer: Optimiser whose present learning rates are the peaks.
        config: The schedule.
        steps: Number of steps of the whole training.
        mode: Whether a smaller or a larger monitored value is better (plateau).
        min_delta: Smallest difference that counts as an improvement (plateau).
    """
    peaks = [float(group["lr"]) for group in optimizer.param_groups]
    if config.name == "plateau":
        floors = [peak * config.floor for peak in peaks]
        return ReduceLROnPlateau(
            optimizer, mode, config.gamma, config.patience, min_delta, "abs", min_lr=floors, eps=0
        )
    if config.name == "onecycle":
        warmup = config.warmup or 0.3  # torch's default; 0 would be no cycle
        return OneCycle(optimizer, peaks, total_steps=steps, pct_start=warmup)
    return LambdaLR(optimizer, factor(config, steps))
