"""What both networks maximise, without labels."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def negative_relative_sum(
    rates: Float[Tensor, "batch users"], reference: Float[Tensor, "batch users"]
) -> Float[Tensor, ""]:
    """Return minus the sum of spectral efficiencies as a share of a simple method's, averaged.

    Relative, or channels of high SNR and many users would decide alone.

    Args:
        rates: Spectral efficiencies.
        reference: Spectral efficiencies of the simple method on the same channels.
    """
    return -(rates.sum(-1) / reference.sum(-1)).mean()


def negative_soft_minimum(
    rates: Float[Tensor, "batch users"], temperature: float
) -> Float[Tensor, ""]:
    """Return minus the mean soft minimum of spectral efficiencies, for fairness.

    It is -t log mean exp(-rate / t): the minimum as t goes to 0, the mean as t grows.

    Args:
        rates: Spectral efficiencies.
        temperature: Temperature t, in bit/s/Hz.
    """
    users = rates.shape[-1]
    soft = torch.logsumexp(-rates / temperature, -1) - math.log(users)
    return temperature * soft.mean()
