"""Compressible flow: Sod's tube, the isentropic vortex, conservation, batches, gradients."""

import math

import pytest
import torch
from torch import Tensor

from sixfold.core import UserError
from sixfold.pde.fields.moments import moments
from sixfold.pde.solvers import (
    CompressibleSolver,
    compressible_state,
    compressible_trajectories,
)

AIR = {"gamma": 1.4, "shear_viscosity": 0.0, "bulk_viscosity": 0.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sod_tube(n: int, axis: int) -> Tensor:
    """Return two tubes on a periodic axis of length 2: their walls burst at 0.5 and 1.5."""
    place = (torch.arange(2 * n, dtype=torch.float64) + 0.5) / n
    full = (place < 0.5) | (place > 1.5)
    gas = torch.zeros(1, 4, 2 * n, 4, dtype=torch.float64)
    gas[0, 0] = torch.where(full, 1.0, 0.125)[:, None]
    gas[0, 1] = torch.where(full, 1.0, 0.1)[:, None]
    return gas if axis == 0 else gas.transpose(2, 3)


def vortex(n: int, time: float = 0.0) -> Tensor:
    """Return the isentropic vortex, carried by a wind of (1, 1) on a square of side 10."""
    line = (torch.arange(n, dtype=torch.float64) + 0.5) * 10 / n
    offset = (line - 5 - time + 5) % 10 - 5
    x, y = torch.meshgrid(offset, offset, indexing="ij")
    square, strength = x**2 + y**2, 5.0
    swirl = strength / (2 * math.pi) * torch.exp((1 - square) / 2)
    heat = 1 - 0.4 * strength**2 / (8 * 1.4 * math.pi**2) * torch.exp(1 - square)
    density = heat**2.5
    return torch.stack((density, density * heat, 1 - swirl * y, 1 + swirl * x))[None]


@pytest.mark.parametrize("axis", [0, 1], ids=["x", "y"])
def test_sod_s_tube_has_the_exact_states_and_speeds(axis):
    """Toro, table 4.3: pressure 0.30313, speed 0.92745, densities 0.42632 and 0.26557."""
    n, time = 200, 0.2
    box = (2.0, 0.04) if axis == 0 else (0.04, 2.0)
    gas = next(CompressibleSolver(box, **AIR).frames(sod_tube(n, axis), every=time))
    gas = gas[0, :, :, 0] if axis == 0 else gas[0, :, 0]
    star = torch.tensor([0.42632, 0.30313], dtype=torch.float64)
    before = gas[:, int((0.5 + 0.5 * 0.92745 * time) * n)]
    torch.testing.assert_close(before[:2], star, rtol=3e-3, atol=0)
    assert float(before[2 + axis]) == pytest.approx(0.92745, rel=3e-3)
    behind = gas[:, int((0.5 + 1.35 * time) * n)]
    assert float(behind[0]) == pytest.approx(0.26557, rel=3e-3)
    assert float(behind[1]) == pytest.approx(0.30313, rel=3e-3)
    shock = int((gas[1] - 0.2)[n // 2 : n].abs().argmin()) + n // 2
    assert (shock + 0.5) / n - 0.5 == pytest.approx(1.75216 * time, abs=2 / n)
    assert not gas[3 - axis].any()


def test_errors_of_the_isentropic_vortex_fall_with_the_square_of_the_cell():
    solver = CompressibleSolver((10.0, 10.0), **AIR)
    coarse, fine = (
        (next(solver.frames(vortex(n), every=1.0)) - vortex(n, 1.0)).abs().mean() for n in (32, 64)
    )
    assert 3.2 < float(coarse / fine) < 6
    assert fine < 1e-3


def test_mass_momentum_and_energy_stay():
    solver, gas = CompressibleSolver(), compressible_state(2, (16, 24), seeded()).double()
    later = next(solver.frames(gas, every=0.02))
    sums = [solver.conserved(state).sum((2, 3)) for state in (gas, later)]
    torch.testing.assert_close(sums[1], sums[0], rtol=1e-12, atol=1e-9)
    assert (later - gas).abs().max() > 0.01


def test_viscosity_damps_a_shear_wave_at_the_known_rate():
    """The wave v(x) decays by exp(-eta k^2 t / rho), and shear's work heats the gas."""
    x = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
    wave = 0.01 * torch.sin(2 * math.pi * x)[:, None].expand(64, 4)
    gas = torch.stack((2 + 0 * wave, 1 + 0 * wave, 0 * wave, wave))[None]
    solver = CompressibleSolver((1.0, 1 / 16), shear_viscosity=0.05)
    later = next(solver.frames(gas, every=0.2))
    rate = 0.05 * (2 * math.pi) ** 2 / 2
    torch.testing.assert_close(later[:, 3], wave[None] * math.exp(-rate * 0.2), rtol=0, atol=2e-5)
    assert later[:, 1].mean() > 1


def test_the_axes_are_alike():
    gas = compressible_state(1, (16, 16), seeded()).double()
    turned = gas.transpose(2, 3)[:, [0, 1, 3, 2]]
    one, other = (next(CompressibleSolver().frames(g, every=0.02)) for g in (gas, turned))
    torch.testing.assert_close(one, other.transpose(2, 3)[:, [0, 1, 3, 2]])


def test_a_batch_is_as_its_samples_and_seeds_as_any_batch():
    settings = {"grid": (16, 16), "frames": 3, "every": 0.01}
    generator = seeded()
    single = torch.cat([compressible_trajectories(1, generator, **settings) for _ in range(3)])
    batched = compressible_trajectories(3, seeded(), **settings)
    assert batched.shape == (3, 3, 4, 16, 16)
    torch.testing.assert_close(single, batched, rtol=1e-5, atol=1e-5)
    kept = compressible_trajectories(1, seeded(), keep=4, **settings)
    torch.testing.assert_close(kept, batched[:1, ..., ::4, ::4], rtol=1e-5, atol=1e-5)


def test_the_first_states_are_those_of_the_data():
    gas = compressible_state(64, (32, 32), seeded()).double()
    assert gas[:, :2].min() > 0
    mach = gas[:, 2:].square().sum(1).sqrt() / (5 / 3 * gas[:, 1] / gas[:, 0]).sqrt()
    whole = mach.mean((1, 2))[mach[:, 0, 0] > 1e-3]  # without a window
    assert 10 < len(whole) < 54
    torch.testing.assert_close(whole, torch.full_like(whole, 0.1), rtol=0.1, atol=0)
    windowed = gas[mach[:, 0, 0] < 1e-3]
    assert windowed[:, 2:, 0].abs().max() < 1e-3


def test_gradients_reach_state_and_viscosity():
    gas = compressible_state(1, (6, 6), seeded(3)).double().requires_grad_()
    viscosity = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)

    def solve(gas: Tensor, viscosity: Tensor) -> Tensor:
        solver = CompressibleSolver(shear_viscosity=viscosity)
        dt = torch.full((1, 1, 1, 1), 0.005, dtype=torch.float64)
        return solver.primitive(solver.step(solver.conserved(gas), dt))

    assert torch.autograd.gradcheck(solve, (gas, viscosity), fast_mode=True)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_explained():
    gas = torch.ones(1, 4, 8, 8)
    solver = CompressibleSolver()
    with pytest.raises(UserError, match=r"viscosity should not be negative, got -1"):
        CompressibleSolver(shear_viscosity=-1.0)
    with pytest.raises(UserError, match=r"courant at most 0.5.*courant=0.9"):
        CompressibleSolver(courant=0.9)
    with pytest.raises(UserError, match=r"got \(1, 3, 8, 8\)"):
        solver.frames(gas[:, :3], every=0.1)
    gas[0, 1, 2, 3] = -2
    with pytest.raises(UserError, match=r"pressure should be positive everywhere.* is -2"):
        solver.frames(gas, every=0.1)
    gas[0, 0, 2, 3] = torch.nan
    with pytest.raises(UserError, match=r"the gas holds 1 values .* first at \(0, 0, 2, 3\)"):
        solver.frames(gas, every=0.1)


@pytest.mark.slow
def test_the_states_have_the_mean_and_deviation_of_the_official_data():
    """Within three standard errors of 24 trajectories, on a coarse grid."""
    fields = compressible_trajectories(24, seeded(), grid=(32, 32), frames=6, every=0.2)
    found = moments(fields)
    mean = torch.tensor([5.0413975716, 25.0861053467, -3.756e-5, 1.138e-5])
    deviation = torch.tensor([2.9829258919, 21.7112350464, 0.1635208875, 0.1634908617])
    assert bool(((found.mean - mean).abs() <= 3 * found.mean_error).all()), found
    assert bool(((found.deviation - deviation).abs() <= 3 * found.deviation_error).all()), found
