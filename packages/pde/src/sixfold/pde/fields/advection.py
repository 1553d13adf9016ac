"""Linear advection by a constant velocity on a periodic grid, exact: a shift of the waves.

A texture that moves by a known distance from frame to frame is the plainest test of a network that
joins features of different times.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.pde.fields.noise import band_limited, white_noise
from sixfold.pde.fields.stepping import (
    as_grid,
    check_counts,
    check_positive,
    check_precision,
)


def random_texture(
    samples: int, grid: tuple[int, int], cutoff: float, generator: torch.Generator
) -> Float[Tensor, "sample channel x y"]:
    """Draw textures of all waves with 0 < |k| <= cutoff at equal power: mean zero, variance one.

    The samples are drawn one after the other: the same generator gives the same ones in batches of
    any size.

    Args:
        samples: Number of textures.
        grid: Number of points along x and y.
        cutoff: Largest wavenumber, in waves per period.
        generator: Source of the noise.

    Raises:
        UserError: the grid is not two numbers, or does not hold the waves.
    """
    grid = as_grid(grid, 2)
    if not 1 <= cutoff < min(grid) / 2:
        raise UserError(
            f"waves of up to {cutoff:g} per period need more than {2 * cutoff:g} points a side, "
            f"the grid is {grid[0]} x {grid[1]}; give a cutoff from 1 to below {min(grid) / 2:g}"
        )
    return band_limited(white_noise(samples, (1, *grid), generator), cutoff).float()


def shift(
    field: Float[Tensor, "*#lead x y"], distance: Float[Tensor, "*#lead 2"]
) -> Float[Tensor, "*moved x y"]:
    """Move periodic fields by a distance in cells, whole or not; positive is toward higher indices.

    Waves of alternating signs, the Nyquist modes, keep the cosine of their turn, as the real field
    that they are.

    Raises:
        UserError: the fields are not in single or double precision, or a distance is not a number
            along x and one along y.
    """
    check_precision(field, "the field")
    check_precision(distance, "the distance")
    if distance.ndim < 1 or distance.shape[-1] != 2 or field.ndim < 2 or 0 in field.shape:
        raise UserError(
            f"distances (..., 2) move fields (..., x, y), got {tuple(distance.shape)} and "
            f"{tuple(field.shape)}; give a number along x and one along y"
        )
    x, y = field.shape[-2:]
    kx, ky = (
        2 * math.pi * torch.fft.fftfreq(n, dtype=field.dtype).to(field.device) for n in (x, y)
    )
    angle = kx[:, None] * distance[..., 0, None, None] + ky * distance[..., 1, None, None]
    return torch.fft.ifft2(torch.fft.fft2(field) * torch.exp(-1j * angle)).real


def advect(
    field: Float[Tensor, "batch channel x y"],
    velocity: Sequence[float | int] | Float[Tensor, "batch 2"],
    frames: int,
    every: float = 1.0,
) -> Float[Tensor, "batch time channel x y"]:
    """Solve df/dt + velocity . grad f = 0 exactly at equal times; the first frame is the given one.

    Each frame is one shift of the first: no error adds up.

    Args:
        field: Field at time zero.
        velocity: Velocity in cells per unit of time, one for all samples or one each.
        frames: Number of frames.
        every: Time from one frame to the next.

    Raises:
        UserError: the number of frames or the time is not positive, or the velocity is not two
            finite numbers, or two for each sample.
    """
    check_counts(frames=frames)
    check_positive(every=every)
    check_precision(field, "the field")
    speed = torch.as_tensor(velocity, dtype=field.dtype, device=field.device)
    fits = tuple(speed.shape) in ((2,), (1, 2), (len(field), 2))
    if field.ndim != 4 or not len(field) or not fits or not bool(speed.isfinite().all()):
        raise UserError(
            f"fields (batch, channel, x, y) move by two finite numbers, or by two for each sample; "
            f"got fields {tuple(field.shape)} and a velocity {velocity}"
        )
    times = torch.arange(frames, dtype=field.dtype, device=field.device) * every
    distance = times[:, None] * speed.view(-1, 1, 2)  # (batch or 1, time, 2)
    return shift(field[:, None], distance[:, :, None])
