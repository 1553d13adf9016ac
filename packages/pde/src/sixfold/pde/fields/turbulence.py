"""Pseudo-spectral solver of incompressible flow on periodic boxes: DNS, and LES with a model.

    du/dt = P[ D(u x curl u) - div tau + f ] + nu lap u,  div u = 0

in rotational form, with D the two-thirds truncation, P the projection on fields without divergence
and tau the model's stress (`sixfold.pde.fields.closures`). Steps are classical Runge-Kutta's of
fourth order; every stage is projected exactly. This is the right-hand side of LESnets' residual.

The state is the spectrum of the velocity between steps: a right-hand side takes 9 real transforms,
21 with Smagorinsky's model. Modes of alternating signs, Nyquist's, stay empty. Energy is conserved
but for viscosity and model if a flow starts in the modes that D keeps, as `isotropic_field` does:
D truncates products, not the velocity.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.data.tensors import as_tensor
from sixfold.kernels import (
    curl_hat,
    dealias_mask,
    div_hat,
    grad_hat,
    irfft3,
    project_div_free,
    rfft3,
    wavenumbers,
)
from sixfold.pde.fields.checks import check_divergence, check_velocity
from sixfold.pde.fields.closures import (
    ROWS,
    Symmetric,
    dynamic_coefficient,
    magnitude,
    strain_components,
)
from sixfold.pde.fields.modes import CUBE, Box, low_modes, shell_energy, shells
from sixfold.pde.fields.stepping import (
    ADVECTION,
    DIFFUSION,
    as_box,
    check_choice,
    check_finite,
    check_positive,
    check_precision,
    check_viscosity,
    runge_kutta,
    steps_between,
)

Velocity = Float[Tensor, "batch 3 x y z"]
Spectrum = Float[Tensor, "batch 3 x y half 2"]
Model = Literal["none", "smagorinsky", "dynamic"]
HELD = (1, 2)  # shells whose energy forcing holds


@dataclass(frozen=True)
class SpectralSolver:
    """Solver of incompressible flow on a periodic box of any number of points a side.

    Args:
        viscosity: Kinematic viscosity (nu).
        time_step: Length of a step (dt).
        box: Lengths along x, y and z.
        model: Model of the stress; none is direct numerical simulation, or an implicit LES.
        smagorinsky: Squared Smagorinsky constant (Cs2), where the model is Smagorinsky's.
        filter_width: Filter width (Delta); by default the longest side of a cell.
        average: Homogeneous axes, over which the dynamic model averages: (0, 2) in a layer.
        force: Acceleration of the fluid (f), steady, (3, x, y, z) or one for each sample.
        hold_shells: Whether the energy of shells 1 and 2 is kept as it was at the start.
    """

    viscosity: float | Tensor
    time_step: float
    box: Box = CUBE
    model: Model = "none"
    smagorinsky: float | Tensor = 0.01
    filter_width: float | None = None
    average: tuple[int, ...] = (0, 1, 2)
    force: Tensor | None = None
    hold_shells: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "box", as_box(self.box, 3))  # the way of a frozen dataclass
        check_positive(time_step=self.time_step)
        check_viscosity(self.viscosity)
        check_viscosity(self.smagorinsky, "smagorinsky")
        check_choice("model", self.model, get_args(Model))
        if self.filter_width is not None:
            check_positive(filter_width=self.filter_width)
        if not self.average or not {*self.average} <= {0, 1, 2}:
            raise UserError(
                f"average should name axes among 0, 1 and 2, got {self.average}; (0, 2) in a layer"
            )

    def frames(self, u0: Any, every: float) -> Iterator[Velocity]:
        """Yield the velocity at ``every``, twice that, and so on, without end.

        Args:
            u0: Velocity at time zero (batch, 3, x, y, z), a tensor or an array.
            every: Time from one frame to the next, a multiple of the time step.

        Raises:
            UserError: the velocity is not finite, not batched, or has a divergence; the box does
                not match the grid; the time step is above the limit, or no part of ``every``.
        """
        steps = steps_between(every, self.time_step)
        u0 = as_tensor(u0, "u0")
        self._check_start(u0)
        self._check_step(u0)
        return self._frames(u0, steps)

    def _frames(self, u0: Velocity, steps: int) -> Iterator[Velocity]:
        z = u0.shape[-1]
        spectrum = self._projected(u0)
        energy = shell_energy(spectrum, z, self.box) if self.hold_shells else None
        while True:
            for _ in range(steps):
                spectrum = runge_kutta(partial(self.slope, z=z), spectrum, self.time_step)
                if energy is not None:
                    spectrum = self._held(spectrum, z, energy)
            velocity = irfft3(spectrum, z)
            self._check_step(velocity)
            yield velocity

    def projected(self, velocity: Velocity) -> Velocity:
        """Return what is left of a velocity without its divergence and its Nyquist modes."""
        check_velocity(velocity)
        return irfft3(self._projected(velocity), velocity.shape[-1])

    def _projected(self, velocity: Velocity) -> Spectrum:
        sizes = velocity.shape[-3:]
        hat = rfft3(velocity) * low_modes(sizes, 2, velocity)
        return project_div_free(hat, wavenumbers(sizes, self.box, velocity))

    def right_hand_side(self, velocity: Velocity) -> Velocity:
        """Return du/dt of a velocity without divergence."""
        check_velocity(velocity)
        z = velocity.shape[-1]
        return irfft3(self.slope(rfft3(velocity), z), z)

    def slope(self, spectrum: Spectrum, z: int) -> Spectrum:
        """Return du/dt in Fourier space, of fields of ``z`` points on the last axis."""
        sizes = (*spectrum.shape[2:4], z)
        k, low = wavenumbers(sizes, self.box, spectrum), dealias_mask(sizes, spectrum)
        if self.model == "none":
            fields = irfft3(torch.cat((spectrum, curl_hat(spectrum, k)), 1), z)
            forces = rfft3(_cross(fields[:, :3], fields[:, 3:])) * low
        else:
            forces = self._filtered_forces(spectrum, z, k, low)
        if self.force is not None:
            forces = forces + rfft3(self.force.expand(len(spectrum), -1, -1, -1, -1))
        damping = self.viscosity * k.square().sum(0)
        return torch.addcmul(project_div_free(forces, k), damping, spectrum, value=-1)

    def _filtered_forces(self, spectrum: Spectrum, z: int, k: Tensor, low: Tensor) -> Spectrum:
        """Return the forces of inertia and of the model's stress."""
        fields = irfft3(torch.cat((spectrum[:, None], grad_hat(spectrum, k)), 1), z)
        velocity, gradient = fields[:, 0], fields[:, 1:]  # gradient[:, j, i] = d_j u_i
        strain = strain_components(gradient)
        stress = -2 * self._eddy_viscosity(velocity, strain) * strain
        inertia = rfft3(_cross(velocity, _curl(gradient))) * low
        kept = low_modes((*k.shape[1:3], z), 2, k)
        return inertia - div_hat(rfft3(stress)[:, ROWS], k) * kept

    def eddy_viscosity(self, velocity: Velocity) -> Float[Tensor, "batch 1 x y z"]:
        """Return the viscosity that the model adds; its stress is -2 times it times the strain."""
        check_velocity(velocity)
        k = wavenumbers(velocity.shape[-3:], self.box, velocity)
        gradient = irfft3(grad_hat(rfft3(velocity), k), velocity.shape[-1])
        return self._eddy_viscosity(velocity, strain_components(gradient))

    def _eddy_viscosity(self, velocity: Velocity, strain: Symmetric) -> Tensor:
        cell = max(length / n for length, n in zip(self.box, velocity.shape[-3:], strict=True))
        width = cell if self.filter_width is None else self.filter_width
        coefficient = {"none": 0.0, "smagorinsky": self.smagorinsky}.get(self.model)
        if coefficient is None:
            coefficient = dynamic_coefficient(velocity, strain, width, self.average)
        return coefficient * width**2 * magnitude(strain)

    @torch.no_grad()
    def largest_step(self, velocity: Velocity) -> float:
        """Return the time step above which Runge-Kutta's method is unstable.

        The shortest wave that is advected turns at most at its wavenumber times the largest speed;
        diffusion, with the model's, damps the shortest wave of all.
        """
        check_velocity(velocity)
        sizes = velocity.shape[-3:]
        cells = [2 * math.pi / length for length in self.box]
        advected = max(n // 3 * k for n, k in zip(sizes, cells, strict=True))
        shortest = sum(((n - 1) // 2 * k) ** 2 for n, k in zip(sizes, cells, strict=True))
        viscosity = float(torch.as_tensor(self.viscosity).max())
        if self.model != "none":
            viscosity += float(self.eddy_viscosity(velocity).max())
        speed = float(velocity.square().sum(1).max()) ** 0.5
        return 1 / max(advected * speed / ADVECTION + shortest * viscosity / DIFFUSION, 1e-30)

    def _held(self, spectrum: Spectrum, z: int, energy: Float[Tensor, "batch shell"]) -> Spectrum:
        """Scale the shells that forcing holds to the energy that they had."""
        now, first, last = shell_energy(spectrum, z, self.box), HELD[0], HELD[-1] + 1
        factor = torch.ones_like(now)
        factor[:, first:last] = (energy / now.clamp(min=1e-30))[:, first:last].sqrt()
        shell = shells((*spectrum.shape[2:4], z), self.box).to(spectrum.device)
        return spectrum * factor[:, shell][:, None, ..., None]

    def _check_start(self, velocity: Tensor) -> None:
        wrong = velocity.ndim != 5 or velocity.shape[1] != 3 or not len(velocity)
        if wrong or min(velocity.shape[-3:]) < 4:
            raise UserError(
                "u0 should be (batch, 3, x, y, z), the components before space, with 4 or more "
                f"points a side, got {tuple(velocity.shape)}; move the axes"
            )
        check_precision(velocity, "u0")
        check_finite(velocity, "u0", "batch, component, x, y, z")
        force = self.force
        one, each = velocity.shape[1:], velocity.shape
        if force is not None and tuple(force.shape) not in (one, (1, *one), each):
            raise UserError(
                f"the force should be (3, x, y, z) on the grid of u0, {tuple(one)}, "
                f"or one for each sample, got {tuple(force.shape)}; sample it on that grid"
            )
        check_divergence(velocity.detach().movedim(1, -1), self.box, "u0")

    def _check_step(self, velocity: Velocity) -> None:
        check_finite(velocity, "the velocity", "batch, component, x, y, z")
        limit = self.largest_step(velocity)
        if self.time_step > limit:
            raise UserError(
                f"time_step={self.time_step:g} is above the limit of {limit:.3g} of this flow on "
                "this grid, beyond which the solution may blow up; take a smaller one"
            )


def _curl(gradient: Float[Tensor, "batch 3 3 x y z"]) -> Velocity:
    """Return the curl of a velocity by its gradient [:, j, i] = d_j u_i."""
    g = gradient
    parts = (g[:, 1, 2] - g[:, 2, 1], g[:, 2, 0] - g[:, 0, 2], g[:, 0, 1] - g[:, 1, 0])
    return torch.stack(parts, 1)


def _cross(a: Velocity, b: Velocity) -> Velocity:
    """Return a x b; torch.linalg.cross goes by single values."""
    (ax, ay, az), (bx, by, bz) = a.unbind(1), b.unbind(1)
    return torch.stack((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx), 1)
