"""Rotating shallow water on a doubly periodic beta-plane (SWE-plane), pseudo-spectral.

    du/dt + (curl u + f) z x u = -grad(c^2 h + |u|^2 / 2) - D u
    dh/dt + div((1 + h) u) = -D h,  f(y) = f0 + beta Ly / (2 pi) sin(2 pi y / Ly)

with h the depth's relative deviation from its mean, c the speed of long gravity waves, and D a
damping of the shortest waves. The Coriolis parameter is periodic, and grows by beta at y = 0.

This stands in for the shallow water on a sphere of PDEArena's data (SpeedyWeather), which it is
not: call it SWE-plane. Lengths are in 1000 km and times in days; the defaults are the Earth's at 45
degrees, with 8.5 km of water.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.pde.fields.noise import band_limited, white_noise
from sixfold.pde.fields.stepping import (
    ADVECTION,
    DIFFUSION,
    as_box,
    as_grid,
    check_counts,
    check_finite,
    check_positive,
    check_precision,
    check_viscosity,
    runge_kutta,
    steps_between,
)

Water = Float[Tensor, "batch 3 x y"]  # relative height, velocity along x (east) and y (north)
Waves = Complex[Tensor, "batch 3 x half"]
JETS = 4  # pairs of jets at most
EDDIES = 8.0  # of them along an axis at most


@dataclass(frozen=True)
class ShallowWaterSolver:
    """Solver of rotating shallow water on a periodic plane.

    Args:
        time_step: Length of a step (days).
        box: Lengths along x and y (1000 km).
        wave_speed: Speed of long gravity waves (c, 1000 km a day).
        coriolis: Coriolis parameter (f0, per day).
        beta: Growth of it along y (per day and 1000 km).
        damping: Rate at which the shortest wave is damped (per day), by the fourth power of k.
    """

    time_step: float = 0.005
    box: tuple[float, float] = (40.0, 20.0)
    wave_speed: float = 25.0
    coriolis: float = 8.9
    beta: float = 1.4
    damping: float | Tensor = 20.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "box", as_box(self.box, 2))  # the way of a frozen dataclass
        check_positive(time_step=self.time_step, wave_speed=self.wave_speed)
        check_viscosity(self.damping, "damping")

    def frames(self, water: Water, every: float) -> Iterator[Water]:
        """Yield height and velocity at ``every``, twice that, and so on, without end.

        Args:
            water: State at time zero.
            every: Time from one frame to the next, a multiple of the time step.

        Raises:
            UserError: the state is not finite, or not three channels; the time step is above the
                limit, or no part of ``every``.
        """
        steps = steps_between(every, self.time_step)
        if water.ndim != 4 or water.shape[1] != 3 or min(water.shape[2:]) < 6 or not len(water):
            raise UserError(
                "the water should be (batch, 3, x, y), the channels height and velocity along x "
                f"and y, with 6 or more points a side, got {tuple(water.shape)}; move the axes"
            )
        check_precision(water, "the water")
        self._check_step(water)
        return self._frames(water, steps, (water.shape[-2], water.shape[-1]))

    def _frames(self, water: Water, steps: int, grid: tuple[int, int]) -> Iterator[Water]:
        waves = torch.fft.rfft2(water) * _kept(grid, water)
        while True:
            for _ in range(steps):
                waves = runge_kutta(partial(self._slope, grid=grid), waves, self.time_step)
            water = torch.fft.irfft2(waves, grid)
            self._check_step(water)
            yield water

    def right_hand_side(self, water: Water) -> Water:
        """Return d/dt of height and velocity."""
        grid = (water.shape[-2], water.shape[-1])
        waves = torch.fft.rfft2(water) * _kept(grid, water)
        return torch.fft.irfft2(self._slope(waves, grid), grid)

    def _slope(self, waves: Waves, grid: tuple[int, int]) -> Waves:
        kx, ky = self.wavenumbers(grid, waves.real)
        (h, u, v), low = waves.unbind(1), _kept(grid, waves.real)
        curl = 1j * (kx * v - ky * u)
        h, u, v, curl = torch.fft.irfft2(torch.stack((h, u, v, curl), 1), grid).unbind(1)
        spin = curl + self.rotation(grid[1], u)
        head = self.wave_speed**2 * h + (u * u + v * v) / 2
        products = torch.stack((spin * v, spin * u, head, (1 + h) * u, (1 + h) * v), 1)
        fast, slow, head, east, north = (torch.fft.rfft2(products) * low).unbind(1)
        rates = (-1j * (kx * east + ky * north), fast - 1j * kx * head, -slow - 1j * ky * head)
        square = kx**2 + ky**2
        return torch.stack(rates, 1) - self.damping * (square / square.max()) ** 2 * waves

    def rotation(self, points: int, like: Tensor) -> Float[Tensor, " y"]:
        """Return the Coriolis parameter f at each y."""
        y = 2 * math.pi / points * torch.arange(points, dtype=like.dtype, device=like.device)
        return self.coriolis + self.beta * self.box[1] / (2 * math.pi) * y.sin()

    @torch.no_grad()
    def largest_step(self, water: Water) -> float:
        """Return the time step above which Runge-Kutta's method is unstable."""
        kx, ky = self.wavenumbers((water.shape[-2], water.shape[-1]), water)
        largest = float((kx**2 + ky**2).max()) ** 0.5
        speed = float(water[:, 1:].square().sum(1).max()) ** 0.5
        waves = self.wave_speed * (1 + float(water[:, 0].max())) ** 0.5
        turning = float(self.rotation(water.shape[-1], water).abs().max())
        damping = float(torch.as_tensor(self.damping).max())
        return 1 / ((largest * (speed + waves) + turning) / ADVECTION + damping / DIFFUSION)

    def _check_step(self, water: Water) -> None:
        check_finite(water, "the water", "batch, channel, x, y")
        lowest = float(water[:, 0].detach().min())
        if lowest <= -1:
            raise UserError(
                "the relative height should stay above -1, the dry ground, the smallest is "
                f"{lowest:.3g}; give the deviation from the mean over the mean"
            )
        limit = self.largest_step(water)
        if self.time_step > limit:
            raise UserError(
                f"time_step={self.time_step:g} is above the limit of {limit:.3g} of this flow on "
                "this grid, beyond which the solution may blow up; take a smaller one"
            )

    def wavenumbers(self, grid: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return k along x and along y, of half spectra; zero for modes that are truncated."""
        kx = torch.fft.fftfreq(grid[0], 1 / grid[0], dtype=like.dtype, device=like.device)[:, None]
        ky = torch.fft.rfftfreq(grid[1], 1 / grid[1], dtype=like.dtype, device=like.device)
        keep = _kept(grid, like)
        return 2 * math.pi / self.box[0] * kx * keep, 2 * math.pi / self.box[1] * ky * keep


def random_jets(
    samples: int,
    generator: torch.Generator,
    *,
    grid: tuple[int, int] = (192, 96),
    solver: ShallowWaterSolver | None = None,
    speed: float = 1.3,
    disturbance: float = 0.15,
) -> Water:
    """Draw zonal jets in balance with their height, and eddies about in balance with theirs.

    The samples are drawn one after the other: the same generator gives the same ones in batches of
    any size.

    Args:
        samples: Number of samples.
        grid: Number of points along x and y.
        generator: Source of the draws.
        solver: Plane and rotation; the Earth's unless given.
        speed: Root mean square of the jets (1000 km a day; 1.3 is 15 m/s).
        disturbance: Root mean square of the eddies, over that of the jets.

    Raises:
        UserError: the grid is not two numbers from 6, or the plane does not turn: nothing then
            balances a height.
    """
    grid = as_grid(grid, 2, least=6)
    check_positive(speed=speed)
    solver = ShallowWaterSolver() if solver is None else solver
    check_positive(coriolis=abs(solver.coriolis))
    noise = white_noise(samples, (2 * JETS + grid[0] * grid[1],), generator)
    jets = _jets(noise[:, : 2 * JETS].view(samples, 2, JETS), grid[1], solver)
    eddies = _eddies(noise[:, 2 * JETS :].view(samples, *grid), solver)
    return (speed * (jets + disturbance * eddies)).float()


def shallow_water_trajectories(
    samples: int,
    generator: torch.Generator,
    *,
    grid: tuple[int, int] = (192, 96),
    solver: ShallowWaterSolver | None = None,
    frames: int = 11,
    every: float = 2.0,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "sample time 3 x y"]:
    """Generate trajectories of height and velocity, whose first frame is at ``every``.

    Args:
        samples: Number of trajectories, computed together.
        generator: Source of the states at the start.
        grid: Number of points along x and y.
        solver: Plane and rotation; the Earth's unless given.
        frames: Number of frames.
        every: Time from one frame to the next (days).
        device: Device that computes.

    Raises:
        UserError: a number of samples, points or frames is none.
    """
    check_counts(frames=frames)
    solver = ShallowWaterSolver() if solver is None else solver
    water = random_jets(samples, generator, grid=grid, solver=solver).to(device)
    with torch.no_grad():
        return torch.stack(list(islice(solver.frames(water, every), frames)), 1)


def _jets(
    amplitudes: Float[Tensor, "sample 2 jet"], points: int, solver: ShallowWaterSolver
) -> Float[Tensor, "sample 3 1 y"]:
    """Return zonal flow of unit root mean square, and the height whose slope balances it."""
    y = 2 * math.pi / points * torch.arange(points).to(amplitudes)
    angle = torch.arange(1, JETS + 1).to(amplitudes)[:, None] * y
    waves = torch.stack((angle.cos(), angle.sin()))
    east = (amplitudes[..., None] * waves).sum((1, 2))
    east = east / east.square().mean(1, keepdim=True).sqrt()
    rotation = solver.rotation(points, east)
    # A periodic height balances only jets on which the Coriolis force has no mean.
    east = east - (rotation * east).mean(1, keepdim=True) / rotation.mean()
    slope = -torch.fft.rfft(rotation * east) / solver.wave_speed**2
    k = 2 * math.pi / solver.box[1] * torch.arange(slope.shape[1]).to(east)
    height = torch.fft.irfft(torch.where(k > 0, slope / (1j * k), 0), points)
    return torch.stack((height, east, torch.zeros_like(east)), 1)[:, :, None]


def _eddies(noise: Float[Tensor, "sample x y"], solver: ShallowWaterSolver) -> Water:
    """Return flow around the hills of a texture, of unit root mean square, and their height."""
    grid = (noise.shape[-2], noise.shape[-1])
    stream = torch.fft.rfft2(band_limited(noise, EDDIES))
    kx, ky = solver.wavenumbers(grid, noise)
    hill = stream * (solver.coriolis / solver.wave_speed**2)
    eddies = torch.fft.irfft2(torch.stack((hill, -1j * ky * stream, 1j * kx * stream), 1), grid)
    speed = eddies[:, 1:].square().sum(1, keepdim=True).mean((2, 3), keepdim=True).sqrt()
    return eddies / speed


def _kept(grid: tuple[int, int], like: Tensor) -> Float[Tensor, "x half"]:
    """Return one for the modes below a third of the points of an axis, of products not aliased."""
    kx = torch.fft.fftfreq(grid[0], 1 / grid[0], device=like.device)[:, None].abs()
    ky = torch.fft.rfftfreq(grid[1], 1 / grid[1], device=like.device)
    return ((3 * kx < grid[0]) & (3 * ky < grid[1])).to(like.dtype)
