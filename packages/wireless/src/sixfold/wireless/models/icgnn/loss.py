"""What both networks maximise, without labels."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def negative_sum(rates: Float[Tensor, "batch users"]) -> Float[Tensor, ""]:
    """Return minus the mean sum of spectral efficiencies."""
    return -rates.sum(-1).mean()


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
