"""Mean and deviation of each channel over independent trajectories, with their sampling errors."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError

Channels = Float[Tensor, " channel"]


class Moments(NamedTuple):
    """What `moments` returns.

    Args:
        mean: Mean of each channel.
        deviation: Standard deviation of each channel.
        mean_error: Standard error of the mean.
        deviation_error: Standard error of the deviation, to first order.
    """

    mean: Channels
    deviation: Channels
    mean_error: Channels
    deviation_error: Channels


def moments(trajectories: Float[Tensor, "sample time channel x y"]) -> Moments:
    """Compute moments over samples, times and places; only samples count as independent.

    Raises:
        UserError: there are fewer than two samples, of which no error can be estimated, or the
            shape is not (sample, time, channel, x, y).
    """
    if trajectories.ndim != 5 or len(trajectories) < 2 or 0 in trajectories.shape:
        raise UserError(
            "moments are of two or more trajectories (sample, time, channel, x, y), got "
            f"{tuple(trajectories.shape)}; generate more"
        )
    mean = torch.stack([one.double().mean((0, 2, 3)) for one in trajectories])
    square = torch.stack([one.double().square().mean((0, 2, 3)) for one in trajectories])
    center = mean.mean(0)
    deviation = (square.mean(0) - center.square()).sqrt()
    # d sd = (d E x^2 - 2 E x d E x) / (2 sd)
    spread = (square - 2 * center * mean).std(0) / (2 * deviation)
    root = len(trajectories) ** 0.5
    return Moments(center, deviation, mean.std(0) / root, spread / root)
