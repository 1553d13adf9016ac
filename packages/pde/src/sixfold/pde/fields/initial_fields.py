"""Velocities to start from on periodic boxes (batch, 3, x, y, z): turbulence, layers, vortices."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.kernels import dealias_mask, irfft3, project_div_free, rfft3, wavenumbers
from sixfold.pde.fields.modes import CUBE, Box, shell_energy, shells
from sixfold.pde.fields.noise import white_noise
from sixfold.pde.fields.stepping import (
    as_box,
    as_grid,
    check_counts,
    check_not_negative,
    check_positive,
)

Velocity = Float[Tensor, "batch 3 x y z"]
Grid = tuple[int, int, int]
LAYER_BOX: Box = (4 * math.pi, 8 * math.pi, 8 * math.pi)


def decaying_spectrum(k: Tensor, peak: float = 4.0) -> Tensor:
    """Return E(k) ~ k^4 exp(-2 (k / peak)^2), that of decaying turbulence at the start."""
    return k**4 * torch.exp(-2 * (k / peak) ** 2)


def isotropic_field(
    samples: int,
    grid: Grid,
    generator: torch.Generator,
    *,
    spectrum: Callable[[Tensor], Tensor] = decaying_spectrum,
    u_rms: float = 1.0,
    box: Box = CUBE,
    dtype: torch.dtype = torch.float32,
) -> Velocity:
    """Draw fields of random phases without divergence, with exactly a given spectrum.

    Each shell of modes has the energy of the spectrum; all together have that of ``u_rms``. Modes
    beyond a third of the points of an axis, which the solver truncates, stay empty, and the samples
    are drawn one after the other: batches of any size come to the same ones.

    Args:
        samples: Number of fields.
        grid: Number of points along x, y and z.
        generator: Source of the phases.
        spectrum: Energy at the wavenumbers of shells, in units of 2 pi / the longest side; the
            scale of it does not matter.
        u_rms: Root mean square of one component.
        box: Lengths along x, y and z.
        dtype: Precision of the result.

    Raises:
        UserError: the spectrum has no energy on this grid, the grid is not three numbers or the box
            not three lengths, or ``u_rms`` is negative.
    """
    grid, box = as_grid(grid, 3), as_box(box, 3)
    check_not_negative(u_rms=u_rms)
    noise = white_noise(samples, (3, *grid), generator)
    hat = rfft3(noise) * dealias_mask(grid, noise)
    hat = project_div_free(hat, wavenumbers(grid, box, noise))
    now = shell_energy(hat, grid[-1], box)
    wanted = spectrum(torch.arange(now.shape[1], dtype=noise.dtype, device=noise.device))
    wanted = torch.where(now > 0, wanted, 0.0)
    wanted[:, 0] = 0  # no mean flow
    total = wanted.sum(1, keepdim=True)
    if not bool((total > 0).all()):
        raise UserError(
            f"the spectrum has no energy in the modes that a grid of {grid} keeps, up to a third "
            "of the points of each axis; take more points, or a spectrum of longer waves"
        )
    factor = (1.5 * u_rms**2 * wanted / total / torch.where(now > 0, now, 1)).sqrt()
    hat = hat * factor[:, shells(grid, box).to(hat.device)][:, None, ..., None]
    return irfft3(hat, grid[-1]).to(dtype)


def mixing_layer(
    samples: int,
    grid: Grid,
    generator: torch.Generator,
    *,
    box: Box = LAYER_BOX,
    speed: float = 2.0,
    thickness: float = 0.08,
    disturbance: float = 0.1,
    dtype: torch.dtype = torch.float32,
) -> Velocity:
    """Draw temporal mixing layers: streams along z that meet at the middle of y, and noise there.

    w(y) = speed / 2 [tanh(y / 2 d) - tanh((y + Ly/2) / 2 d) - tanh((y - Ly/2) / 2 d)] with y from
    -Ly/2; a second layer at the ends makes it periodic. Modes that the solver truncates are left
    out: a layer thinner than a cell has waves around it.

    Args:
        samples: Number of fields.
        grid: Number of points along x (spanwise), y (across) and z (along the streams).
        generator: Source of the disturbance.
        box: Lengths along x, y and z.
        speed: Difference of the streams' speeds.
        thickness: Momentum thickness (d).
        disturbance: Root mean square of one component of the noise, over the speed, in the middle.
        dtype: Precision of the result.

    Raises:
        UserError: as `isotropic_field`; or the layer has no thickness or speed.
    """
    grid, box = as_grid(grid, 3), as_box(box, 3)
    check_positive(speed=speed, thickness=thickness)
    check_not_negative(disturbance=disturbance)
    height = box[1]
    y = (torch.arange(grid[1], dtype=torch.float64) / grid[1] - 0.5) * height
    ends = (
        torch.tanh((y + height / 2) / (2 * thickness)),
        torch.tanh((y - height / 2) / (2 * thickness)),
    )
    profile = speed / 2 * (torch.tanh(y / (2 * thickness)) - ends[0] - ends[1])
    noise = isotropic_field(
        samples, grid, generator, u_rms=disturbance * speed, box=box, dtype=torch.float64
    )
    window = torch.exp(-((8 * y / height) ** 2)).to(noise.device)
    hat = rfft3(noise * window[:, None])
    hat[:, 2] += rfft3(profile.to(noise.device)[:, None].expand(grid))
    hat = project_div_free(hat * dealias_mask(grid, noise), wavenumbers(grid, box, noise))
    return irfft3(hat, grid[-1]).to(dtype)


def taylor_green_2d(
    n: int, *, viscosity: float = 0.0, time: float = 0.0, dtype: torch.dtype = torch.float32
) -> Velocity:
    """Return (sin x cos y, -cos x sin y, 0) exp(-2 nu t), an exact solution on the cube of 2 pi."""
    x, y, z = _coordinates(n)
    field = torch.stack((x.sin() * y.cos(), -x.cos() * y.sin(), 0 * z))
    return (math.exp(-2 * viscosity * time) * field)[None].to(dtype)


def taylor_green_3d(n: int, *, dtype: torch.dtype = torch.float32) -> Velocity:
    """Return (sin x cos y cos z, -cos x sin y cos z, 0): energy 1/8, enstrophy 3/8."""
    x, y, z = _coordinates(n)
    u, v = x.sin() * y.cos() * z.cos(), -x.cos() * y.sin() * z.cos()
    return torch.stack((u, v, 0 * z))[None].to(dtype)


def abc_flow(n: int, *, dtype: torch.dtype = torch.float32) -> Velocity:
    """Return the flow of Arnold, Beltrami and Childress: its curl is itself, so inertia is none."""
    x, y, z = _coordinates(n)
    parts = (z.sin() + y.cos(), x.sin() + z.cos(), y.sin() + x.cos())
    return torch.stack(parts)[None].to(dtype)


def _coordinates(n: int) -> tuple[Tensor, Tensor, Tensor]:
    check_counts(n=n)
    line = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    x, y, z = torch.meshgrid(line, line, line, indexing="ij")
    return x, y, z
