"""Statistics of flows: sums that must be kept, known fields, boxes that are no cubes."""

import math

import pytest
import torch

from sixfold.core import UserError
from sixfold.pde.fields import statistics
from sixfold.pde.fields.modes import CUBE
from sixfold.pde.fields.spectra import band_errors, shell_power
from sixfold.pde.solvers import (
    SpectralSolver,
    abc_flow,
    filtered_turbulence,
    isotropic_field,
    mixing_layer,
    sequence,
    taylor_green_2d,
)

OBLONG = (2 * math.pi, 4 * math.pi, 3 * math.pi)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=seeded())


@pytest.mark.parametrize("sizes", [(8, 8, 8), (6, 12, 9)], ids=str)
def test_a_spectrum_has_all_the_energy_in_boxes_of_any_sides(sizes):
    u = noise(2, 3, *sizes)
    energy = u.square().sum(1).mean((1, 2, 3)) / 2
    torch.testing.assert_close(statistics.energy_spectrum(u, OBLONG).sum(1), energy)
    power = shell_power(u, OBLONG)
    torch.testing.assert_close(power.sum(1) / 2, statistics.energy_spectrum(u, OBLONG))


def test_a_shell_is_numbered_by_the_longest_side():
    y = torch.arange(16, dtype=torch.float64) * (OBLONG[1] / 16)
    wave = torch.sin(3 * 2 * math.pi / OBLONG[1] * y)[:, None].expand(8, 16, 8)
    x = torch.arange(8, dtype=torch.float64) * (OBLONG[0] / 8)
    short = torch.sin(2 * 2 * math.pi / OBLONG[0] * x)[:, None, None].expand(8, 16, 8)
    u = torch.stack((wave, short, 0 * wave))[None]
    spectrum = statistics.energy_spectrum(u, OBLONG)[0]
    expected = torch.zeros_like(spectrum)
    expected[3] = expected[4] = 0.25
    torch.testing.assert_close(spectrum, expected)


def test_errors_by_bands_are_those_of_the_modes_within():
    target = noise(2, 4, 32, 32)
    low = torch.fft.rfft2(target)
    k = torch.fft.fftfreq(32, 1 / 32)[:, None].square() + torch.fft.rfftfreq(32, 1 / 32).square()
    low = torch.fft.irfft2(low * (k.sqrt() < 4.5), (32, 32))
    errors = band_errors(low, target, (1.0, 1.0))
    assert errors.shape == (2, 4, 3)
    torch.testing.assert_close(errors, torch.tensor([0.0, 1.0, 1.0]).expand(2, 4, 3).double())
    doubled = band_errors(2 * target[:, None], target[:, None], (1.0, 2.0, 1.0), bands=(2,))
    torch.testing.assert_close(doubled, torch.ones(2, 1, 2).double())


def test_rotation_and_strain_are_told_apart():
    """The Taylor-Green vortex has Q = -(cos 2x + cos 2y) / 2: 1 at centres, -1 at saddles."""
    q = statistics.q_criterion(taylor_green_2d(8, dtype=torch.float64), CUBE)[0, :, :, 0]
    assert float(q[2, 2]) == pytest.approx(1)
    assert float(q[0, 0]) == pytest.approx(-1)
    assert float(q.mean()) == pytest.approx(0, abs=1e-12)


def test_structure_functions_of_a_wave_are_known():
    """For u = sin x, <|u(x + r) - u(x)|^2> = 1 - cos r; of three components one is not zero."""
    x = torch.arange(16, dtype=torch.float64) * (2 * math.pi / 16)
    u = torch.zeros(1, 3, 16, 16, 16, dtype=torch.float64)
    u[:, 0] = x.sin()[:, None, None]
    found = statistics.structure_functions(u, 4, orders=2)[0, :, 1]
    r = torch.arange(1, 5, dtype=torch.float64) * (2 * math.pi / 16)
    torch.testing.assert_close(found, (1 - r.cos()) / 3)


