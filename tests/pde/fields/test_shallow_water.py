"""Shallow water on the plane: balance, waves, conservation, order, batches, bad input."""

import math

import pytest
import torch
from torch import Tensor

from sixfold.core import UserError
from sixfold.pde.solvers import ShallowWaterSolver, random_jets, shallow_water_trajectories

GRID = (16, 16)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def jets(solver: ShallowWaterSolver, samples: int = 1, **settings) -> Tensor:
    return random_jets(samples, seeded(), grid=GRID, solver=solver, **settings).double()


def energy(water: Tensor, wave_speed: float) -> Tensor:
    height, velocity = 1 + water[:, 0], water[:, 1:]
    kinetic = height * velocity.square().sum(1) / 2
    return (kinetic + wave_speed**2 * water[:, 0].square() / 2).mean((1, 2))


def test_jets_in_balance_stay():
    """Of zonal flow all products cancel: pressure holds the Coriolis force, wherever beta is."""
    solver = ShallowWaterSolver(damping=0.0)
    wide = random_jets(1, seeded(), grid=(8, 32), solver=solver, disturbance=0.0).double()
    rate = solver.right_hand_side(wide)
    assert rate.abs().max() < 1e-4 * (solver.coriolis * wide[:, 1].abs().max())


def test_a_gravity_wave_returns_after_its_period():
    """Omega^2 = f^2 + c^2 k^2, the dispersion of Poincare's waves."""
    period = 2 * math.pi / math.hypot(8.9, 25 * 2 * math.pi / 20)
    solver = ShallowWaterSolver(period / 200, (20.0, 20.0), beta=0.0, damping=0.0)
    x = torch.arange(16, dtype=torch.float64)[:, None].expand(GRID) * (2 * math.pi / 16)
    omega, k = 2 * math.pi / period, 2 * math.pi / 20
    wave = torch.stack((x.cos(), omega / k * x.cos(), solver.coriolis / k * x.sin()))[None] * 1e-7
    half, whole = (next(solver.frames(wave, every=period * part)) for part in (0.5, 1.0))
    torch.testing.assert_close(whole, wave, rtol=0, atol=1e-11)
    torch.testing.assert_close(half, -wave, rtol=0, atol=1e-11)


def test_mass_and_energy_stay_without_damping():
    solver = ShallowWaterSolver(0.005, damping=0.0)
    water = next(solver.frames(jets(solver, samples=2), every=0.005))  # of the modes that it keeps
    later = next(solver.frames(water, every=0.5))
    torch.testing.assert_close(later[:, 0].mean((1, 2)), water[:, 0].mean((1, 2)))
    torch.testing.assert_close(energy(later, 25.0), energy(water, 25.0), rtol=2e-4, atol=0)
    damped = next(ShallowWaterSolver(0.005).frames(water, every=0.5))
    assert bool((energy(damped, 25.0) < energy(later, 25.0)).all())
    assert (later - water).abs().max() > 0.05


def test_errors_fall_with_the_fourth_power_of_the_step():
    water = jets(ShallowWaterSolver())
    best, one, half = (
        next(ShallowWaterSolver(step).frames(water, every=0.16)) for step in (0.002, 0.016, 0.008)
    )
    assert 12 < float((one - best).norm() / (half - best).norm()) < 20


def test_a_batch_is_as_its_samples_and_seeds_as_any_batch():
    settings = {"grid": GRID, "frames": 2, "every": 0.1, "solver": ShallowWaterSolver(0.01)}
    generator = seeded()
    single = torch.cat([shallow_water_trajectories(1, generator, **settings) for _ in range(3)])
    batched = shallow_water_trajectories(3, seeded(), **settings)
    assert batched.shape == (3, 2, 3, *GRID)
    torch.testing.assert_close(single, batched, rtol=1e-4, atol=1e-5)


def test_jets_have_the_speed_asked_for_and_eddies():
    water = random_jets(8, seeded(), grid=(64, 32), speed=2.0, disturbance=0.2)
    speed = water[:, 1:].square().sum(1).mean((1, 2)).sqrt()
    assert 1.5 < float(speed.mean()) < 2.5
    assert 0.1 < float(water[:, 2].std()) < 0.4
    assert water[:, 0].mean().abs() < 1e-6


def test_gradients_reach_state_and_damping():
    water = jets(ShallowWaterSolver())[..., ::2, ::2].clone().requires_grad_()
    damping = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda w, d: next(ShallowWaterSolver(0.01, damping=d).frames(w, every=0.02)),
        (water, damping),
        fast_mode=True,
    )


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_explained():
    solver, water = ShallowWaterSolver(0.1), torch.zeros(1, 3, 16, 16)
    limit = solver.largest_step(water)
    with pytest.raises(UserError, match=f"time_step=0.1 is above the limit of {limit:.3g}"):
        solver.frames(water, every=0.1)
    with pytest.raises(UserError, match=r"should not be negative, got -1"):
        ShallowWaterSolver(damping=-1.0)
    with pytest.raises(UserError, match=r"got \(1, 2, 16, 16\)"):
        solver.frames(water[:, :2], every=0.1)
    water[0, 0, 1, 1] = -1.5
    with pytest.raises(UserError, match=r"should stay above -1, .* the smallest is -1.5"):
        solver.frames(water, every=0.1)
