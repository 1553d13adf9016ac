import math

import pytest
import torch

from sixfold.core import UserError
from sixfold.wireless.iq.estimators import (
    averaged_lmmse,
    bilinear,
    lmmse,
    robust_statistics,
    tdl_statistics,
)
from sixfold.wireless.iq.ofdm import Grid, Pilots, noise_variance, observe
from sixfold.wireless.iq.tdl import TDL

GRID = Grid(subcarriers=24)
PILOTS = Pilots(subcarriers=tuple(range(1, 24, 3)))
CHANNEL = TDL("A", GRID, dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(channel: TDL, count: int, doppler_hz: float, noise: float, seed: int = 0):
    h = channel(count, delay_spread_s=1e-7, max_doppler_hz=doppler_hz, generator=generator(seed))
    variance = torch.full((count,), noise, dtype=torch.float64)
    return h, observe(h, PILOTS, variance, generator=generator(seed + 1))


def mse(estimate: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """Return the mean squared error and its standard error over samples."""
    each = (estimate - truth).abs().square().mean((1, 2))
    return each.mean().item(), each.std().item() / math.sqrt(len(each))


def test_interpolation_is_exact_on_planes_also_outside_the_pilots():
    k, t = torch.arange(24.0).double()[:, None], torch.arange(14.0).double()
    plane = torch.complex(2 * k - t + 3, k * t)[None]
    torch.testing.assert_close(bilinear(PILOTS.pick(plane), PILOTS, GRID), plane)


def test_one_pilot_symbol_holds_for_the_whole_slot():
    pilots = Pilots(subcarriers=(0, 23), symbols=(5,))
    still = torch.arange(24.0).double()[:, None].expand(24, 14).to(torch.complex128)[None]
    torch.testing.assert_close(bilinear(pilots.pick(still), pilots, GRID), still)


@pytest.mark.parametrize("doppler_hz", [50.0, 600.0])
@pytest.mark.parametrize("profile", ["A", "D"])
def test_the_error_is_the_one_expected_and_no_smaller(profile, doppler_hz):
    """On independent fading; a smaller error would be a leak."""
    channel = TDL(profile, GRID, dtype=torch.float64)
    best = lmmse(tdl_statistics(channel, 1e-7, doppler_hz), PILOTS, 0.01)
    h, estimates = draw(channel, 500, doppler_hz, 0.01)
    found, error = mse(best(estimates), h)
    assert abs(found - best.mse.item()) < 4 * error


def test_other_estimators_are_above_the_bound():
    h, estimates = draw(CHANNEL, 600, 200.0, 0.01)
    train, train_estimates = draw(CHANNEL, 2000, 200.0, 0.01, seed=5)
    bound = lmmse(tdl_statistics(CHANNEL, 1e-7, 200.0), PILOTS, 0.01)
    learned = averaged_lmmse(train, train_estimates, 0.01)
    official = averaged_lmmse(train, train_estimates, 0.01, double_noise=True)
    best, error = mse(bound(estimates), h)
    others = {
        "bilinear": bilinear(estimates, PILOTS, GRID),
        "learned": learned(estimates),
        "official": official(estimates),
    }
    found = {name: mse(estimate, h)[0] for name, estimate in others.items()}
    assert all(value > best - 4 * error for value in found.values()), found
    assert found["learned"] < 1.1 * best
    assert found["learned"] < found["official"] < found["bilinear"]


def test_the_robust_estimator_is_good_at_the_doppler_that_it_presumes():
    h, estimates = draw(CHANNEL, 400, 600.0, 0.01)
    bound = lmmse(tdl_statistics(CHANNEL, 1e-7, 600.0), PILOTS, 0.01).mse.item()
    robust, _ = mse(lmmse(robust_statistics(GRID, 600.0), PILOTS, 0.01)(estimates), h)
    interpolated, _ = mse(bilinear(estimates, PILOTS, GRID), h)
    assert bound < robust < 1.2 * bound < interpolated


@pytest.mark.parametrize("doppler_hz", [50.0, 200.0, 600.0, 1000.0])
def test_parts_on_their_own_lose_at_most_a_few_decibels(doppler_hz):
    statistics = tdl_statistics(CHANNEL, 1e-7, doppler_hz)
    genie = lmmse(statistics, PILOTS, 0.005)
    parts = lmmse(statistics, PILOTS, 0.005, real_part=True)
    assert parts.weights.imag.abs().max() < 1e-12
    assert 0 <= 10 * (parts.mse / genie.mse).log10() < 1.4
    h, estimates = draw(CHANNEL, 500, doppler_hz, 0.005)
    found, error = mse(parts(estimates), h)
    assert abs(found - parts.mse.item()) < 4 * error


def test_a_batch_of_statistics_makes_an_estimator_per_sample():
    doppler = torch.tensor([50.0, 500.0], dtype=torch.float64)
    noise = torch.tensor([0.1, 0.01], dtype=torch.float64)
    together = lmmse(tdl_statistics(CHANNEL, 1e-7, doppler), PILOTS, noise)
    _, estimates = draw(CHANNEL, 2, 100.0, 0.01)
    for i in range(2):
        alone = lmmse(tdl_statistics(CHANNEL, 1e-7, doppler[i]), PILOTS, noise[i])
        torch.testing.assert_close(together.mse[i], alone.mse)
        torch.testing.assert_close(together(estimates)[i], alone(estimates)[i])


def test_scaling_channel_and_noise_scales_the_estimate():
    h, estimates = draw(CHANNEL, 200, 100.0, 0.01)
    plain = averaged_lmmse(h, estimates, 0.01)(estimates)
    small = averaged_lmmse(1e-6 * h, 1e-6 * estimates, 1e-14)(1e-6 * estimates)
    torch.testing.assert_close(1e6 * small, plain)


def test_the_official_snr_leaves_13_decibels_more_to_a_pilot():
    official, physical = (
        noise_variance(10.0, Grid(), Pilots(), kind) for kind in ("grid", "pilot")
    )
    assert physical.item() == pytest.approx(0.1)
    assert 10 * math.log10(physical / official) == pytest.approx(13.22, abs=0.01)


def test_noise_of_a_samples_own_power_follows_that_power():
    h = torch.tensor([1.0, 100.0], dtype=torch.complex128)[:, None, None].expand(2, 24, 14)
    h, variance = h.expand(2, 24, 14), torch.full((2,), 0.01, dtype=torch.float64)
    noise = observe(h, PILOTS, variance, generator=generator(), reference="sample") - PILOTS.pick(h)
    power = noise.abs().square().mean((1, 2))
    assert (power[1] / power[0]).item() == pytest.approx(1e4, rel=0.8)
    fixed = observe(h, PILOTS, variance, generator=generator()) - PILOTS.pick(h)
    assert fixed.abs().square().mean().item() == pytest.approx(0.01, rel=0.4)


def test_pilots_without_noise_that_depend_on_each_other_are_refused():
    with pytest.raises(UserError, match="give a noise variance above 0"):
        lmmse(tdl_statistics(CHANNEL, 1e-9, 0.0), PILOTS, 0.0)
    with pytest.raises(UserError, match="noise variance is -1"):
        lmmse(tdl_statistics(CHANNEL, 1e-7, 0.0), PILOTS, -1.0)


def test_pilots_off_the_grid_are_refused():
    with pytest.raises(UserError, match="on subcarrier 118, but the grid ends at 23"):
        bilinear(torch.zeros(1, 40, 2, dtype=torch.complex64), Pilots(), GRID)
    with pytest.raises(UserError, match="ascend"):
        Pilots.parse({"subcarriers": (3, 1)}, "pilots")