def test_densities_integrate_to_one_and_scale_with_the_reference():
    u, edges = isotropic_field(2, (16, 16, 16), seeded()), torch.linspace(-8, 8, 33)
    for found in (
        statistics.vorticity_density(u, CUBE, edges),
        statistics.increment_density(u, 2, edges),
    ):
        assert float((found * edges.diff()).sum()) == pytest.approx(1, abs=1e-4)
        center = (edges[1:] + edges[:-1]) / 2
        assert float((found * center).sum() * 0.5) == pytest.approx(0, abs=0.05)
    narrow = statistics.vorticity_density(u, CUBE, edges, vorticity_rms=100.0)
    assert float(narrow[15:17].sum() * 0.5) == pytest.approx(1)


def test_scales_of_the_abc_flow_are_known():
    """Its energy is 3/2, its curl itself, and so dissipation is 2 nu K and enstrophy K."""
    scales = statistics.turbulence_scales(abc_flow(12, dtype=torch.float64), CUBE, 0.1)
    assert float(scales.kinetic_energy) == pytest.approx(1.5)
    assert float(scales.enstrophy) == pytest.approx(1.5)
    assert float(scales.dissipation) == pytest.approx(0.3)
    assert float(scales.taylor_microscale) == pytest.approx(math.sqrt(15 * 0.1 / 0.3))
    assert float(scales.re_lambda) == pytest.approx(math.sqrt(5) / 0.1)


def test_momentum_thickness_is_that_of_the_profile():
    box = (4.0, 16.0, 4.0)
    layer = mixing_layer(1, (16, 64, 16), seeded(), box=box, thickness=0.5, disturbance=0.0)
    found = statistics.momentum_thickness(layer, height=16.0, speed=2.0)
    assert float(found) == pytest.approx(0.5, rel=0.02)


def test_filtered_turbulence_is_filtered_and_the_same_in_batches_of_any_size():
    settings = {"viscosity": 1 / 32, "dns_points": 24, "points": 12, "cutoff": 4.0, "frames": 3}
    generator = seeded()
    single = torch.cat([filtered_turbulence(1, generator, **settings) for _ in range(2)])
    batched = filtered_turbulence(2, seeded(), **settings)
    assert batched.shape == (2, 12, 12, 12, 3, 3)
    torch.testing.assert_close(single, batched, rtol=0, atol=1e-5)
    u = batched[..., 0].movedim(-1, 1)
    assert statistics.energy_spectrum(u, CUBE)[:, 5:].max() < 1e-9


def test_the_spin_up_develops_the_skewness_of_turbulence():
    solver = SpectralSolver(1 / 32, 0.02)
    start = isotropic_field(2, (32, 32, 32), seeded())
    developed = next(solver.frames(start, every=0.2))
    assert statistics.gradient_skewness(start, CUBE).abs().max() < 0.1
    skewness = statistics.gradient_skewness(developed, CUBE)
    assert bool(((skewness > -0.6) & (skewness < -0.4)).all())


def test_a_sequence_begins_with_the_given_field():
    u0 = taylor_green_2d(8)
    found = sequence(SpectralSolver(0.1, 0.05), u0, frames=3, every=0.1)
    assert found.shape == (1, 8, 8, 8, 3, 3)
    torch.testing.assert_close(found[..., 0], u0.movedim(1, -1))
    exact = taylor_green_2d(8, viscosity=0.1, time=0.2).movedim(1, -1)
    torch.testing.assert_close(found[..., 2], exact, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_model_errs_less_than_none_and_both_less_than_persistence():
    """Filtered turbulence of 32^3 on 16^3: 30 frames of 0.02, relative L2."""
    true = filtered_turbulence(4, seeded(), viscosity=1 / 32, frames=31)
    u0 = true[..., 0].movedim(-1, 1)

    def error(frames: torch.Tensor) -> float:
        wrong = (frames - true)[..., 1:].flatten(1).norm(dim=1)
        return float((wrong / true[..., 1:].flatten(1).norm(dim=1)).mean())

    none, smagorinsky, dynamic = (
        error(sequence(SpectralSolver(1 / 32, 0.02, model=model), u0, 31, 0.02))
        for model in ("none", "smagorinsky", "dynamic")
    )
    assert max(smagorinsky, dynamic) < none < 0.7 * error(true[..., :1].expand_as(true))


def test_a_finer_grid_is_no_coarser_one():
    with pytest.raises(
        UserError, match=r"\(8, 8, 8\) points has no more .* \(8, 8, 9\) were asked"
    ):
        statistics.coarsen(noise(1, 3, 8, 8, 8), (8, 8, 9))
