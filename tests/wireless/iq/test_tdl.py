import math

import pytest
import torch

from sixfold.core import UserError
from sixfold.wireless.iq.estimators import tdl_statistics
from sixfold.wireless.iq.ofdm import Grid
from sixfold.wireless.iq.tdl import PROFILES, TDL, Profile
from sixfold.wireless.iq.time_domain import transmit

SMALL = Grid(subcarriers=12, symbols=14)
FORMS = pytest.mark.parametrize("fading", ["exact", "sinusoids"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gains(channel: TDL, batch: int, doppler_hz: float) -> torch.Tensor:
    return channel.tap_gains(channel.draw(batch, generator()), channel.times_s, doppler_hz)


@FORMS
@pytest.mark.parametrize("doppler_hz", [0.0, 50.0, 1000.0])
def test_taps_have_the_autocorrelation_of_jakes(fading, doppler_hz):
    channel = TDL("A", SMALL, fading=fading, waves=32)
    taps = gains(channel, 400, doppler_hz) / channel.powers.sqrt()[:, None]
    found = torch.einsum("bpt,bp->t", taps, taps[..., 0].conj()) / (400 * 23)
    lags = 2 * math.pi * doppler_hz * (channel.times_s - channel.times_s[0])
    expected = torch.special.bessel_j0(lags)
    assert (found - expected).abs().max() < 4 / math.sqrt(400 * 23)


@FORMS
@pytest.mark.parametrize("profile", PROFILES)
def test_taps_have_the_power_delay_profile(fading, profile):
    channel = TDL(profile, Grid(subcarriers=12, symbols=1), fading=fading, waves=16)
    power = gains(channel, 4000, 300.0)[..., 0].abs().square().mean(0)
    torch.testing.assert_close(channel.powers.sum().item(), 1.0)
    assert ((power / channel.powers - 1).abs() < 5 / math.sqrt(4000)).all()


@pytest.mark.parametrize("nanoseconds", [10, 100, 300])
@pytest.mark.parametrize("profile", PROFILES)
def test_the_delay_spread_is_the_one_asked_for(profile, nanoseconds):
    """From the curvature of the covariance over frequency, as it is seen on the grid."""
    grid = Grid(subcarriers=3, spacing_hz=1e3)
    channel = TDL(profile, grid, dtype=torch.float64)
    over_frequency = tdl_statistics(channel, nanoseconds * 1e-9, 0.0).over_subcarriers.sum(0)
    left, centre, right = over_frequency[:, 1]
    second_moment = (2 * centre - left - right).real / (2 * math.pi * 1e3) ** 2
    mean = (left - right).imag / (4 * math.pi * 1e3)
    spread = (second_moment - mean**2).sqrt().item()
    assert spread == pytest.approx(nanoseconds * 1e-9, rel=7e-3 if profile == "D" else 1e-3)


@pytest.mark.parametrize(("profile", "factor_db"), [("D", 13.3), ("E", 22.0)])
def test_the_line_of_sight_has_its_k_factor_and_a_constant_magnitude(profile, factor_db):
    channel = TDL(profile, SMALL)
    taps = gains(channel, 4000, 200.0)
    direct, scattered = taps[:, 0].abs().square(), taps[:, 1].abs().square().mean()
    assert direct.std() < 1e-6
    assert 10 * math.log10(direct.mean() / scattered) == pytest.approx(factor_db, abs=0.2)


def test_the_line_of_sight_turns_at_seven_tenths_of_the_doppler():
    channel = TDL("D", SMALL, dtype=torch.float64)
    direct = gains(channel, 1, 100.0)[0, 0]
    turns = (direct[1] / direct[0]).angle() / (2 * math.pi)
    assert turns.item() == pytest.approx(70.0 * (channel.times_s[1] - channel.times_s[0]).item())


@FORMS
@pytest.mark.parametrize("profile", ["A", "D"])
def test_the_same_seed_gives_the_same_channels_on_any_batch_size(fading, profile):
    channel = TDL(profile, fading=fading, waves=8)
    spread, doppler = torch.linspace(1e-8, 3e-7, 64), torch.linspace(0, 1000, 64)

    def drawn(size: int) -> torch.Tensor:
        numbers, parts = generator(7), []
        for start in range(0, 64, size):
            part = slice(start, min(start + size, 64))
            parts.append(
                channel(
                    len(spread[part]), delay_spread_s=spread[part], max_doppler_hz=doppler[part],
                    generator=numbers,
                )
            )  # fmt: skip
        return torch.cat(parts)

    assert torch.equal(drawn(1), drawn(64))
    assert torch.equal(drawn(7), drawn(64))


def test_delay_spreads_of_30_and_300_ns_in_one_batch_have_other_coherence_bandwidths():
    channel = TDL("A")
    spread = torch.tensor([3e-8, 3e-7]).repeat(1000)
    h = channel(2000, delay_spread_s=spread, max_doppler_hz=10.0, generator=generator())[..., 0]

    def correlation(x: torch.Tensor, apart: int) -> float:
        power = x[:, [0, apart]].abs().square().mean()
        return ((x[:, 0].conj() * x[:, apart]).mean().abs() / power).item()

    short, long = h[::2], h[1::2]
    assert correlation(short, 100) == pytest.approx(correlation(long, 10), abs=0.01)
    for h, seconds in ((short, 3e-8), (long, 3e-7)):
        theory = tdl_statistics(channel, seconds, 0.0).over_subcarriers[0, 0, 100].abs().item()
        assert correlation(h, 100) == pytest.approx(theory, abs=0.03)


@pytest.mark.parametrize("fading", ["exact", "sinusoids"])
def test_gradients_of_delay_spread_and_powers(fading):
    grid = Grid(subcarriers=2, symbols=2)
    profile = Profile((0.0, 1.0), (0.0, -3.0))
    channel = TDL(profile, grid, fading=fading, waves=4, dtype=torch.float64)
    numbers = channel.draw(2, generator())

    def response(spread_us, powers):
        channel.powers = powers
        return torch.view_as_real(channel.response(numbers, spread_us * 1e-6, 100.0))

    spread = torch.tensor([0.1, 0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(response, (spread, channel.powers.clone().requires_grad_()))


@pytest.mark.parametrize("profile", ["A", "D"])
def test_gradients_of_doppler_from_sinusoids(profile):
    grid = Grid(subcarriers=2, symbols=3)
    channel = TDL(profile, grid, fading="sinusoids", waves=3, dtype=torch.float64)
    numbers = channel.draw(2, generator())
    doppler_khz = torch.tensor([0.1, 0.5], dtype=torch.float64, requires_grad=True)

    def response(khz):
        return torch.view_as_real(channel.response(numbers, 1e-7, 1e3 * khz))

    assert torch.autograd.gradcheck(response, (doppler_khz,))


def test_exact_fading_says_that_it_has_no_gradient_of_doppler():
    doppler = torch.tensor(100.0, requires_grad=True)
    with pytest.raises(UserError, match='fading="sinusoids"'):
        TDL("A", SMALL)(2, delay_spread_s=1e-7, max_doppler_hz=doppler, generator=generator())


@pytest.mark.usefixtures("unchecked")
@FORMS
def test_it_compiles_whole(fading):
    channel = TDL("D", SMALL, fading=fading, waves=4)
    numbers = channel.draw(3, generator())
    arguments = numbers, torch.tensor([1e-7, 2e-7, 3e-7]), torch.tensor([10.0, 100.0, 500.0])
    compiled = torch.compile(channel.response, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*arguments), channel.response(*arguments))


@pytest.mark.usefixtures("unchecked")
def test_it_may_stand_in_a_compiled_training_step():
    channel, settings = TDL("A", SMALL), {"delay_spread_s": 1e-7, "max_doppler_hz": 100.0}
    gain = torch.ones((), requires_grad=True)

    def step(numbers: torch.Generator) -> torch.Tensor:
        return (gain * channel(4, **settings, generator=numbers)).abs().square().mean()

    loss = torch.compile(step, backend="eager")(generator(3))
    loss.backward()
    torch.testing.assert_close(loss, step(generator(3)))
    assert gain.grad is not None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_doppler_hz": -5.0}, "max_doppler_hz is -5"),
        ({"delay_spread_s": math.nan}, "delay_spread_s is nan"),
        ({"delay_spread_s": torch.ones(3)}, r"shape \(3,\) for a batch of 2"),
    ],
)
def test_bad_conditions_are_named(given, message):
    arguments = {"delay_spread_s": 1e-7, "max_doppler_hz": 10.0, "generator": generator()}
    with pytest.raises(UserError, match=message):
        TDL("A", SMALL)(2, **arguments | given)


def test_a_misspelt_profile_is_answered_with_those_that_there_are():
    with pytest.raises(UserError, match="it has: A, B, C, D, E"):
        TDL("TDL-A")


def qpsk(batch: int, grid: Grid) -> torch.Tensor:
    quarter = torch.randint(4, (batch, grid.subcarriers, grid.symbols), generator=generator(1))
    angle = math.pi / 4 + math.pi / 2 * quarter.double()
    return torch.polar(torch.ones_like(angle), angle)


def test_in_the_time_domain_a_still_channel_multiplies():
    channel = TDL("C", SMALL, fading="sinusoids", waves=8, dtype=torch.float64)
    sent = qpsk(2, SMALL)
    settings = {"delay_spread_s": 3e-7, "max_doppler_hz": 0.0}
    received, mean = transmit(channel, sent, **settings, generator=generator())
    truth = channel(2, **settings, generator=generator())
    torch.testing.assert_close(mean, truth)
    torch.testing.assert_close(received, sent * truth)


def test_interference_has_the_power_that_theory_says():
    grid = Grid(subcarriers=64, symbols=1, fft_size=64, long_prefix_samples=5)
    channel = TDL("A", grid, fading="sinusoids", waves=16)
    sent = qpsk(400, grid).to(torch.complex64)
    received, mean = transmit(
        channel, sent, delay_spread_s=1e-7, max_doppler_hz=1000.0, generator=generator()
    )
    leaked = (received - mean * sent).abs().square().mean().item()
    assert leaked == pytest.approx((2 * math.pi * 1000 / 15e3) ** 2 / 24, rel=0.12)


def test_echoes_behind_the_prefix_are_refused():
    channel = TDL("A", SMALL, fading="sinusoids")
    with pytest.raises(UserError, match=r"later than the cyclic prefix of 4\.69 us"):
        transmit(
            channel, qpsk(1, SMALL), delay_spread_s=1e-6, max_doppler_hz=0.0, generator=generator()
        )


def test_exact_fading_ends_at_the_spacing_of_subcarriers():
    numbers = {"delay_spread_s": 1e-7, "generator": torch.Generator().manual_seed(0)}
    channel = TDL("A", Grid(subcarriers=12))
    channel(2, max_doppler_hz=15e3, **numbers)
    with pytest.raises(UserError, match=r'max_doppler_hz is 30000.*fading="sinusoids"'):
        channel(2, max_doppler_hz=30e3, **numbers)
    TDL("A", Grid(subcarriers=12), fading="sinusoids")(2, max_doppler_hz=30e3, **numbers)


def test_a_fading_that_there_is_not_is_named(unchecked):
    with pytest.raises(UserError, match="no fading 'sinusoid'; did you mean 'sinusoids'"):
        TDL("A", fading="sinusoid")  # type: ignore[arg-type]
