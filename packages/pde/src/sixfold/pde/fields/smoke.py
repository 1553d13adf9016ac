"""Incompressible flow with buoyant smoke in two dimensions (INS), as PDEArena's data are made.

J. Gupta and J. Brandstetter, "Towards multi-spatiotemporal-scale generalized PDE modeling",
TMLR 2023. arXiv:2209.15616

    ds/dt + u . grad s = 0,  du/dt + u . grad u = -grad p + nu lap u + b s e_y,  div u = 0

Marker-and-cell grid: smoke at the centres of the cells, u on the faces that bound them along x, v
on those along y. A step is semi-Lagrangian, then buoyancy, explicit diffusion, exact projection.
In the closed box, walls have velocity zero; whatever lies outside the faces within the box counts
as zero, smoke as that of the nearest cell. On the periodic grid, which PDEArena lacks, buoyancy is
that of the smoke less its mean: a mean pressure gradient holds the mean against the fall.

Gradients go through a step with respect to state, viscosity and buoyancy.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, grid_sample, pad

from sixfold.core import UserError
from sixfold.pde.fields.stepping import (
    as_box,
    check_choice,
    check_finite,
    check_one_or_each,
    check_positive,
    check_precision,
    check_viscosity,
    steps_between,
)

Boundary = Literal["closed", "periodic"]
Cells = Float[Tensor, "batch x y"]


class Smoke(NamedTuple):
    """State of the flow.

    Args:
        smoke: Amount of smoke in each cell.
        u: Velocity along x on the face toward lower x of each cell; zero on the wall.
        v: Velocity along y on the face toward lower y of each cell; zero on the wall.
    """

    smoke: Cells
    u: Cells
    v: Cells

    def frame(self) -> Float[Tensor, "batch 3 x y"]:
        """Return the channels that PDEArena stores: smoke, u, v."""
        return torch.stack(self, 1)


@dataclass(frozen=True)
class SmokeSolver:
    """Solver of the smoke equations; the defaults are those of PDEArena's data.

    Args:
        box: Lengths along x and y.
        boundary: Walls all around, or a periodic box.
        viscosity: Kinematic viscosity (nu).
        buoyancy: Acceleration along y per unit of smoke (b), one for all samples or one each.
        time_step: Length of a step (dt).
    """

    box: tuple[float, float] = (32.0, 32.0)
    boundary: Boundary = "closed"
    viscosity: float | Tensor = 0.01
    buoyancy: float | Tensor = 0.5
    time_step: float = 1.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "box", as_box(self.box, 2))  # the way of a frozen dataclass
        check_positive(time_step=self.time_step)
        check_viscosity(self.viscosity)
        check_choice("boundary", self.boundary, get_args(Boundary))

    def frames(self, state: Smoke, every: float) -> Iterator[Smoke]:
        """Yield the state at ``every``, twice that, and so on, without end.

        Args:
            state: State at time zero.
            every: Time from one frame to the next, a multiple of the time step.

        Raises:
            UserError: the state is not finite or not batched, diffusion is unstable at this time
                step, or ``every`` is no multiple of it.
        """
        steps = steps_between(every, self.time_step)
        self._check(state)
        return self._frames(state, steps)

    def _frames(self, state: Smoke, steps: int) -> Iterator[Smoke]:
        while True:
            for _ in range(steps):
                state = self.step(state)
            yield state

    def step(self, state: Smoke) -> Smoke:
        """Take one time step."""
        smoke = self.transported(state)
        return Smoke(smoke, *self.projected(*self.diffused(*self.forced(state, smoke))))

    def transported(self, state: Smoke) -> Cells:
        """Return the smoke of a step later: that from where each cell's air came."""
        u, v = ((w + self._next(w, axis)) / 2 for axis, w in enumerate(state[1:]))
        return self._sample(state.smoke, u, v, "border")

    def forced(self, state: Smoke, smoke: Cells) -> tuple[Cells, Cells]:
        """Return the velocity after transport by itself and the lift of the transported smoke."""
        _, u, v = state
        u_there, v_there = self._four(u, 0), self._four(v, 1)
        if self.boundary == "periodic":
            smoke = smoke - smoke.mean((1, 2), keepdim=True)
        lift = torch.as_tensor(self.buoyancy, dtype=v.dtype, device=v.device).view(-1, 1, 1)
        moved_u, moved_v = (
            self._sample(u, u, v_there, "zeros"),
            self._sample(v, u_there, v, "zeros"),
        )
        moved_v = moved_v + self.time_step * lift * (smoke + self._previous(smoke, 1)) / 2
        return self._walled(moved_u, 0), self._walled(moved_v, 1)

    def diffused(self, u: Cells, v: Cells) -> tuple[Cells, Cells]:
        """Add the time step's explicit diffusion."""
        (hx, hy), amount = self._sides(u), self.time_step * self.viscosity
        stencil = u.new_tensor([[0, 1 / hx**2, 0], [1 / hy**2, 0, 1 / hy**2], [0, 1 / hx**2, 0]])
        middle = u.new_zeros(3, 3)
        middle[1, 1] = 1
        kernel = middle + amount * (stencil - stencil.sum() * middle)
        ring = "circular" if self.boundary == "periodic" else "constant"
        u, v = (
            conv2d(pad(w[:, None], (1, 1, 1, 1), ring), kernel[None, None])[:, 0] for w in (u, v)
        )
        return self._walled(u, 0), self._walled(v, 1)

    def projected(self, u: Cells, v: Cells) -> tuple[Cells, Cells]:
        """Subtract the gradient that leaves no divergence, exactly: Poisson's modes are known.

        Single precision is projected in double: pressure is larger than velocity by the number of
        cells, and so would be its rounding.
        """
        hx, hy = self._sides(u)
        (modes_x, values_x), (modes_y, values_y) = (
            _laplacian_modes(n, self.boundary, u.device) for n in u.shape[-2:]
        )
        values = values_x[:, None] / hx**2 + values_y / hy**2
        source = modes_x @ self.divergence(u, v).double() @ modes_y.T
        source = source / torch.where(values < 0, values, torch.inf)  # the mean is free
        pressure = modes_x.T @ source @ modes_y
        u, v = (
            self._walled(w - ((pressure - self._previous(pressure, axis)) / h).to(w.dtype), axis)
            for axis, (w, h) in enumerate(((u, hx), (v, hy)))
        )
        return u, v

    def divergence(self, u: Cells, v: Cells) -> Cells:
        """Return the divergence of each cell, per unit of time."""
        hx, hy = self._sides(u)
        return (self._next(u, 0) - u) / hx + (self._next(v, 1) - v) / hy

    def at_rest(self, smoke: Cells) -> Smoke:
        """Return the state of smoke in air at rest."""
        return Smoke(smoke, torch.zeros_like(smoke), torch.zeros_like(smoke))

    def _sides(self, field: Tensor) -> tuple[float, float]:
        """Return the sides of a cell."""
        return self.box[0] / field.shape[-2], self.box[1] / field.shape[-1]

    def _sample(
        self, field: Cells, u: Cells, v: Cells, outside: Literal["border", "zeros"]
    ) -> Cells:
        """Sample a field, bilinearly, a step upstream of its places; u and v are there."""
        if self.boundary == "periodic":
            field, outside = pad(field[:, None], (0, 1, 0, 1), "circular")[:, 0], "border"
        # grid_sample counts each axis from -1 to 1, and the last axis first
        places = [self._upstream(w, axis, field.shape[1 + axis]) for axis, w in enumerate((u, v))]
        grid = torch.stack(places[::-1], -1)
        return grid_sample(field[:, None], grid, "bilinear", outside, align_corners=True)[:, 0]

    def _upstream(self, speed: Cells, axis: int, points: int) -> Cells:
        """Return where the air was a step before, from -1 to 1 at the first and last of points."""
        unit, n = 2 / (points - 1), speed.shape[1 + axis]
        line = unit * torch.arange(n, dtype=speed.dtype, device=speed.device) - 1
        line = line[:, None] if axis == 0 else line
        move = unit * self.time_step / self._sides(speed)[axis]
        place = torch.sub(line, speed, alpha=move)
        return (place + 1).remainder(2) - 1 if self.boundary == "periodic" else place

    def _four(self, w: Cells, axis: int) -> Cells:
        """Average the velocity along ``axis`` over the four faces around one of the other axis."""
        pair = w + self._next(w, axis)
        return (pair + self._previous(pair, 1 - axis)) / 4

    def _next(self, w: Cells, axis: int) -> Cells:
        """Return the values one cell up an axis; beyond a wall they are zero."""
        return self._neighbour(w, axis, 1)

    def _previous(self, w: Cells, axis: int) -> Cells:
        """Return the values one cell down an axis; beyond a wall they are zero."""
        return self._neighbour(w, axis, -1)

    def _neighbour(self, w: Cells, axis: int, offset: Literal[1, -1]) -> Cells:
        shifted = w.roll(-offset, axis + 1)
        if self.boundary == "closed":
            shifted.select(axis + 1, -1 if offset == 1 else 0).zero_()
        return shifted

    def _walled(self, w: Cells, axis: int) -> Cells:
        """Set the velocity on the lower wall to zero, in place; the upper wall is not stored."""
        if self.boundary == "closed":
            w.select(axis + 1, 0).zero_()
        return w

    def _check(self, state: Smoke) -> None:
        shapes = {tuple(field.shape) for field in state}
        if len(shapes) != 1 or state.smoke.ndim != 3 or min(state.smoke.shape[1:]) < 4:
            raise UserError(
                f"smoke, u and v should have one shape (batch, x, y) of 4 or more cells a side, "
                f"got {', '.join(str(tuple(f.shape)) for f in state)}; add the axis of samples"
            )
        check_one_or_each(self.buoyancy, "buoyancy", len(state.smoke))
        for name, field in zip(Smoke._fields, state, strict=True):
            check_precision(field, name)
            check_finite(field, name, "batch, x, y")
            if field.dtype != state.smoke.dtype:
                raise UserError(
                    f"{name} is in {field.dtype}, smoke in {state.smoke.dtype}; convert one of them"
                )
        limit = 1 / (2 * sum(1 / side**2 for side in self._sides(state.smoke)))
        largest = float(torch.as_tensor(self.viscosity).detach().max())
        if largest * self.time_step > limit:
            raise UserError(
                f"explicit diffusion blows up at time_step={self.time_step:g}: with viscosity "
                f"{largest:g} on this grid the limit is {limit / largest:.3g}"
            )


@lru_cache(maxsize=16)
def _laplacian_modes(n: int, boundary: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the orthonormal modes (mode, cell) of the second difference, and their eigenvalues.

    Between walls, where pressure has no gradient, they are cosines; else pairs of cosine and sine.
    """
    with torch.inference_mode(False):  # or no later training could use them
        mode, cell = torch.arange(n, dtype=torch.float64), torch.arange(n, dtype=torch.float64)
        if boundary == "closed":
            angle = math.pi / n * mode
            modes = torch.cos(angle[:, None] * (cell + 0.5))
        else:
            angle = 2 * math.pi / n * ((mode + 1) / 2).floor()
            sine = ((mode % 2 == 0) & (mode > 0)).double()
            modes = torch.cos(angle[:, None] * cell - math.pi / 2 * sine[:, None])
        modes = modes / torch.linalg.vector_norm(modes, dim=1, keepdim=True)
        return modes.to(device), (2 * angle.cos() - 2).to(device)
