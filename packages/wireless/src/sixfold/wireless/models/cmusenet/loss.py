"""Losses of the two probabilities of each bin (section 4); the mask holds 0 and 1.

The authors' code takes half of the two parts' sum in some reductions and not in others, which
changes the scale alone; it is kept, as losses are reported.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sixfold.core import UserError
from sixfold.core.config import unknown_name_error

Reduction = Literal["mean", "sum", "none"]
REDUCTIONS = ("mean", "sum", "none")
Probabilities = Float[Tensor, "batch 2 bin"]
Mask = Float[Tensor, "batch bin"]
# What the authors' read-me names; their notebooks train with the defaults of `complex_focal_loss`.
PAPER = {"alpha": 3.0, "gamma": 1.0}


def complex_focal_loss(
    probabilities: Probabilities,
    mask: Mask,
    *,
    alpha: float = 1.0,
    gamma: float = 2.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Compute the complex Fourier-spectrum focal loss: alpha (1 - p_t)^gamma BCE of both parts.

    'mean' is the mean of the parts' means; 'sum' and 'none' add the parts, without a half.

    Args:
        probabilities: Probabilities from the real and from the imaginary part.
        mask: Occupied bins as ones.
        alpha: Scale of the loss; it does not weigh the classes.
        gamma: Exponent that turns down bins that are already right.
        reduction: Reduction over batch and bins.
    """
    entropy = _cross_entropies(probabilities, mask)
    focal = alpha * (1 - torch.exp(-entropy)).pow(gamma) * entropy
    return _reduced(focal if reduction == "mean" else focal.sum(1), reduction)


def complex_bce(
    probabilities: Probabilities, mask: Mask, *, reduction: Reduction = "mean"
) -> Tensor:
    """Compute the mean of the binary cross entropies of both parts (CV-BCE)."""
    return _reduced(_cross_entropies(probabilities, mask).mean(1), reduction)


def real_bce(probabilities: Probabilities, mask: Mask, *, reduction: Reduction = "mean") -> Tensor:
    """Compute the binary cross entropy of the real part alone (RV-BCE)."""
    return _reduced(_cross_entropies(probabilities[:, :1], mask)[:, 0], reduction)


def _cross_entropies(probabilities: Tensor, mask: Tensor) -> Tensor:
    """Return the entropies (batch, part, bin); torch clamps the logarithms at -100."""
    target = mask[:, None].expand_as(probabilities)
    return functional.binary_cross_entropy(probabilities, target, reduction="none")


def _reduced(values: Tensor, reduction: Reduction) -> Tensor:
    if reduction not in REDUCTIONS:
        raise UserError(unknown_name_error("the loss", "reduction", reduction, REDUCTIONS))
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()
