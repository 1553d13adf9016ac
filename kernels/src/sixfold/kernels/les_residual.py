"""Residual of the large-eddy-simulation equations on periodic boxes: the loss of LESnets.

    r = (u[n+1] - u[n-1]) / (2 dt) - P[ D(u x curl u) - div tau ] - nu lap u
    tau_ij = -2 Cs2 Delta^2 |S| S_ij,  |S| = sqrt(2 S_ij S_ij),  S_ij = (d_j u_i + d_i u_j) / 2

with D the two-thirds truncation and P the projection on fields without divergence; the loss is
mean(r^2) + mean((div u)^2). Zhao et al., "LESnets", arXiv 2411.04502.

The published code takes 28 complex transforms per time over strided axes, and loops over fields
to truncate them. Here derivatives and truncation are products with small matrices, one an axis, on
real fields in one layout; only the projection needs a transform and its inverse, of one scalar:
P f = f - grad phi, where phi has the Laplacian div f.

Waves of alternating signs, the Nyquist modes, have no first derivative here; the published code
keeps some of them. For velocities without such modes and without a mean the two differ by those of
tau alone; ``official_quirks`` gives the published numbers always, with full complex transforms.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.kernels._axis_matrices import along, along_all, axis_matrices, summed
from sixfold.kernels._les_official import official_residual, safe_sqrt
from sixfold.kernels.spectral_derivatives import inverse_laplacian_hat, irfft3, rfft3, wavenumbers

Velocity = Float[Tensor, "batch 3 time x y z"]
Scalar = float | Float[Tensor, ""]
Box = tuple[float, float, float]
CUBE: Box = (2 * math.pi, 2 * math.pi, 2 * math.pi)


def les_residual_loss(
    velocity: Velocity,
    *,
    time_step: float,
    viscosity: Scalar,
    smagorinsky: Scalar,
    filter_width: float,
    box: Box = CUBE,
    official_quirks: Literal["dhit", "tml"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean square of the residual plus that of the divergence.

    Args:
        velocity: Frames ``time_step`` apart; the residual is taken at all but the first and last.
        time_step: Time dt between two frames.
        viscosity: Kinematic viscosity nu.
        smagorinsky: Squared Smagorinsky constant Cs2; a tensor if it is learned.
        filter_width: Filter width Delta. The published code has 2 pi / 32 (dhit) and 8 pi / 32
            (tml) whatever the grid.
        box: Lengths of a period along x, y and z; (4 pi, 8 pi, 8 pi) in the code's tml.
        official_quirks: Name of the code's function whose numbers to give: mean flow damped,
            Nyquist modes kept here and there, dhit's divergence divided by the number of points.

    Raises:
        ValueError: there are fewer than three frames, or not three components.
        TypeError: velocity is neither float32 nor float64.
    """
    terms = (time_step, viscosity, smagorinsky, filter_width, box)
    if official_quirks is not None:
        residual, divergence = les_residual(velocity, *terms, official_quirks)
        return residual.square().mean() + divergence.square().mean()
    residual, divergence = _residual(_checked(velocity), *terms)
    return torch.stack([r.square().mean() for r in residual]).mean() + divergence.square().mean()


def les_residual(
    velocity: Velocity,
    time_step: float,
    viscosity: Scalar,
    smagorinsky: Scalar,
    filter_width: float,
    box: Box = CUBE,
    official_quirks: Literal["dhit", "tml"] | None = None,
) -> tuple[Float[Tensor, "batch 3 inner x y z"], Float[Tensor, "batch time x y z"]]:
    """Return the residual at the inner frames and the divergence at all, as fields.

    The arguments and errors are those of `les_residual_loss`.
    """
    terms = (time_step, viscosity, smagorinsky, filter_width, box)
    if official_quirks is not None:
        return official_residual(_checked(velocity), *terms, dhit=official_quirks == "dhit")
    residual, divergence = _residual(_checked(velocity), *terms)
    return torch.stack(residual, 1), divergence


def _residual(velocity, time_step, viscosity, smagorinsky, filter_width, box):
    """Return the three components of the residual, and the divergence."""
    sizes = velocity.shape[-3:]
    first, second, low = axis_matrices(sizes, box, velocity)
    frames = velocity.unbind(1)
    inner = [component[:, 1:-1] for component in frames]
    diagonal = [along(first[i], u, i) for i, u in enumerate(frames)]
    gradient = [
        [along(first[j], u, j) if i != j else diagonal[i][:, 1:-1] for j in range(3)]
        for i, u in enumerate(inner)
    ]
    stress = _stress(gradient, smagorinsky * filter_width**2)
    forces = [
        summed(first, row, onto=along_all(low, lamb))
        for row, lamb in zip(stress, _lamb(inner, gradient), strict=True)
    ]
    sources, k = rfft3(summed(first, forces)), wavenumbers(sizes, box, velocity)
    potential = irfft3(inverse_laplacian_hat(sources, k), sizes[-1])
    residual = []
    for i, (u, within, force) in enumerate(zip(frames, inner, forces, strict=True)):
        change = (u[:, 2:] - u[:, :-2]) / (2 * time_step)
        unprojected = change - force - viscosity * summed(second, (within,) * 3)
        residual.append(along(first[i], potential, i, onto=unprojected))
    return residual, diagonal[0] + diagonal[1] + diagonal[2]


def _lamb(velocity: Sequence[Tensor], gradient: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return u x curl u; gradient[i][j] is the derivative of component i along j."""
    (u, v, w), ((_, uy, uz), (vx, _, vz), (wx, wy, _)) = velocity, gradient
    curl_x, curl_y, curl_z = wy - vz, uz - wx, vx - uy
    return [v * curl_z - w * curl_y, w * curl_x - u * curl_z, u * curl_y - v * curl_x]


def _stress(gradient: Sequence[Sequence[Tensor]], scale: Scalar) -> list[tuple[Tensor, ...]]:
    """Return the rows of -tau."""
    (ux, uy, uz), (vx, vy, vz), (wx, wy, wz) = gradient
    xy, xz, yz = uy + vx, uz + wx, vz + wy  # twice the strain
    square = 2 * (ux * ux + vy * vy + wz * wz) + (xy * xy + xz * xz + yz * yz)
    eddy = scale * safe_sqrt(square)
    xy, xz, yz, twice = eddy * xy, eddy * xz, eddy * yz, 2 * eddy
    return [(twice * ux, xy, xz), (xy, twice * vy, yz), (xz, yz, twice * wz)]


def _checked(velocity: Tensor) -> Tensor:
    if velocity.ndim != 6 or velocity.shape[1] != 3 or velocity.shape[2] < 3:
        raise ValueError(
            "les_residual: velocity should be (batch, 3 components, 3 or more times, x, y, z), got "
            f"{tuple(velocity.shape)}"
        )
    if velocity.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"les_residual: velocity should be float32 or float64, got {velocity.dtype}; "
            "there is no FFT of half precision"
        )
    return velocity
