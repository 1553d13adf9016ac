import pytest
import torch

from sixfold.core import UserError
from sixfold.wireless.iq.conditions import estimate_conditions
from sixfold.wireless.iq.ofdm import Grid, Pilots, noise_variance, observe
from sixfold.wireless.iq.tdl import TDL


def estimated(
    snr_db: float, spread_s: float, doppler_hz: float, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the estimates of 200 slots, and the power of each slot's channel at the pilots."""
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    h = TDL("A")(200, delay_spread_s=spread_s, max_doppler_hz=doppler_hz, generator=generators[0])
    noise = noise_variance(torch.full((200,), snr_db), Grid(), Pilots())
    estimates = scale * observe(h, Pilots(), noise, generator=generators[1])
    power = Pilots().pick(h).abs().square().mean((1, 2))
    return estimate_conditions(estimates, Pilots(), Grid()), power


def median(snr_db: float, spread_s: float, doppler_hz: float, scale: float = 1.0) -> list[float]:
    return estimated(snr_db, spread_s, doppler_hz, scale)[0].median(0).values.tolist()


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_the_snr_of_each_slot_is_found(snr_db):
    """Fading makes a slot's own SNR differ from the mean over slots, which it does not know."""
    found, power = estimated(snr_db, 1e-7, 100.0)
    error = found[:, 0] - (snr_db + 10 * power.log10())
    assert abs(float(error.median())) < 0.3, "no bias"
    assert float(error.abs().quantile(0.95)) < 1.6


def test_slower_and_faster_and_shorter_and_longer_are_told_apart():
    found = [median(20.0, 1e-7, doppler)[2] for doppler in (50.0, 150.0, 400.0)]
    assert found == sorted(found)
    assert found[0] == pytest.approx(50.0, rel=0.5)
    short, long = (median(20.0, spread, 50.0)[1] for spread in (5e-8, 3e-7))
    assert short == pytest.approx(5e-8, rel=0.5)
    assert long == pytest.approx(3e-7, rel=0.5)


def test_the_scale_of_channels_does_not_matter():
    assert median(10.0, 1e-7, 100.0, 1e-6) == pytest.approx(median(10.0, 1e-7, 100.0), rel=1e-3)


def test_a_slot_without_power_is_named():
    estimates = torch.ones(3, 40, 2, dtype=torch.complex64)
    estimates[1] = 0
    with pytest.raises(UserError, match="pilots of sample 1 are 0 throughout"):
        estimate_conditions(estimates, Pilots(), Grid())


def test_patterns_that_cannot_tell_are_refused():
    pilots = Pilots(subcarriers=(0, 1, 7))
    with pytest.raises(UserError, match="at one distance"):
        estimate_conditions(torch.ones(1, 3, 2, dtype=torch.complex64), pilots, Grid())
