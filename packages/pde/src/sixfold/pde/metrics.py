"""Errors of forecasts, as the papers report them; functions of tensors."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.pde.losses import scaled_norm

Frames = Float[Tensor, "batch time channel x y"]
Errors = Float[Tensor, "batch time channel"]


class RolloutError(NamedTuple):
    """Scaled L2 of forecasts.

    Args:
        error: Mean over trajectories, channels and steps: the number that is reported.
        curve: Mean over trajectories and channels, a number a step.
        errors: Error of each trajectory, step and channel.
    """

    error: float
    curve: Float[Tensor, " time"]
    errors: Errors


def scaled_l2(prediction: Frames, target: Frames) -> Errors:
    """Compute the error of each sample, frame and channel relative to the norm of the target.

    Zero is perfect. In physical units; see `sixfold.pde.losses.scaled_norm`.

    Raises:
        UserError: a channel of the target is zero.
    """
    return scaled_norm(prediction, target, reduction="none")


def rollout_error(prediction: Frames, target: Frames) -> RolloutError:
    """Compute the scaled L2 of forecast trajectories, as a number and as a curve over steps.

    Raises:
        UserError: a channel of the target is zero.
    """
    errors = scaled_l2(prediction, target)
    curve = errors.mean((0, 2))
    return RolloutError(float(curve.mean()), curve, errors)


def mean_error(batches: Iterable[Tensor], *, official_averaging: bool = False) -> float:
    """Average errors that come batch by batch.

    Args:
        batches: Errors of each batch, samples first.
        official_averaging: Whether batches count alike, whatever their size, as in the released
            code: a smaller last batch then weighs too much.
    """
    means, sizes = [], []
    for errors in batches:
        means.append(float(errors.double().mean()))
        sizes.append(1 if official_averaging else len(errors))
    weights = torch.tensor(sizes, dtype=torch.float64)
    return float(torch.tensor(means, dtype=torch.float64) @ weights / weights.sum())
