"""Compressible flow of an ideal gas on a periodic plane (CNS), by finite volumes of second order.

    d rho/dt + div(rho u) = 0,  d(rho u)/dt + div(rho u u) = -grad p + div sigma,
    dE/dt + div((E + p) u) = div(u sigma),  E = p / (gamma - 1) + rho |u|^2 / 2
    sigma = eta (grad u + (grad u)^T - 2/3 div u) + zeta div u

Linear reconstruction of density, pressure and velocity with van Leer's limiter, a predictor of half
a step, HLLC fluxes between the predicted states on each side of a face (E. F. Toro, "Riemann
solvers and numerical methods for fluid dynamics", chapters 10 and 14). Mass, momentum and energy
are conserved to rounding. Each sample takes steps of its own length, so a batch is as its samples.

The data follow PDEBench's (M. Takamoto et al., NeurIPS 2022, arXiv:2210.07182).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.pde.fields.noise import uniform_numbers
from sixfold.pde.fields.stepping import (
    as_box,
    as_grid,
    check_counts,
    check_finite,
    check_positive,
    check_precision,
    check_viscosity,
)

Gas = Float[Tensor, "batch 4 x y"]  # density, pressure, velocity along x and along y
Conserved = Float[Tensor, "batch 4 x y"]  # mass, energy, momentum along x and y, per unit of area
Steps = Float[Tensor, "batch 1 1 1"]
FLOOR = 1e-4  # of pressure and density
MODES = 4  # waves per period in the initial state, along each axis


@dataclass(frozen=True)
class CompressibleSolver:
    """Solver of compressible flow on a periodic plane; the defaults are those of the data.

    Args:
        box: Lengths along x and y.
        gamma: Ratio of specific heats.
        shear_viscosity: Dynamic viscosity (eta).
        bulk_viscosity: Viscosity of compression (zeta).
        courant: Fraction of a cell that the fastest wave crosses in a step.
    """

    box: tuple[float, float] = (1.0, 1.0)
    gamma: float = 5 / 3
    shear_viscosity: float | Tensor = 1e-8
    bulk_viscosity: float | Tensor = 1e-8
    courant: float = 0.3

    def __post_init__(self) -> None:
        object.__setattr__(self, "box", as_box(self.box, 2))  # the way of a frozen dataclass
        check_positive(courant=self.courant)
        check_viscosity(self.shear_viscosity, "shear_viscosity")
        check_viscosity(self.bulk_viscosity, "bulk_viscosity")
        if not (self.gamma > 1 and self.courant <= 0.5):
            raise UserError(
                f"gamma should be above 1 and courant at most 0.5, the limit of stability; got "
                f"gamma={self.gamma:g} and courant={self.courant:g}"
            )

    def frames(self, gas: Gas, every: float) -> Iterator[Gas]:
        """Yield density, pressure and velocity at ``every``, twice that, and so on, without end.

        Args:
            gas: State at time zero.
            every: Time from one frame to the next; steps are as long as stability allows.

        Raises:
            UserError: the state is not finite, not positive, or not four channels.
        """
        check_positive(every=every)
        _check(gas)
        return self._frames(self.conserved(gas), every)

    def _frames(self, state: Conserved, every: float) -> Iterator[Gas]:
        while True:
            left = state.new_full((len(state), 1, 1, 1), every)
            while bool((left > 0).any()):
                dt = torch.minimum(left, self.largest_step(self.primitive(state)))
                state, left = self.step(state, dt), left - dt
            frame = self.primitive(state)
            check_finite(frame, "the gas", "batch, channel, x, y")
            yield frame

    def conserved(self, gas: Gas) -> Conserved:
        """Return mass, energy and momentum of density, pressure and velocity."""
        density, pressure, velocity = gas[:, :1], gas[:, 1:2], gas[:, 2:]
        kinetic = density * velocity.square().sum(1, keepdim=True) / 2
        return torch.cat((density, pressure / (self.gamma - 1) + kinetic, density * velocity), 1)

    def primitive(self, state: Conserved) -> Gas:
        """Return density, pressure (no less than the floor) and velocity."""
        density = state[:, :1].clamp(min=FLOOR)
        velocity = state[:, 2:] / density
        kinetic = density * velocity.square().sum(1, keepdim=True) / 2
        pressure = (self.gamma - 1) * (state[:, 1:2] - kinetic)
        return torch.cat((density, pressure.clamp(min=FLOOR), velocity), 1)

    @torch.no_grad()
    def largest_step(self, gas: Gas) -> Steps:
        """Return each sample's step: a fraction of a cell for its fastest wave, and diffusion's."""
        sides = self._sides(gas)
        speed = gas[:, 2:].abs() + self._sound(gas)[:, None]
        rate = torch.maximum(speed[:, 0] / sides[0], speed[:, 1] / sides[1])
        viscosity = 4 / 3 * self.shear_viscosity + self.bulk_viscosity
        spread = 2 * viscosity / gas[:, 0] * sum(1 / side**2 for side in sides)
        return 1 / torch.maximum(rate / self.courant, spread).amax((1, 2))[:, None, None, None]

    def step(self, state: Conserved, dt: Steps) -> Conserved:
        """Take one step, of a length for each sample."""
        gas, sides = self.primitive(state), self._sides(state)
        slopes = [_limited(gas, axis) for axis in (2, 3)]
        half = gas + dt / 2 * self._change(gas, slopes)
        half = torch.cat((half[:, :2].clamp(min=FLOOR), half[:, 2:]), 1)
        for axis, slope, side in zip((2, 3), slopes, sides, strict=True):
            low, high = half + slope / 2, (half - slope / 2).roll(-1, axis)
            flux = self._riemann_flux(low, high, axis) - self._viscous_flux(half, axis)
            state = state - dt / side * (flux - flux.roll(1, axis))
        return state

    def _change(self, gas: Gas, slopes: list[Gas]) -> Gas:
        """Return d/dt of density, pressure and velocity in smooth flow without viscosity."""
        (hx, hy), (density, pressure, u, v) = self._sides(gas), gas.unbind(1)
        dx, dy = slopes[0] / hx, slopes[1] / hy
        divergence = dx[:, 2] + dy[:, 3]
        carried = u[:, None] * dx + v[:, None] * dy
        forces = (density * divergence, self.gamma * pressure * divergence)
        return -carried - torch.stack((*forces, dx[:, 1] / density, dy[:, 1] / density), 1)

    def _riemann_flux(self, low: Gas, high: Gas, axis: int) -> Conserved:
        """Return the HLLC flux through faces, by the states on their lower and higher side."""
        a, b = (state[:, axis] for state in (low, high))  # channel 2 is the velocity along axis 2
        sound_a, sound_b = self._sound(low), self._sound(high)
        slowest = torch.minimum(a - sound_a, b - sound_b)
        fastest = torch.maximum(a + sound_a, b + sound_b)
        mass_a, mass_b = low[:, 0] * (slowest - a), high[:, 0] * (fastest - b)
        contact = (high[:, 1] - low[:, 1] + a * mass_a - b * mass_b) / (mass_a - mass_b)
        # The face lies on one side of the contact; that side's outer wave bounds the star region.
        below = (contact >= 0)[:, None]
        gas = torch.where(below, low, high)
        outer = torch.where(below, slowest[:, None], fastest[:, None])
        reached = torch.where(below, slowest[:, None].clamp(max=0), fastest[:, None].clamp(min=0))
        return self._flux(gas, axis) + reached * self._jump(gas, outer, contact[:, None], axis)

    def _flux(self, gas: Gas, axis: int) -> Conserved:
        """Return the flux of a state along an axis."""
        state, speed, pressure = self.conserved(gas), gas[:, axis : axis + 1], gas[:, 1:2]
        work = pressure * speed
        push = torch.cat((pressure, 0 * pressure) if axis == 2 else (0 * pressure, pressure), 1)
        return state * speed + torch.cat((torch.zeros_like(work), work, push), 1)

    def _jump(self, gas: Gas, outer: Tensor, contact: Tensor, axis: int) -> Conserved:
        """Return the conserved state between the outer wave and the contact, less that outside."""
        density, pressure, speed = gas[:, :1], gas[:, 1:2], gas[:, axis : axis + 1]
        state = self.conserved(gas)
        mass = density * (outer - speed) / (outer - contact)
        inner = (contact - speed) * (contact + pressure / (density * (outer - speed)))
        energy = mass * (state[:, 1:2] / density + inner)
        across = gas[:, 5 - axis : 6 - axis]
        momentum = (contact, across) if axis == 2 else (across, contact)
        return torch.cat((mass, energy, mass * torch.cat(momentum, 1)), 1) - state

    def _viscous_flux(self, gas: Gas, axis: int) -> Conserved:
        """Return what viscosity carries through faces: momentum, and the work on it."""
        velocity, sides, other = gas[:, 2:], self._sides(gas), 5 - axis
        along = (velocity.roll(-1, axis) - velocity) / sides[axis - 2]
        across = (velocity.roll(-1, other) - velocity.roll(1, other)) / (2 * sides[other - 2])
        across = (across + across.roll(-1, axis)) / 2
        divergence = along[:, axis - 2] + across[:, other - 2]
        pull = (2 * along[:, axis - 2] - 2 / 3 * divergence) * self.shear_viscosity
        pull = pull + self.bulk_viscosity * divergence
        shear = self.shear_viscosity * (along[:, other - 2] + across[:, axis - 2])
        stress = torch.stack((pull, shear) if axis == 2 else (shear, pull), 1)
        work = (stress * (velocity + velocity.roll(-1, axis)) / 2).sum(1, keepdim=True)
        return torch.cat((torch.zeros_like(work), work, stress), 1)

    def _sound(self, gas: Gas) -> Float[Tensor, "batch x y"]:
        return (self.gamma * gas[:, 1] / gas[:, 0]).sqrt()

    def _sides(self, gas: Tensor) -> tuple[float, float]:
        return self.box[0] / gas.shape[2], self.box[1] / gas.shape[3]


def compressible_state(
    samples: int, grid: tuple[int, int], generator: torch.Generator, gamma: float = 5 / 3
) -> Gas:
    """Draw states of the unit square at the start: waves at Mach 0.1, half of them in a window.

    Density and temperature of a sample are uniform from 0.1 to 10, waves of up to four periods of
    random phases disturb density, pressure and velocity. The samples are drawn one after the
    other: the same generator gives the same ones in batches of any size.

    Args:
        samples: Number of samples.
        grid: Number of cells along x and y.
        generator: Source of the draws.
        gamma: Ratio of specific heats.

    Raises:
        UserError: the grid is not two numbers, or another number not positive.
    """
    grid = as_grid(grid, 2)
    check_positive(gamma=gamma)
    numbers = uniform_numbers(samples, 9 + 4 * (2 * MODES) ** 2, generator)
    phases = 2 * math.pi * numbers[:, 9:].view(samples, 4, 2 * MODES, 2 * MODES)
    waves = _waves(grid, phases)
    density, temperature = (0.1 + 9.9 * numbers[:, :2, None, None]).unbind(1)
    background = torch.stack((density, density * temperature), 1)
    scale = 0.01 + 0.19 * numbers[:, 2:4, None, None]
    relative = waves[:, :2] / waves[:, :2].abs().mean((2, 3), keepdim=True)
    speed = waves[:, 2:].square().sum(1, keepdim=True).sqrt().mean((2, 3), keepdim=True)
    wanted = 0.1 * (gamma * temperature[:, None]).sqrt()
    velocity = waves[:, 2:] * (wanted / speed)
    gas = torch.cat(((background * (1 + scale * relative)).clamp(min=FLOOR), velocity), 1)
    rest = torch.cat((background, torch.zeros_like(background)), 1).expand_as(gas)
    window = torch.where(numbers[:, 4, None, None] < 0.5, _window(grid, numbers[:, 5:9]), 1.0)
    return torch.lerp(rest, gas, window[:, None]).float()


def compressible_trajectories(
    samples: int,
    generator: torch.Generator,
    *,
    grid: tuple[int, int] = (128, 128),
    frames: int = 21,
    every: float = 0.05,
    keep: int = 1,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "sample time 4 x y"]:
    """Generate trajectories of density, pressure and velocity, the first frame at time zero.

    Args:
        samples: Number of trajectories, computed together.
        generator: Source of the states at the start.
        grid: Number of cells along x and y.
        frames: Number of frames.
        every: Time from one frame to the next.
        keep: Number of cells along each axis of which one is kept; the published data have 512
            cells a side and keep every fourth.
        device: Device that computes.

    Raises:
        UserError: a number of samples, cells or frames is none.
    """
    check_counts(frames=frames, keep=keep)
    solver = CompressibleSolver()
    gas = compressible_state(samples, grid, generator).to(device)
    found = [gas[..., ::keep, ::keep]]
    with torch.no_grad():
        states = solver.frames(gas, every)
        found += [next(states)[..., ::keep, ::keep] for _ in range(frames - 1)]
    return torch.stack(found, 1)


def _limited(gas: Gas, axis: int) -> Gas:
    """Return van Leer's slope per cell: the harmonic mean of both differences, zero at peaks."""
    up = gas.roll(-1, axis) - gas
    down = up.roll(1, axis)
    product = up * down
    same = product > 0
    return torch.where(same, 2 * product / torch.where(same, up + down, 1), 0)


