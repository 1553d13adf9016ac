"""The spectral solver: exact flows, budgets, order, gradients, the equations of the residual."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from sixfold.core import UserError
from sixfold.kernels import div_hat, irfft3, les_residual, rfft3, wavenumbers
from sixfold.pde.fields import statistics
from sixfold.pde.fields.modes import CUBE, low_modes
from sixfold.pde.solvers import (
    LAYER_BOX,
    SpectralSolver,
    abc_flow,
    isotropic_field,
    mixing_layer,
    taylor_green_2d,
    taylor_green_3d,
)

MODELS = pytest.mark.parametrize("model", ["none", "smagorinsky", "dynamic"])
OBLONG = (2 * math.pi, 3 * math.pi, 4 * math.pi)


def turbulence(n: int, samples: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return isotropic_field(samples, (n, n, n), generator, dtype=torch.float64)


def frame(solver: SpectralSolver, u0: Tensor, time: float) -> Tensor:
    return next(solver.frames(u0, every=time))


def energy(u: Tensor) -> Tensor:
    return u.square().sum(1).mean((1, 2, 3)) / 2


def divergence(u: Tensor, box=CUBE) -> Tensor:
    return irfft3(div_hat(rfft3(u), wavenumbers(u.shape[-3:], box, u)), u.shape[-1])


def test_taylor_green_in_two_dimensions_decays_exactly():
    solver = SpectralSolver(0.1, 0.05)
    u0 = taylor_green_2d(8, dtype=torch.float64)
    for number, u in enumerate(itertools.islice(solver.frames(u0, every=0.1), 3), start=1):
        exact = taylor_green_2d(8, viscosity=0.1, time=0.1 * number, dtype=torch.float64)
        torch.testing.assert_close(u, exact, rtol=0, atol=1e-11)


def test_taylor_green_in_three_dimensions_starts_with_the_known_dissipation():
    nu, step = 1 / 64, 1e-3
    u0 = taylor_green_3d(12, dtype=torch.float64)
    slope = (energy(frame(SpectralSolver(nu, step), u0, step)) - energy(u0)) / step
    assert float(energy(u0)) == pytest.approx(1 / 8)
    assert float(slope) == pytest.approx(-2 * nu * 3 / 8, rel=1e-3)


def test_the_abc_flow_is_steady_but_for_viscosity():
    u0 = abc_flow(8, dtype=torch.float64)
    torch.testing.assert_close(SpectralSolver(0.3, 0.1).right_hand_side(u0), -0.3 * u0)


@pytest.mark.parametrize(
    "box", [CUBE, (2 * math.pi, 3 * math.pi, 4 * math.pi)], ids=["cube", "box"]
)
@pytest.mark.parametrize("smagorinsky", [0.0, 0.01])
def test_the_equations_are_those_of_the_residual(smagorinsky, box):
    generator = torch.Generator().manual_seed(0)
    u = isotropic_field(1, (8, 10, 9), generator, box=box, dtype=torch.float64)
    still = u[:, :, None].expand(-1, -1, 3, -1, -1, -1).contiguous()
    expected = -les_residual(still, 1.0, 0.05, smagorinsky, 0.4, box)[0][:, :, 0]
    kept = irfft3(rfft3(expected) * low_modes(u.shape[-3:], 2, u), u.shape[-1])
    solver = SpectralSolver(
        0.05, 0.1, box, "smagorinsky", smagorinsky=smagorinsky, filter_width=0.4
    )
    torch.testing.assert_close(solver.right_hand_side(u), kept)
    if smagorinsky == 0:
        torch.testing.assert_close(SpectralSolver(0.05, 0.1, box).right_hand_side(u), expected)


@MODELS
def test_energy_goes_where_viscosity_and_the_model_say(model):
    """dK/dt = -2 nu <S:S> - 2 <nu_t S:S>, and the model takes energy everywhere."""
    solver, u = SpectralSolver(1 / 32, 0.01, model=model), turbulence(16, samples=2)
    square = statistics.strain_magnitude(statistics.strain(u, CUBE)).square()[:, None]  # 2 S:S
    eddy = solver.eddy_viscosity(u)
    assert bool((eddy >= 0).all())
    expected = -((1 / 32 + eddy) * square).mean((1, 2, 3, 4))
    found = (u * solver.right_hand_side(u)).sum(1).mean((1, 2, 3))
    torch.testing.assert_close(found, expected)
    assert bool((eddy.mean() > 0) == (model != "none"))


def test_without_viscosity_energy_and_momentum_stay():
    u0 = turbulence(12) + torch.tensor([0.5, 0.0, -0.2]).view(3, 1, 1, 1)
    u = frame(SpectralSolver(0.0, 0.01), u0, 0.2)
    torch.testing.assert_close(energy(u), energy(u0), rtol=1e-5, atol=0)
    torch.testing.assert_close(u.mean((2, 3, 4)), u0.mean((2, 3, 4)))
    assert (u - u0).abs().max() > 0.1


@MODELS
def test_errors_fall_with_the_fourth_power_of_the_step(model):
    u0 = frame(SpectralSolver(1 / 16, 0.05), turbulence(12), 0.3)  # developed, as models assume
    best, one, half = (
        frame(SpectralSolver(1 / 16, step, model=model), u0, 0.2) for step in (0.005, 0.05, 0.025)
    )
    ratio = (one - best).norm() / (half - best).norm()
    assert 10 < float(ratio) < 25


@MODELS
def test_frames_have_no_divergence_and_a_batch_is_as_its_samples(model):
    solver, u0 = SpectralSolver(1 / 32, 0.02, model=model), turbulence(12, samples=3).float()
    u = frame(solver, u0, 0.1)
    assert divergence(u).abs().max() < 1e-4
    single = torch.cat([frame(solver, one[None], 0.1) for one in u0])
    torch.testing.assert_close(single, u, rtol=0, atol=1e-5)


def test_forcing_holds_the_energy_of_the_large_shells():
    u0 = turbulence(16)
    held = frame(SpectralSolver(1 / 8, 0.02, hold_shells=True), u0, 0.2)
    free = frame(SpectralSolver(1 / 8, 0.02), u0, 0.2)
    before, after, decayed = (statistics.energy_spectrum(u, CUBE)[0] for u in (u0, held, free))
    torch.testing.assert_close(after[1:3], before[1:3])
    assert decayed[2] < before[2]
    assert after[3] < before[3]


def test_a_force_keeps_a_flow_against_viscosity():
    u0 = abc_flow(8, dtype=torch.float64)
    solver = SpectralSolver(0.2, 0.05, force=0.2 * u0[0])
    torch.testing.assert_close(frame(solver, u0, 0.5), u0)


@pytest.mark.parametrize("model", ["none", "smagorinsky"])
def test_gradients_reach_field_viscosity_force_and_coefficient(model):
    u0, force = turbulence(6, samples=2, seed=1).split(1)
    leaves = [u0, force[0], *torch.tensor([0.1, 0.02], dtype=torch.float64)]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]

    def solve(u0, force, viscosity, smagorinsky):
        solver = SpectralSolver(viscosity, 0.05, model=model, smagorinsky=smagorinsky, force=force)
        return frame(solver, solver.projected(u0), 0.1)

    if model == "none":
        leaves[3] = leaves[3].detach()
    assert torch.autograd.gradcheck(solve, leaves, fast_mode=True)


def test_gradients_at_zero_strain_are_finite():
    u0 = torch.ones(1, 3, 6, 6, 6, requires_grad=True)
    frame(SpectralSolver(0.1, 0.01, model="smagorinsky"), u0, 0.01).sum().backward()
    assert u0.grad is not None
    assert bool(u0.grad.isfinite().all())


def test_the_dynamic_coefficient_does_not_change_with_the_scale_of_velocity():
    solver, u = SpectralSolver(0.0, 0.01, model="dynamic"), turbulence(16)
    torch.testing.assert_close(solver.eddy_viscosity(3 * u), 3 * solver.eddy_viscosity(u))
    layer = SpectralSolver(0.0, 0.01, model="dynamic", average=(0, 2))
    eddy, strain = layer.eddy_viscosity(u), statistics.strain_magnitude(statistics.strain(u, CUBE))
    ratio = eddy[:, 0] / strain
    assert ratio.std((1, 3)).max() < 1e-9
    assert ratio.std() > 1e-5


def test_a_mixing_layer_has_its_thickness_and_spreads():
    generator = torch.Generator().manual_seed(0)
    u0 = mixing_layer(1, (16, 64, 16), generator, box=(6.0, 12.0, 6.0), thickness=0.4)
    assert divergence(u0, (6.0, 12.0, 6.0)).abs().max() < 1e-4
    before = statistics.momentum_thickness(u0, height=12.0, speed=2.0)
    assert float(before) == pytest.approx(0.4, rel=0.15)
    solver = SpectralSolver(0.02, 0.02, (6.0, 12.0, 6.0))
    assert statistics.momentum_thickness(frame(solver, u0, 1.0), height=12.0, speed=2.0) > before


def test_an_initial_field_has_the_spectrum_that_was_asked_for():
    u = isotropic_field(
        2, (16, 16, 16), torch.Generator().manual_seed(0), spectrum=lambda k: k**-1.0, u_rms=2.0
    )
    spectrum = statistics.energy_spectrum(u, CUBE)
    shells = torch.arange(1, spectrum.shape[1])
    expected = 1 / shells * (spectrum[0, 1:] > 1e-9)
    expected = expected * (1.5 * 4 / expected.sum())
    torch.testing.assert_close(spectrum[:, 1:], expected.expand(2, -1), rtol=1e-4, atol=1e-6)
    assert divergence(u).abs().max() < 1e-4


@pytest.mark.parametrize("draw", [isotropic_field, mixing_layer])
def test_initial_fields_are_the_same_in_batches_of_any_size(draw):
    generator = torch.Generator().manual_seed(0)
    single = torch.cat([draw(1, (8, 12, 8), generator) for _ in range(3)])
    batched = draw(3, (8, 12, 8), torch.Generator().manual_seed(0))
    torch.testing.assert_close(single, batched)


def test_a_time_step_above_the_limit_names_the_limit():
    u0 = turbulence(16)
    limit = SpectralSolver(1 / 64, 1.0).largest_step(u0)
    with pytest.raises(UserError, match=f"time_step=0.5 is above the limit of {limit:.3g}"):
        frame(SpectralSolver(1 / 64, 0.5), u0, 0.5)
    assert bool(frame(SpectralSolver(1 / 64, limit), u0, 10 * limit).isfinite().all())


def test_bad_input_is_explained():
    solver, u0 = SpectralSolver(1 / 64, 0.01), turbulence(8)
    with pytest.raises(UserError, match=r"viscosity should not be negative, got -0.1"):
        SpectralSolver(-0.1, 0.01)
    with pytest.raises(UserError, match="box should be 3 positive lengths"):
        SpectralSolver(0.1, 0.01, (*CUBE[:2], math.nan))
    for every in (0.0, -0.01, math.nan, math.inf):
        with pytest.raises(UserError, match=rf"every.* {every}"):
            solver.frames(u0, every=every)
    with pytest.raises(UserError, match="time_step should be positive, got 0"):
        SpectralSolver(0.1, 0.0)
    with pytest.raises(UserError, match=r"components in the order \(1, 2, 0\) have none"):
        solver.frames(turbulence(8)[:, [2, 0, 1]], every=0.01)
    with pytest.raises(UserError, match=r"does not match the grid \(8, 8, 8\)"):
        SpectralSolver(1 / 64, 0.01, (*LAYER_BOX[:2], 1.0)).frames(u0, every=0.01)
    with pytest.raises(UserError, match=r"no whole number of time steps of 0.01"):
        solver.frames(u0, every=0.015)
    with pytest.raises(
        UserError, match=r"single or double precision, got torch.float16.*float\(\)"
    ):
        solver.frames(u0.half(), every=0.01)
    with pytest.raises(UserError, match=r"the force should be .* got \(3, 4, 4, 4\)"):
        SpectralSolver(1 / 64, 0.01, force=torch.zeros(3, 4, 4, 4)).frames(u0, every=0.01)
    u0[0, 1, 2, 3, 4] = torch.inf
    with pytest.raises(UserError, match=r"u0 holds 1 values .* first at \(0, 1, 2, 3, 4\)"):
        solver.frames(u0, every=0.01)


def test_unknown_models_and_flat_boxes_are_refused(unchecked):
    with pytest.raises(UserError, match="no model 'smagorinski'; did you mean 'smagorinsky'"):
        SpectralSolver(0.1, 0.01, model="smagorinski")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="box should be 3 positive lengths"):
        SpectralSolver(0.1, 0.01, CUBE[:2])  # type: ignore[arg-type]
