"""Flows for the tests of LESnets: analytic ones, and a few steps of a large-eddy simulation."""

import math

import torch
from torch import Tensor

from sixfold.kernels import les_residual

CUBE = (2 * math.pi, 2 * math.pi, 2 * math.pi)


def axes(n: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Return the coordinates x, y and z of a cube of side 2 pi."""
    line = torch.arange(n, dtype=dtype) * (2 * math.pi / n)
    x, y, z = torch.meshgrid(line, line, line, indexing="ij")
    return x, y, z


def taylor_green_2d(n: int, viscosity: float, time_step: float, frames: int) -> Tensor:
    """Return the decaying vortices (1, n, n, n, 3, frames), which solve the equations."""
    x, y, z = axes(n)
    field = torch.stack((x.sin() * y.cos(), -x.cos() * y.sin(), 0 * z), -1)
    decay = (-2 * viscosity * time_step * torch.arange(frames, dtype=torch.float64)).exp()
    return (field[..., None] * decay)[None]


def taylor_green_3d(n: int) -> Tensor:
    """Return the Taylor-Green vortex (1, n, n, n, 3)."""
    x, y, z = axes(n)
    u, v = x.sin() * y.cos() * z.cos(), -x.cos() * y.sin() * z.cos()
    return torch.stack((u, v, 0 * z), -1)[None]


def random_field(n: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a field without divergence (1, n, n, n, 3): the curl of random waves of |k_i| <= 2."""
    generator = torch.Generator().manual_seed(seed)
    x, y, z = axes(n)
    field = torch.zeros(n, n, n, 3, dtype=torch.float64)
    for _ in range(8):
        k = torch.randint(-2, 3, (3,), generator=generator).double()
        amplitude = torch.randn(3, generator=generator, dtype=torch.float64)
        phase = k[0] * x + k[1] * y + k[2] * z + 6.28 * torch.rand((), generator=generator)
        field += torch.linalg.cross(k, amplitude) * phase.cos()[..., None]
    return (field / field.square().mean().sqrt())[None].to(dtype)


def smagorinsky_sequence(
    u0: Tensor, frames: int, time_step: float, viscosity: float, smagorinsky: float
) -> Tensor:
    """Solve the equations of the residual itself from u0, one classical Runge-Kutta step a frame.

    Of three equal frames the residual is minus the right-hand side.
    """
    width = 2 * math.pi / u0.shape[1]

    def slope(u: Tensor) -> Tensor:
        still = u[:, :, None].expand(-1, -1, 3, -1, -1, -1).contiguous()
        return -les_residual(still, 1.0, viscosity, smagorinsky, width)[0][:, :, 0]

    u, found = u0.movedim(-1, 1), [u0]
    for _ in range(frames - 1):
        a = slope(u)
        b = slope(u + time_step / 2 * a)
        c = slope(u + time_step / 2 * b)
        d = slope(u + time_step * c)
        u = u + time_step / 6 * (a + 2 * b + 2 * c + d)
        found.append(u.movedim(1, -1))
    return torch.stack(found, -1)
