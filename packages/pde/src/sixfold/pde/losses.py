"""Losses of forecasts, functions of tensors (batch, time, channel, x, y)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.config import unknown_name_error
from sixfold.core.data.tensors import check_one_shape

Frames = Float[Tensor, "batch time channel x y"]
Reduction = Literal["none", "mean", "sum"]
REDUCTIONS = ("none", "mean", "sum")


def scaled_norm(
    prediction: Frames,
    target: Frames,
    *,
    order: int = 2,
    reduction: Reduction = "mean",
    floor: float = 0.0,
) -> Tensor:
    """Compute ||prediction - target||_p / ||target||_p over space, SineNet's loss at p = 2.

    Zero is perfect; predicting zero gives one.

    Args:
        prediction: Predicted frames.
        target: True frames.
        order: Order p of the norms.
        reduction: What is done with the values (batch, time, channel).
        floor: Smallest norm that is divided by, for channels that may vanish; the published loss
            has none.

    Raises:
        UserError: the shapes differ, or a channel of the target is zero and there is no floor.
    """
    check_one_shape("prediction and target", prediction, target)
    size = target.flatten(3).norm(p=order, dim=3)
    if floor > 0:
        size = size.clamp(min=floor)
    elif not torch.compiler.is_compiling() and bool((size == 0).any()):
        batch, time, channel = (int(i) for i in (size == 0).nonzero()[0])
        raise UserError(
            f"the target's channel {channel} is zero everywhere in frame {time} of sample {batch}: "
            "the scaled norm divides by its size; pass floor= or leave the channel out"
        )
    values = (prediction - target).flatten(3).norm(p=order, dim=3) / size
    return _reduced(values, reduction)


def channel_mse(prediction: Frames, target: Frames, *, reduction: Reduction = "mean") -> Tensor:
    """Compute the mean square error over space, summed over frames and channels.

    Args:
        prediction: Predicted frames.
        target: True frames.
        reduction: What is done with the values (batch).

    Raises:
        UserError: the shapes differ.
    """
    check_one_shape("prediction and target", prediction, target)
    values = (prediction - target).square().mean((3, 4)).sum((1, 2))
    return _reduced(values, reduction)


def _reduced(values: Tensor, reduction: Reduction) -> Tensor:
    if reduction not in REDUCTIONS:
        raise UserError(unknown_name_error("the loss", "reduction", reduction, REDUCTIONS))
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()
