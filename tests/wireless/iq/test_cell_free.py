"""Cell-free layouts against their statistics, power rules against what defines them."""

import pytest
import torch

from sixfold.core import UserError
from sixfold.wireless.iq.cell_free import (
    NOISE_DBM,
    correlate_shadowing,
    distance_m,
    draw_layout,
    flat_distance_m,
    gain_over_noise_db,
    strongest_access_points,
)
from sixfold.wireless.iq.draws import to_normal, uniform_rows
from sixfold.wireless.iq.power_control import (
    POWER_MW,
    equal,
    fractional,
    max_min,
    projected_gradient,
    sinr,
    spectral_efficiency,
)


def scene(batch: int, points: int, users: int, each: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    layout = draw_layout(batch, points, users, generator=generator, dtype=torch.float64)
    gain = 10 ** (layout.gain_over_noise_db / 10)
    return gain, strongest_access_points(gain, each)


@pytest.mark.parametrize("share", [equal, lambda gain, serve: projected_gradient(gain, serve, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_a_user_out_of_reach_still_has_a_power(share, dtype, unchecked):
    gain = torch.tensor([[1, 0, 2], [0, 0, 3]], dtype=dtype)
    assert bool(share(gain, torch.ones(2, 3, dtype=torch.bool)).isfinite().all())


def test_layouts_do_not_depend_on_the_size_of_the_batch():
    whole = draw_layout(64, 7, 5, generator=torch.Generator().manual_seed(3))
    for size in (1, 7):
        generator = torch.Generator().manual_seed(3)
        sizes = [min(size, 64 - first) for first in range(0, 64, size)]
        parts = [draw_layout(n, 7, 5, generator=generator) for n in sizes]
        for number, tensor in enumerate(whole):
            assert torch.equal(torch.cat([part[number] for part in parts]), tensor)


def test_distances_wrap_around():
    a, b = torch.tensor([[10.0, 500.0]]), torch.tensor([[990.0, 500.0], [510.0, 500.0]])
    torch.testing.assert_close(flat_distance_m(a, b), torch.tensor([[20.0, 500.0]]))
    torch.testing.assert_close(distance_m(a, a), torch.tensor([[10.0]]))


def test_the_path_loss_is_36_7_db_a_decade_and_noise_minus_94_dbm():
    assert pytest.approx(-93.99, abs=0.005) == NOISE_DBM
    gain = gain_over_noise_db(torch.tensor([[1.0, 10.0, 100.0]]), torch.zeros(1, 3))
    torch.testing.assert_close(gain, torch.tensor([[63.4897, 26.7897, -9.9103]]))


def test_shadowing_has_4_db_and_halves_its_correlation_in_9_metres():
    users = torch.tensor([[500.0, 500.0], [509.0, 500.0], [500.0, 518.0], [500.0, 500.0]])
    uniform = uniform_rows(20_000, 4, torch.Generator().manual_seed(0), torch.float64)
    drawn = correlate_shadowing(to_normal(uniform), users.double())
    covariance = drawn.T @ drawn / len(drawn)
    expected = 16 * torch.exp2(-flat_distance_m(users, users) / 9).double()
    torch.testing.assert_close(covariance, expected, rtol=0, atol=0.5)
    torch.testing.assert_close(drawn[:, 0], drawn[:, 3])  # one place


def test_access_points_are_chosen_by_strength():
    gain = torch.tensor([[3.0, 1.0], [2.0, 5.0], [9.0, 4.0]])
    found = strongest_access_points(gain, 2)
    assert found.tolist() == [[True, False], [False, True], [True, True]]
    with pytest.raises(UserError, match="4 access points a user, but there are 3"):
        strongest_access_points(gain, 4)


def test_the_closed_form_is_what_drawn_channels_give():
    """Precode by h / sqrt(N beta); a user knows the mean of its gain alone."""
    gain, serve = scene(1, 6, 3, each=3)
    eta, antennas, draws = fractional(gain, serve, 0.5)[0], 2, 20_000
    generator = torch.Generator().manual_seed(1)
    parts = torch.randn(draws, 6, 3, antennas, 2, generator=generator, dtype=torch.float64)
    channel = torch.view_as_complex(parts) * (gain[0] / 2).sqrt()[..., None]
    precoder = channel / (antennas * gain[0]).sqrt()[..., None] * eta.sqrt()[..., None]
    received = torch.einsum("slkn,slin->ski", channel.conj(), precoder)
    mean = received.mean(0).diagonal().abs().square()
    total = received.abs().square().mean(0).sum(-1)
    found = mean / (total - mean + 1)
    torch.testing.assert_close(sinr(gain, eta[None], antennas)[0], found, rtol=0.05, atol=0)


@pytest.mark.parametrize("exponent", [-0.5, 0.0, 0.5, 1.0])
def test_fractional_rules_spend_all_power_in_the_asked_proportion(exponent):
    gain, serve = scene(4, 9, 3, each=2)
    eta = fractional(gain, serve, exponent, 500.0)
    busy = serve.any(-1)
    assert not busy.all(), "an access point should serve nobody here"
    torch.testing.assert_close(eta.sum(-1), 500.0 * busy.double())
    assert bool((eta[~serve] == 0).all())
    share = (eta / gain**exponent).masked_fill(~serve, -1)
    largest = share.amax(-1, keepdim=True).expand_as(share)
    torch.testing.assert_close(share[serve], largest[serve])


def test_powers_of_very_different_gains_stay_finite():
    gain = torch.tensor([[1e-30, 1e30]])
    for exponent in (-2.0, 2.0):
        eta = fractional(gain, torch.ones(1, 2, dtype=torch.bool), exponent)
        assert float(eta.sum()) == pytest.approx(1000.0)


def test_max_min_makes_all_users_equal_and_one_access_point_full():
    gain, serve = scene(4, 9, 4, each=3)
    eta = max_min(gain, serve, 2)
    found = sinr(gain, eta, 2)
    torch.testing.assert_close(found, found[:, :1].expand_as(found))
    torch.testing.assert_close(eta.sum(-1).amax(-1), torch.full((4,), POWER_MW).double())
    worst = sinr(gain, fractional(gain, serve, 1.0), 2).amin(-1)
    assert bool((found.amin(-1) > worst).all())


def test_the_projected_gradient_is_above_every_rule_and_within_power():
    gain, serve = scene(4, 12, 5, each=4)
    eta = projected_gradient(gain, serve, 2, steps=150)
    assert float(eta.sum(-1).max()) <= POWER_MW * (1 + 1e-9)
    assert bool((eta[~serve] == 0).all())
    best = spectral_efficiency(gain, eta, 2).sum(-1)
    rules = [equal(gain, serve), max_min(gain, serve, 2)]
    rules += [fractional(gain, serve, exponent) for exponent in (-0.5, 0.5, 1.0)]
    for rule in rules:
        assert bool((best >= spectral_efficiency(gain, rule, 2).sum(-1)).all())
    longer = projected_gradient(gain, serve, 2, steps=600)
    ratio = spectral_efficiency(gain, longer, 2).sum(-1) / best
    assert float(ratio.max()) < 1.02


def test_one_number_a_point_of_antennas_and_power_is_taken():
    gain, serve = scene(2, 6, 3, each=2)
    antennas = torch.arange(1, 7).double()
    eta = equal(gain, serve, torch.arange(1, 7).double())
    amplitude = (eta * antennas[None, :, None] * gain).sqrt().sum(1)
    others = (gain * eta.sum(-1, keepdim=True)).sum(1)
    torch.testing.assert_close(sinr(gain, eta, antennas), amplitude.square() / (others + 1))


def test_powers_have_gradients_where_they_are_zero():
    gain, serve = scene(2, 6, 3, each=2)
    eta = equal(gain, serve).requires_grad_()
    spectral_efficiency(gain, eta, 2).sum().backward()
    assert eta.grad is not None
    assert bool(eta.grad.isfinite().all())
