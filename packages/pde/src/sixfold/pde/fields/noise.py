"""Random draws of the generators: the same for a seed whatever the batch, precision or device."""

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.pde.fields.stepping import check_counts


def white_noise(samples: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw normal noise (sample, *shape) in double precision, on the generator's device.

    The samples are drawn one after the other: batches of any size come to the same ones.
    """
    check_counts(samples=samples)
    one = torch.empty(shape, dtype=torch.float64, device=generator.device)
    return torch.stack([one.normal_(generator=generator).clone() for _ in range(samples)])


def uniform_numbers(
    samples: int, count: int, generator: torch.Generator
) -> Float[Tensor, "sample count"]:
    """Draw numbers from 0 to 1 in double precision; the same in batches of any size."""
    check_counts(samples=samples)
    one = torch.empty(count, dtype=torch.float64, device=generator.device)
    return torch.stack([one.uniform_(generator=generator).clone() for _ in range(samples)])


def band_limited(noise: Float[Tensor, "*lead x y"], cutoff: float) -> Float[Tensor, "*lead x y"]:
    """Keep the waves with 0 < |k| <= cutoff, in waves per period: mean zero, variance one.

    Raises:
        UserError: there is no such wave.
    """
    grid = noise.shape[-2:]
    if min(grid) < 1 or max(grid) < 2 or not cutoff >= 1:
        raise UserError(
            f"no wave of a grid {tuple(grid)} is within a cutoff of {cutoff}; give a cutoff from 1"
        )
    kx = torch.fft.fftfreq(grid[0], 1 / grid[0], device=noise.device)[:, None]
    ky = torch.fft.rfftfreq(grid[1], 1 / grid[1], device=noise.device)
    keep = (kx**2 + ky**2 > 0) & (kx**2 + ky**2 <= cutoff**2)
    found = torch.fft.irfft2(torch.fft.rfft2(noise) * keep, grid)
    return found / found.square().mean((-2, -1), keepdim=True).sqrt()
