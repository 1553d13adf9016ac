"""Scores of images: pure functions of tensors."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def confusion(
    predicted: Int[Tensor, "*shape"], target: Int[Tensor, "*shape"], classes: int
) -> Int[Tensor, "target predicted"]:
    """Count pairs of target and predicted class; targets of no class are left out.

    Args:
        predicted: Predicted classes, 0 to ``classes - 1``.
        target: True classes; others than 0 to ``classes - 1`` are unlabelled.
        classes: Number of classes.
    """
    labelled = (target >= 0) & (target < classes)
    pairs = target[labelled] * classes + predicted[labelled]
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def mean_iou(counts: Int[Tensor, "target predicted"]) -> float:
    """Compute the mean intersection over union, in percent, from the counts of `confusion`.

    A class that is neither predicted nor there does not count. Without any class it is nan.
    """
    hits: Float[Tensor, " class"] = counts.diagonal().double()
    union = counts.sum(0) + counts.sum(1) - hits
    return float(100 * (hits / union)[union > 0].mean())
