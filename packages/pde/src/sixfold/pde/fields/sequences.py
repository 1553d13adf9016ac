"""Sequences of turbulence in the layout of LESnets (sample, x, y, z, component, time)."""

from itertools import chain, islice

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.pde.fields.initial_fields import isotropic_field
from sixfold.pde.fields.modes import CUBE
from sixfold.pde.fields.statistics import coarsen, sphere_filter
from sixfold.pde.fields.stepping import check_counts, check_not_negative
from sixfold.pde.fields.turbulence import SpectralSolver

Sequence3 = Float[Tensor, "sample x y z 3 time"]


def sequence(
    solver: SpectralSolver, u0: Float[Tensor, "sample 3 x y z"], frames: int, every: float
) -> Sequence3:
    """Solve without gradients, and stack frames in the layout of LESnets; the first is the given.

    Args:
        solver: Solver.
        u0: Velocity at time zero.
        frames: Number of frames, the given one among them.
        every: Time from one frame to the next.

    Raises:
        UserError: the number of frames is none, or as ``solver.frames``.
    """
    check_counts(frames=frames)
    with torch.no_grad():
        return _stacked([u0, *islice(solver.frames(u0, every), frames - 1)])


def filtered_turbulence(
    samples: int,
    generator: torch.Generator,
    *,
    viscosity: float,
    dns_points: int = 32,
    points: int = 16,
    cutoff: float = 5.0,
    time_step: float = 0.01,
    spin_up: float = 0.6,
    frames: int = 11,
    every: float = 0.02,
    device: torch.device | str = "cpu",
) -> Sequence3:
    """Simulate decaying isotropic turbulence directly, and keep what a large-eddy grid shows of it.

    The fields start with random phases (`isotropic_field`) and develop: from a time of 0.2 on the
    skewness of the velocity's derivatives is about -0.4. LESnets' own data have viscosity 1 / 64,
    128 points a side, a filter at 10 on 32 points, frames every 0.02.

    Args:
        samples: Number of sequences, computed together.
        generator: Source of the phases.
        viscosity: Kinematic viscosity.
        dns_points: Number of points a side of the simulation.
        points: Number of points a side of the frames.
        cutoff: Largest wavenumber of the frames (2 pi / the side of the box).
        time_step: Time step of the simulation.
        spin_up: Time before the first frame.
        frames: Number of frames.
        every: Time from one frame to the next.
        device: Device that computes.

    Raises:
        UserError: a number of samples, points or frames is none, or a time not positive.
    """
    check_counts(frames=frames, points=points, dns_points=dns_points)
    check_not_negative(spin_up=spin_up)
    solver = SpectralSolver(viscosity, time_step)
    u0 = isotropic_field(samples, (dns_points, dns_points, dns_points), generator).to(device)
    coarse = (points, points, points)
    with torch.no_grad():
        if spin_up > 0:
            u0 = next(solver.frames(u0, every=spin_up))
        later = islice(solver.frames(u0, every), frames - 1)
        kept = [coarsen(sphere_filter(u, CUBE, cutoff), coarse) for u in chain((u0,), later)]
    return _stacked(kept)


def _stacked(frames: list[Float[Tensor, "sample 3 x y z"]]) -> Sequence3:
    return torch.stack([u.movedim(1, -1) for u in frames], -1)
