"""Trajectories of smoke as PDEArena's data set (INS) has them, and what it is normalised with."""

from dataclasses import replace
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.pde.fields.noise import white_noise
from sixfold.pde.fields.smoke import SmokeSolver
from sixfold.pde.fields.stepping import (
    as_box,
    as_grid,
    check_counts,
    check_one_or_each,
    check_positive,
)

# Of smoke, u and v in PDEArena's 5200 training trajectories: what SineNet's data are divided by.
OFFICIAL_MEAN = (0.7171192169, -5.49e-11, -3.21e-8)
OFFICIAL_DEVIATION = (0.4428091049, 0.4393102825, 0.5087932944)
CACHED_CELLS = 4 * 128**2  # of all samples that a CPU computes at a time


def smoke_noise(
    samples: int,
    grid: tuple[int, int],
    generator: torch.Generator,
    *,
    box: tuple[float, float] = (32.0, 32.0),
    scale: float = 11.0,
    smoothness: float = 6.0,
) -> Float[Tensor, "sample x y"]:
    """Draw the smoke at the start: the absolute value of smooth noise.

    White noise times (k^-2)^smoothness where k^2 > 0.1, with k = scale x cycles per unit of length;
    its real part over its deviation, less its mean. The samples are drawn one after the other: the
    same generator gives the same ones in batches of any size.

    Args:
        samples: Number of samples.
        grid: Number of cells along x and y.
        generator: Source of the noise.
        box: Lengths along x and y.
        scale: Size of the largest structures.
        smoothness: Power at which k^-2 damps the noise.

    Raises:
        UserError: the grid is not two numbers from 2, the box not two lengths, or another number
            not positive.
    """
    grid, box = as_grid(grid, 2, least=2), as_box(box, 2)
    check_positive(scale=scale, smoothness=smoothness)
    noise = white_noise(samples, (2, *grid), generator)
    kx, ky = (
        scale * torch.fft.fftfreq(n, length / n, dtype=torch.float64, device=noise.device)
        for n, length in zip(grid, box, strict=True)
    )
    square = kx[:, None] ** 2 + ky**2
    damping = torch.where(square > 0.1, square, torch.inf) ** -smoothness
    field = torch.fft.ifft2(torch.complex(noise[:, 0], noise[:, 1]) * damping).real
    field = field / field.std((1, 2), correction=0, keepdim=True)
    return (field - field.mean((1, 2), keepdim=True)).abs().float()


def smoke_trajectories(
    samples: int,
    generator: torch.Generator,
    *,
    grid: tuple[int, int] = (128, 128),
    solver: SmokeSolver | None = None,
    skip: int = 8,
    steps: int = 56,
    keep: int = 4,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "sample time 3 x y"]:
    """Generate trajectories of smoke, u and v as PDEArena's data set has them.

    Args:
        samples: Number of trajectories, computed together, or as many as fit a CPU's cache.
        generator: Source of the smoke at the start.
        grid: Number of cells along x and y.
        solver: Equations; those of the data set unless given.
        skip: Number of steps before the first frame.
        steps: Number of steps after them.
        keep: Number of steps from one frame to the next; 1 for the conditioned data.
        device: Device that computes.

    Raises:
        UserError: a number of samples, cells or steps is none, or the solver has another number of
            buoyancies than one, or one a sample.
    """
    check_counts(samples=samples, steps=steps, keep=keep)
    check_counts(**{"skip + 1": skip + 1})
    solver = SmokeSolver() if solver is None else solver
    check_one_or_each(solver.buoyancy, "buoyancy", samples)
    smoke = smoke_noise(samples, grid, generator, box=solver.box).to(device)
    together = samples if smoke.is_cuda else max(1, CACHED_CELLS // (grid[0] * grid[1]))
    found = []
    lifts = (
        torch.as_tensor(solver.buoyancy, dtype=torch.float64)
        .view(-1)
        .expand(samples)
        .split(together)
    )
    with torch.no_grad():
        for part, lift in zip(smoke.split(together), lifts, strict=True):
            some = replace(solver, buoyancy=lift)
            states = islice(some.frames(some.at_rest(part), some.time_step), skip + steps)
            found.append(torch.stack([s.frame() for s in islice(states, skip, None, keep)], 1))
    return torch.cat(found)
