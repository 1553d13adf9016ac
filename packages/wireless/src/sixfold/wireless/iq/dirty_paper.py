"""Sum capacity of the downlink, which dirty-paper coding reaches: a bound on every precoder.

N. Jindal, W. Rhee, S. Vishwanath, S. Jafar, A. Goldsmith, "Sum Power Iterative Water-Filling for
Multi-Antenna Gaussian Broadcast Channels", IEEE TIT 2005 (the averaged form, which converges).
"""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sixfold.wireless.iq.precoding import gram


def dirty_paper_capacity(
    channel: Complex[Tensor, "*batch users antennas"],
    noise_power: float | Tensor,
    power: float = 1.0,
    *,
    iterations: int = 200,
) -> Float[Tensor, "*batch"]:
    """Return an upper bound of the sum capacity, in bit/s/Hz, tight once it has converged.

    The capacity is the maximum over the uplink's powers q of log2 det(1 + Q G / noise). What is
    returned is the tangent of that concave function at the last q, at its highest within the power:
    never below the capacity, however few the iterations.
    """
    inner = gram(channel)
    noise = torch.as_tensor(noise_power, dtype=inner.real.dtype, device=inner.device)
    inner = inner / noise.expand(inner.shape[:-2])[..., None, None]
    users = inner.shape[-1]
    powers = torch.full_like(inner.diagonal(dim1=-2, dim2=-1).real, power / users)
    for _ in range(iterations):
        slope = _slopes(inner, powers)
        alone = slope / (1 - powers * slope)  # SNR per power, the others' signals being noise
        powers = powers + (water_filling(alone, power) - powers) / users
    slope = _slopes(inner, powers)
    gap = power * slope.amax(-1) - (powers * slope).sum(-1)
    return (torch.linalg.slogdet(_system(inner, powers)).logabsdet + gap) / math.log(2)


def water_filling(
    gains: Float[Tensor, "*batch users"], power: float
) -> Float[Tensor, "*batch users"]:
    """Return the powers (level - 1 / gain)+ that sum to a power."""
    floors = 1 / gains.clamp(min=torch.finfo(gains.dtype).tiny)
    ordered = floors.sort(-1).values
    count = torch.arange(1, gains.shape[-1] + 1, device=gains.device)
    levels = (power + ordered.cumsum(-1)) / count
    used = (levels > ordered).sum(-1, keepdim=True).clamp(min=1)
    return (levels.gather(-1, used - 1) - floors).clamp(min=0)


def _system(inner: Tensor, powers: Tensor) -> Tensor:
    eye = torch.eye(inner.shape[-1], dtype=inner.dtype, device=inner.device)
    return eye + inner * powers[..., None, :]


def _slopes(inner: Tensor, powers: Tensor) -> Tensor:
    """Return the derivatives h_k^H (1 + H^H Q H)^-1 h_k of log det with respect to the powers."""
    solved = torch.linalg.solve(_system(inner, powers), inner)
    return solved.diagonal(dim1=-2, dim2=-1).real
