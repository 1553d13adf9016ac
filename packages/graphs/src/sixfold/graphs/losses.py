"""Losses of what is predicted of nodes, and weights of classes in them."""

from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

from sixfold.core import UserError
from sixfold.graphs.data.labels import Target

ClassWeight = tuple[float, ...] | Literal["balanced"] | None


def node_loss(
    outputs: Float[Tensor, "node out"],
    y: Shaped[Tensor, "node ..."],
    target: Target = "multiclass",
    class_weight: Float[Tensor, " out"] | None = None,
    *,
    summed: bool = False,
) -> Float[Tensor, ""]:
    """Return the mean loss of nodes: cross entropy of classes or labels, or squared error.

    Args:
        outputs: Logits, or predicted numbers.
        y: Classes, or numbers for each output, of which NaN are left out.
        target: Kind of y.
        class_weight: Weight of each class, which the mean is divided by, too.
        summed: Whether the sum is returned, which `loss_weight` would make the mean.
    """
    reduction = "sum" if summed else "mean"
    if target == "multiclass":
        return functional.cross_entropy(outputs, y, weight=class_weight, reduction=reduction)
    known = ~y.isnan()
    if target == "multilabel":
        loss_fn = functional.binary_cross_entropy_with_logits
        return loss_fn(outputs[known], y[known], reduction=reduction)
    return functional.mse_loss(outputs[known], y[known], reduction=reduction)


def loss_weight(
    y: Shaped[Tensor, "node ..."], class_weight: Float[Tensor, " out"] | None = None
) -> float:
    """Return what the sum of `node_loss` is divided by for its mean."""
    if y.is_floating_point():
        return float((~y.isnan()).sum())
    return float(len(y) if class_weight is None else class_weight[y].double().sum())


def class_weights(
    setting: ClassWeight, y: Shaped[Tensor, "node ..."], classes: int, like: Tensor
) -> Float[Tensor, " classes"] | None:
    """Return the weight of each class, or None if all weigh the same.

    Args:
        setting: Weights; or balanced: the number of nodes divided by the number of classes and by
            the number of nodes of the class, as in scikit-learn.
        y: Classes of the training nodes.
        classes: Number of classes.
        like: Tensor with the dtype and device of the weights.

    Raises:
        UserError: there are more or fewer weights than classes.
    """
    if setting is None:
        return None
    if setting == "balanced":
        counts = torch.bincount(y, minlength=classes).clamp(min=1)
        return (len(y) / (classes * counts.double())).to(like)
    if len(setting) != classes:
        raise UserError(
            f"class_weight has {len(setting)} weights, but there are {classes} classes; give one "
            "for each, or 'balanced'"
        )
    return torch.tensor(setting, dtype=like.dtype, device=like.device)
