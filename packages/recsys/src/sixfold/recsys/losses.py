"""Losses of ranking models, as functions of logits and a batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def stacked_labels(
    batch: Mapping[str, Tensor], labels: Sequence[str]
) -> Float[Tensor, "batch task"]:
    """Return the labels of a batch, one column a task."""
    return torch.stack([batch[name] for name in labels], 1)


def task_losses(
    logits: Float[Tensor, "batch task"],
    batch: Mapping[str, Tensor],
    labels: Sequence[str],
    *,
    saturating: bool = False,
) -> Float[Tensor, " task"]:
    """Return the mean binary cross-entropy of each task.

    Args:
        logits: Outputs of a model, in the order of ``labels``.
        batch: Batch with the labels, 0 or 1, and maybe with a ``weight`` of each sample: then the
            mean is that of weight times loss.
        labels: Names of the tasks.
        saturating: Whether to compute it from rounded probabilities, as the published trainings do:
            beyond logits of 17 a wrong one then costs 100 and has no gradient in float32.
    """
    weight = batch.get("weight")
    weight = None if weight is None else weight[:, None]
    expected = stacked_labels(batch, labels).to(logits.dtype)
    if saturating:
        losses = functional.binary_cross_entropy(
            logits.sigmoid(), expected, weight, reduction="none"
        )
    else:
        losses = functional.binary_cross_entropy_with_logits(
            logits, expected, weight, reduction="none"
        )
    return losses.mean(0)


def binary_cross_entropy(
    logits: Float[Tensor, "batch task"],
    batch: Mapping[str, Tensor],
    labels: Sequence[str],
    *,
    saturating: bool = False,
) -> Float[Tensor, ""]:
    """Return the sum over tasks of the mean binary cross-entropy; see `task_losses`."""
    return task_losses(logits, batch, labels, saturating=saturating).sum()


def loss(model: Any, batch: Mapping[str, Tensor], *, saturating: bool = False) -> Float[Tensor, ""]:
    """Return the binary cross-entropy of a model that maps a batch to logits, summed over tasks.

    Args:
        model: The model.
        batch: Batch with labels, maybe with weights of samples.
        saturating: Whether to compute it as published; see `task_losses`.
    """
    return binary_cross_entropy(model(batch), batch, model.config.labels, saturating=saturating)
