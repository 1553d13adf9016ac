"""Velocities to start from on periodic boxes (batch, 3, x, y, z): turbulence, layers, exact flows."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.kernels import irfft3, project_div_free, rfft3, wavenumbers
from sixfold.pde.fields.modes import CUBE, Box, shell_energy, shells, square_wavenumbers
from sixfold.pde.fields.noise import white_noise

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

    Raises:
        UserError: the spectrum has no energy on this grid.
    """
    noise = white_noise(samples, (3, *grid), generator)
    hat = rfft3(noise) * dealias_mask(grid, noise)
    hat = project_div_free(hat, wavenumbers(grid, box, noise))
    now = shell_energy(hat, grid[-1], box)
    wanted = spectrum(torch.arange(now.shape[1], dtype=noise.dtype, device=noise.device))
    wanted = torch.where(now > 0, wanted, 0.0)
    wanted[:, 0] = 0
    ...
