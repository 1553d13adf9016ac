"""The smoke solver: no divergence in single precision, gradients, symmetries, bad input."""

import pytest
import torch

from sixfold.core import UserError
from sixfold.pde.solvers import Smoke, SmokeSolver, smoke_noise, smoke_trajectories

BOUNDARIES = pytest.mark.parametrize("boundary", ["closed", "periodic"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def after(solver: SmokeSolver, state: Smoke, steps: int) -> Smoke:
    for _ in range(steps):
        state = solver.step(state)
    return state


@BOUNDARIES
@pytest.mark.parametrize("grid", [(48, 32), (33, 17)], ids=str)
@pytest.mark.parametrize("box", [(32.0, 32.0), (32.0, 8.0)], ids=["square", "oblong"])
def test_single_precision_leaves_no_divergence(boundary, box, grid):
    """PDEArena's generator fails here (pdearena issue 46): its solver refuses its own tolerance."""
    solver = SmokeSolver(box=box, boundary=boundary)
    state = solver.at_rest(smoke_noise(2, grid, seeded(), box=box))
    for _ in range(10):
        state = solver.step(state)
        residual = solver.divergence(state.u, state.v).abs().max() * min(
            box[0] / grid[0], box[1] / grid[1]
        )
        assert residual <= 1e-5 * max(state.u.abs().max(), state.v.abs().max())
    assert state.v.std() > 0.1


@BOUNDARIES
def test_a_batch_is_as_its_samples_and_seeds_as_any_batch(boundary):
    solver, generator = SmokeSolver(boundary=boundary, box=(16.0, 16.0)), seeded()
    settings = {"grid": (16, 16), "solver": solver, "skip": 1, "steps": 4, "keep": 2}
    single = torch.cat([smoke_trajectories(1, generator, **settings) for _ in range(3)])
    batched = smoke_trajectories(3, seeded(), **settings)
    assert batched.shape == (3, 2, 3, 16, 16)
    torch.testing.assert_close(single, batched, rtol=0, atol=1e-5)


@BOUNDARIES
def test_gradients_reach_the_state_viscosity_and_buoyancy(boundary):
    smoke, *velocity = torch.rand(3, 1, 5, 6, dtype=torch.float64, generator=seeded())
    viscosity, buoyancy = torch.tensor([0.01, 0.5], dtype=torch.float64)
    leaves = [x.requires_grad_() for x in (smoke, *velocity, viscosity, buoyancy)]

    def solve(smoke, u, v, viscosity, buoyancy):
        solver = SmokeSolver((5.0, 6.0), boundary, viscosity, buoyancy, time_step=0.3)
        return after(solver, Smoke(smoke, *solver.projected(u, v)), 2)

    assert torch.autograd.gradcheck(solve, leaves)


def test_the_periodic_flow_does_not_care_where_the_origin_is():
    solver = SmokeSolver(box=(16.0, 16.0), boundary="periodic")
    state = solver.at_rest(smoke_noise(1, (16, 16), seeded(), box=solver.box).double())
    moved = Smoke(*(field.roll((3, -5), (1, 2)) for field in state))
    for one, other in zip(after(solver, state, 5), after(solver, moved, 5), strict=True):
        torch.testing.assert_close(one.roll((3, -5), (1, 2)), other)


def test_the_closed_box_is_symmetric_about_its_middle_and_its_walls_stand():
    solver = SmokeSolver(box=(16.0, 16.0))
    smoke = smoke_noise(1, (16, 16), seeded(), box=solver.box).double()
    state = after(solver, solver.at_rest(smoke), 5)
    mirrored = after(solver, solver.at_rest(smoke.flip(1)), 5)
    torch.testing.assert_close(state.smoke.flip(1), mirrored.smoke)
    torch.testing.assert_close(state.u[:, 1:].flip(1), -mirrored.u[:, 1:])
    assert not state.u[:, 0].any()
    assert not state.v[:, :, 0].any()


def test_air_rises_where_smoke_is_and_smoke_stays_without_buoyancy():
    solver = SmokeSolver(box=(16.0, 16.0))
    puff = torch.zeros(2, 16, 16)
    puff[:, 6:10, 4:8] = 1
    lifted = SmokeSolver(box=(16.0, 16.0), buoyancy=torch.tensor([0.0, 0.5]))
    still, rising = lifted.step(lifted.at_rest(puff)).v
    assert not still.any()
    assert rising[7, 6] > 0.1
    torch.testing.assert_close(rising, solver.step(solver.at_rest(puff)).v[1])


def test_frames_are_as_far_apart_as_asked():
    solver = SmokeSolver(box=(16.0, 16.0))
    state = solver.at_rest(smoke_noise(1, (16, 16), seeded(), box=solver.box))
    frames = solver.frames(state, every=3.0)
    next(frames)
    torch.testing.assert_close(next(frames), after(solver, state, 4))


def test_bad_input_is_explained():
    solver = SmokeSolver(box=(4.0, 4.0))
    good = torch.zeros(1, 8, 8)
    with pytest.raises(UserError, match="viscosity should not be negative, got -1"):
        SmokeSolver(viscosity=-1.0)
    with pytest.raises(UserError, match=r"box should be 2 positive lengths, .* got \(32.0, 0.0\)"):
        SmokeSolver(box=(32.0, 0.0))
    with pytest.raises(UserError, match=r"every 2 are no whole number of time steps of 1.5"):
        solver.frames(solver.at_rest(good), every=2.0)
    with pytest.raises(UserError, match=r"got \(8, 8\).*add the axis of samples"):
        solver.frames(Smoke(*good.expand(3, 8, 8)), every=1.5)
    with pytest.raises(UserError, match=r"the limit is 0.0625"):
        SmokeSolver(box=(4.0, 4.0), viscosity=1.0).frames(solver.at_rest(good), every=1.5)
    good[0, 2, 3] = torch.nan
    with pytest.raises(UserError, match=r"smoke holds 1 values .* first at \(0, 2, 3\)"):
        solver.frames(solver.at_rest(good), every=1.5)


def test_an_unknown_boundary_is_refused(unchecked):
    with pytest.raises(UserError, match="no boundary 'open'; it has: closed, periodic"):
        SmokeSolver(boundary="open")  # type: ignore[arg-type]
