"""Random numbers that do not depend on how a batch is cut.

``torch.randn`` fills its output in blocks, so that the numbers of a sample depend on the size of
the batch. ``torch.rand`` does not: every simulator takes one row of uniform numbers a sample and
transforms it here. Sixty-four samples at once are then the samples drawn one by one.
"""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def uniform_rows(
    batch: int, count: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "batch count"]:
    """Draw a row of uniform numbers in [0, 1) for each sample, on the generator's device."""
    return torch.rand(batch, count, generator=generator, device=generator.device, dtype=dtype)


def to_complex_normal(uniform: Float[Tensor, "*shape 2"]) -> Complex[Tensor, "*shape"]:
    """Turn pairs of uniform numbers into circular Gaussian ones of unit power (Box and Muller)."""
    radius = (-torch.log1p(-uniform[..., 0])).sqrt()
    return torch.polar(radius, 2 * math.pi * uniform[..., 1])


def to_normal(uniform: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Turn uniform numbers into Gaussian ones of unit variance, by the inverse distribution."""
    return torch.special.ndtri(uniform.clamp(min=torch.finfo(uniform.dtype).eps / 4))