def _waves(grid: tuple[int, int], phases: Float[Tensor, "sample 4 i j"]) -> Gas:
    """Sum |k|^(-1/2) sin(k . x + phase) over all waves with one to four periods on both axes."""
    numbers = [n for n in range(-MODES, MODES + 1) if n != 0]
    mode = torch.tensor(numbers, dtype=phases.dtype, device=phases.device)
    amplitude = (2 * math.pi * (mode[:, None] ** 2 + mode**2).sqrt()) ** -0.5
    x, y = ((torch.arange(n).to(phases) + 0.5) / n for n in grid)
    along_x, along_y = (torch.exp(2j * math.pi * mode[:, None] * line) for line in (x, y))
    return (along_x.T @ (amplitude * torch.exp(1j * phases)) @ along_y).imag


def _window(grid: tuple[int, int], edges: Float[Tensor, "sample 4"]) -> Float[Tensor, "sample x y"]:
    """Return one between two edges along each axis, else zero, with steps of width 0.01."""
    profiles = []
    for axis, n in enumerate(grid):
        place = (torch.arange(n).to(edges) + 0.5) / n
        low = 0.1 + 0.35 * edges[:, 2 * axis, None]
        high = 0.55 + 0.35 * edges[:, 2 * axis + 1, None]
        profiles.append((((place - low) / 0.01).tanh() - ((place - high) / 0.01).tanh()) / 2)
    return profiles[0][:, :, None] * profiles[1][:, None]


def _check(gas: Tensor) -> None:
    if gas.ndim != 4 or gas.shape[1] != 4 or min(gas.shape[2:]) < 4 or not len(gas):
        raise UserError(
            "the gas should be (batch, 4, x, y), the channels density, pressure and velocity along "
            f"x and y, with 4 or more cells a side, got {tuple(gas.shape)}; move the axes"
        )
    check_precision(gas, "the gas")
    check_finite(gas, "the gas", "batch, channel, x, y")
    for channel, name in enumerate(("density", "pressure")):
        smallest = float(gas[:, channel].detach().min())
        if smallest <= 0:
            raise UserError(
                f"{name} should be positive everywhere, the smallest is {smallest:g}; channel "
                f"{channel} is {name}: check the order of the channels"
            )
