"""Tri-BCE: each network learns from its own logits, the more the further it lies behind the sum."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from sixfold.recsys import losses
from sixfold.recsys.layers.embedding import Batch
from sixfold.recsys.losses import task_losses


def tri_bce(
    fused: Float[Tensor, "batch task"],
    deep: Float[Tensor, "batch task"],
    shallow: Float[Tensor, "batch task"],
    batch: Batch,
    labels: Sequence[str],
    *,
    detach_weights: bool = False,
    saturating: bool = False,
) -> Float[Tensor, ""]:
    """Return L + w_D L_D + w_S L_S with w = max(0, L_own - L), summed over tasks.

    As published, gradients flow through the weights. While both are active the derivative by L is
    then 1 - L_D - L_S, which is negative while the losses are above a half: the fused logits are
    driven uphill at the start.

    Args:
        fused: Logits of the whole network.
        deep: Logits of the exponential network.
        shallow: Logits of the linear network.
        batch: Batch with labels, maybe with weights of samples.
        labels: Names of the tasks.
        detach_weights: Whether the weights are taken as constants.
        saturating: Whether to compute the losses as published; see
            `sixfold.recsys.losses.task_losses`.
    """
    together, own_d, own_s = (
        task_losses(logits, batch, labels, saturating=saturating)
        for logits in (fused, deep, shallow)
    )
    weights = [(own - together).clamp(min=0) for own in (own_d, own_s)]
    if detach_weights:
        weights = [weight.detach() for weight in weights]
    return (together + weights[0] * own_d + weights[1] * own_s).sum()


def loss(model: Any, batch: Batch, *, saturating: bool = False) -> Float[Tensor, ""]:
    """Return the loss of an FCN as its settings say, or the cross-entropy of an ECN or LCN.

    Args:
        model: The model.
        batch: Batch with labels, maybe with weights of samples.
        saturating: Whether to compute it as published; see `sixfold.recsys.losses.task_losses`.
    """
    labels, kind = model.config.labels, getattr(model.config, "loss", "bce")
    if kind == "bce":
        return losses.loss(model, batch, saturating=saturating)
    deep, shallow = model(batch, apart=True)
    return tri_bce(
        (deep + shallow) / 2,
        deep,
        shallow,
        batch,
        labels,
        detach_weights=kind == "tri_bce_detached",
        saturating=saturating,
    )
