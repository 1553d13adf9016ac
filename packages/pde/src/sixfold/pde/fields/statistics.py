"""Statistics of three-dimensional periodic velocity fields (batch, component, x, y, z).

Derivatives are spectral, by `sixfold.kernels`; lengths are in the units of ``box``, the lengths of
a period along x, y and z. A field with a value that is not a number has no number for a statistic.

Raises:
    UserError: by every function, for what is no batch of velocities in single or double precision,
        or a box that is not three positive lengths.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.kernels import (
    curl_hat,
    grad_hat,
    irfft3,
    rfft3,
    wavenumbers,
)
from sixfold.pde.fields.checks import check_velocity
from sixfold.pde.fields.modes import shell_energy, square_wavenumbers
from sixfold.pde.fields.stepping import (
    as_box,
    as_grid,
    check_counts,
    check_finite,
    check_positive,
    check_viscosity,
)

Velocity = Float[Tensor, "batch 3 x y z"]
Box = Sequence[float]  # lengths along x, y and z
Edges = Float[Tensor, " edge"] | Sequence[float]


class Scales(NamedTuple):
    """Means and scales of isotropic turbulence, one value a field; symbols in brackets."""

    kinetic_energy: Float[Tensor, " batch"]  # K, per unit of mass
    dissipation: Float[Tensor, " batch"]  # epsilon = 2 nu <S:S>
    enstrophy: Float[Tensor, " batch"]  # <w^2> / 2
    u_rms: Float[Tensor, " batch"]  # sqrt(2 K / 3)
    vorticity_rms: Float[Tensor, " batch"]  # sqrt(<w^2> / 3)
    integral_scale: Float[Tensor, " batch"]  # pi / (2 u_rms^2) sum E / k
    taylor_microscale: Float[Tensor, " batch"]  # sqrt(15 nu u_rms^2 / epsilon)
    re_lambda: Float[Tensor, " batch"]
    kolmogorov: Float[Tensor, " batch"]  # (nu^3 / epsilon)^(1/4)
    turnover_time: Float[Tensor, " batch"]  # integral scale / u_rms


def velocity_gradient(velocity: Velocity, box: Box) -> Float[Tensor, "batch 3 3 x y z"]:
    """Return the derivative of component i along axis j, as [:, i, j]."""
    k = _wavenumbers(velocity, box)
    return irfft3(grad_hat(rfft3(velocity), k), velocity.shape[-1]).transpose(1, 2)


def vorticity(velocity: Velocity, box: Box) -> Velocity:
    """Return the curl of the velocity."""
    k = _wavenumbers(velocity, box)
    return irfft3(curl_hat(rfft3(velocity), k), velocity.shape[-1])


def strain(velocity: Velocity, box: Box) -> Float[Tensor, "batch 3 3 x y z"]:
    """Return S_ij = (d_j u_i + d_i u_j) / 2."""
    gradient = velocity_gradient(velocity, box)
    return (gradient + gradient.transpose(1, 2)) / 2


def strain_magnitude(rate: Float[Tensor, "batch 3 3 x y z"]) -> Float[Tensor, "batch x y z"]:
    """Return |S| = sqrt(2 S_ij S_ij)."""
    return (2 * rate.square().sum((1, 2))).sqrt()


def smagorinsky_stress(
    rate: Float[Tensor, "batch 3 3 x y z"], smagorinsky: float, filter_width: float
) -> Float[Tensor, "batch 3 3 x y z"]:
    """Return tau_ij = -2 Cs2 Delta^2 |S| S_ij, the stress of the filtered-out motion."""
    return -2 * smagorinsky * filter_width**2 * strain_magnitude(rate)[:, None, None] * rate


def q_criterion(velocity: Velocity, box: Box) -> Float[Tensor, "batch x y z"]:
    """Return Q = (Omega:Omega - S:S) / 2, positive in vortices."""
    gradient = velocity_gradient(velocity, box)
    return -(gradient * gradient.transpose(1, 2)).sum((1, 2)) / 2


def pressure(velocity: Velocity, box: Box) -> Float[Tensor, "batch x y z"]:
    """Solve lap p = -d_j u_i d_i u_j, the pressure without mean of an incompressible flow.

    Products have Nyquist modes; unlike the first derivative, the Laplacian has theirs too.
    """
    source = rfft3(2 * q_criterion(velocity, box))
    square = square_wavenumbers(velocity.shape[-3:], as_box(box, 3)).to(velocity)[..., None]
    found = torch.where(square > 0, -source / square.clamp(min=1e-30), 0.0)
    return irfft3(found, velocity.shape[-1])


def energy_spectrum(velocity: Velocity, box: Box) -> Float[Tensor, "batch shell"]:
    """Sum the kinetic energy of each shell; all shells together have all of it.

    Shell s holds floor(|k| + 1/2) = s with k in units of 2 pi / the longest side of the box.
    """
    check_velocity(velocity)
    return shell_energy(rfft3(velocity), velocity.shape[-1], as_box(box, 3))


def turbulence_scales(velocity: Velocity, box: Box, viscosity: float) -> Scales:
    """Compute means and scales of each field; `Scales` has the formulas."""
    check_viscosity(viscosity)
    spectrum = energy_spectrum(velocity, box)
    k = torch.arange(1, spectrum.shape[1]).to(spectrum) * (2 * math.pi / max(box))
    energy = velocity.square().sum(1).mean((1, 2, 3)) / 2
    dissipation = viscosity * strain_magnitude(strain(velocity, box)).square().mean((1, 2, 3))
    enstrophy = vorticity(velocity, box).square().sum(1).mean((1, 2, 3)) / 2
    u_rms = (2 * energy / 3).sqrt()
    integral = math.pi / (2 * u_rms**2) * (spectrum[:, 1:] / k).sum(1)
    taylor = (15 * viscosity / dissipation).sqrt() * u_rms
    return Scales(
        kinetic_energy=energy,
        dissipation=dissipation,
        enstrophy=enstrophy,
        u_rms=u_rms,
        vorticity_rms=(2 * enstrophy / 3).sqrt(),
        integral_scale=integral,
        taylor_microscale=taylor,
        re_lambda=u_rms * taylor / viscosity,
        kolmogorov=(viscosity**3 / dissipation) ** 0.25,
        turnover_time=integral / u_rms,
    )


def longitudinal_increments(velocity: Velocity, cells: int) -> Velocity:
    """Return u_i(x + r e_i) - u_i(x) of each component along its own axis, r in cells."""
    check_velocity(velocity)
    check_counts(cells=cells)
    shifted = [velocity[:, i].roll(-cells, dims=i + 1) for i in range(3)]
    return torch.stack(shifted, 1) - velocity


def structure_functions(
    velocity: Velocity, distances: int, orders: int = 6
) -> Float[Tensor, "batch distance order"]:
    """Average |longitudinal increment|^p over space and directions, for each r and p from 1."""
    check_counts(distances=distances, orders=orders)
    rows = []
    for cells in range(1, distances + 1):
        size = longitudinal_increments(velocity, cells).abs().flatten(1)
        rows.append(torch.stack([(size**p).mean(1) for p in range(1, orders + 1)], 1))
    return torch.stack(rows, 1)


def gradient_skewness(velocity: Velocity, box: Box) -> Float[Tensor, " batch"]:
    """Return <(d_i u_i)^3> / <(d_i u_i)^2>^(3/2), over space and directions.

    It is zero for random phases, and about -0.5 in developed turbulence.
    """
    gradient = velocity_gradient(velocity, box)
    along = torch.stack([gradient[:, i, i] for i in range(3)], 1).flatten(1)
    return (along**3).mean(1) / along.square().mean(1) ** 1.5


def momentum_thickness(velocity: Velocity, height: float, speed: float) -> Float[Tensor, " batch"]:
    """Integrate 1/4 - (<w> / speed)^2 over the inner half of y: the thickness of a mixing layer.

    A point counts with the part of its cell, half a spacing to each side, within that half.

    Args:
        velocity: Streams along z, of opposite signs above and below the middle of y.
        height: Length of the box along y.
        speed: Difference of the streams' speeds.
    """
    check_velocity(velocity)
    check_positive(height=height, speed=speed)
    points = velocity.shape[3]
    place = torch.arange(points).to(velocity) - points / 2  # from the middle of y, in cells
    share = (points / 4 + 0.5 - place.abs()).clamp(0, 1)
    mean = velocity[:, 2].mean((1, 3))
    return (0.25 - (mean / speed).square()) @ share * (height / points)


def density(values: Tensor, edges: Edges) -> Float[Tensor, " bin"]:
    """Estimate a probability density: the integral over all bins is one.

    Raises:
        UserError: the edges do not rise, a value is not finite, or all lie outside of the bins.
    """
    edges = torch.as_tensor(edges)
    if edges.ndim != 1 or len(edges) < 2 or not bool((edges.diff() > 0).all()):
        raise UserError(f"the edges of bins should be two or more rising numbers, got {edges}")
    check_finite(values, "the field", "its axes")
    values, edges = (x.detach().cpu().double() for x in (values, edges))
    counts = torch.histogram(values.flatten(), edges).hist
    if not bool(counts.any()):
        raise UserError(
            f"no value lies within the bins from {float(edges[0]):g} to {float(edges[-1]):g}; "
            "give edges around the values"
        )
    return counts / counts.sum() / edges.diff()


def vorticity_density(
    velocity: Velocity,
    box: Box,
    edges: Edges,
    vorticity_rms: float | None = None,
) -> Float[Tensor, " bin"]:
    """Estimate the density of all components of vorticity over its root mean square.

    Args:
        velocity: Velocity; all samples count together.
        box: Lengths of the box.
        edges: Edges of the bins.
        vorticity_rms: Scale, such as that of the true field; by default that of the velocity given.
    """
    spin = vorticity(velocity, box)
    scale = float(spin.square().mean().sqrt()) if vorticity_rms is None else vorticity_rms
    check_positive(vorticity_rms=scale)
    return density(spin / scale, edges)


def increment_density(
    velocity: Velocity, cells: int, edges: Edges, u_rms: float | None = None
) -> Float[Tensor, " bin"]:
    """Estimate the density of longitudinal increments over the velocity's root mean square.

    Args:
        velocity: Velocity; all samples count together.
        cells: Distance in cells.
        edges: Edges of the bins.
        u_rms: Scale, such as that of the true field; by default that of the velocity given.
    """
    increments = longitudinal_increments(velocity, cells)
    scale = float(velocity.square().mean().sqrt()) if u_rms is None else u_rms
    check_positive(u_rms=scale)
    return density(increments / scale, edges)


def coarsen(
    velocity: Velocity, points: Sequence[int]
) -> Float[Tensor, "batch 3 coarse_x coarse_y coarse_z"]:
    """Filter by a sharp cut-off and sample on a coarser grid, whose Nyquist modes stay empty.

    Raises:
        UserError: the other grid is finer, or none.
    """
    check_velocity(velocity)
    points = as_grid(points, 3)
    if any(n > fine for n, fine in zip(points, velocity.shape[-3:], strict=True)):
        raise UserError(
            f"a field on {tuple(velocity.shape[-3:])} points has no more than that to give, "
            f"{points} were asked for; give a coarser grid"
        )
    hat = torch.fft.fftn(velocity, dim=(-3, -2, -1), norm="forward")
    for axis, n in zip((-3, -2, -1), points, strict=True):
        half = (n + 1) // 2  # modes 0 to half - 1, and the negative ones of them
        low, high = (
            hat.narrow(axis, 0, half),
            hat.narrow(axis, hat.shape[axis] - half + 1, half - 1),
        )
        gap = low.narrow(axis, 0, 1) * 0 if n % 2 == 0 else low.narrow(axis, 0, 0)
        hat = torch.cat((low, gap, high), axis)
    return torch.fft.ifftn(hat, dim=(-3, -2, -1), norm="forward").real


def sphere_filter(velocity: Velocity, box: Box, cutoff: float) -> Velocity:
    """Remove the modes beyond a wavenumber, in units of 2 pi / the longest side of the box."""
    check_velocity(velocity)
    if not cutoff >= 0:
        raise UserError(f"cutoff should be a wavenumber from 0, got {cutoff}")
    sizes, box = velocity.shape[-3:], as_box(box, 3)
    axes = [
        torch.fft.fftfreq(n, length / n, dtype=torch.float64) * max(box)
        for n, length in zip(sizes, box, strict=True)
    ]
    square = sum(g.square() for g in torch.meshgrid(*axes, indexing="ij"))
    keep = (torch.as_tensor(square) <= cutoff**2 * (1 + 1e-12)).to(velocity.device)
    hat = torch.fft.fftn(velocity, dim=(-3, -2, -1))
    return torch.fft.ifftn(hat * keep, dim=(-3, -2, -1)).real


def _wavenumbers(velocity: Velocity, box: Box) -> Tensor:
    check_velocity(velocity)
    return wavenumbers(velocity.shape[-3:], as_box(box, 3), velocity)
