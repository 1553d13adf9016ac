"""Precoders against what is known of them, and against each other."""

import json
import os
from pathlib import Path

import pytest
import torch

from sixfold.wireless.iq.dirty_paper import dirty_paper_capacity, water_filling
from sixfold.wireless.iq.mimo_channels import exponentially_correlated, rayleigh
from sixfold.wireless.iq.precoding import (
    conjugate_gradients,
    equal_structured,
    gram,
    mrt,
    rzf,
    structured,
    sum_rate,
    user_rates,
    zf,
)
from sixfold.wireless.iq.wmmse import wmmse, wmmse_textbook

ROOT = Path(__file__).resolve().parents[4] / "shared" / "golden"
ROOT = Path(os.environ.get("SIXFOLD_GOLDEN", ROOT))
REFERENCE = ROOT / "icgnn" / "ensemble_reference.json"


def channels(batch: int, users: int, antennas: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return rayleigh(batch, users, antennas, generator=generator, dtype=torch.float64)


def test_zero_forcing_leaves_no_interference():
    channel = channels(5, 4, 6)
    gains = channel @ zf(channel)
    assert (gains - torch.diag_embed(gains.diagonal(dim1=-2, dim2=-1))).abs().max() < 1e-12


@pytest.mark.parametrize("power", [1.0, 7.0])
def test_every_precoder_uses_its_power(power):
    channel = channels(5, 4, 6)
    found = [mrt(channel, power), zf(channel, power), rzf(channel, 0.1, power)]
    found += [equal_structured(channel, 0.1, power), wmmse(channel, 0.1, power).precoder]
    for precoder in found:
        torch.testing.assert_close(
            precoder.abs().square().sum((1, 2)), torch.full((5,), power, dtype=torch.float64)
        )


def test_one_user_gets_the_capacity_of_its_channel():
    channel = channels(5, 1, 6)
    capacity = torch.log2(1 + channel.abs().square().sum((1, 2)) / 0.1)
    for precoder in (mrt(channel), rzf(channel, 0.1), wmmse(channel, 0.1).precoder):
        torch.testing.assert_close(sum_rate(channel, precoder, 0.1), capacity)
    torch.testing.assert_close(dirty_paper_capacity(channel, 0.1), capacity)


def test_the_structure_solved_on_users_is_that_on_antennas():
    channel = channels(3, 4, 6)
    generator = torch.Generator().manual_seed(1)
    lam, p = torch.rand(2, 3, 4, generator=generator, dtype=torch.float64)
    found = structured(channel, 0.2, lam, p)
    system = 0.2 * torch.eye(6) + channel.mH @ (lam[..., None] * channel)
    naive = torch.linalg.solve(system, channel.mH)
    naive = naive / naive.norm(dim=-2, keepdim=True) * p.sqrt()[:, None]
    torch.testing.assert_close(found, naive)


@pytest.mark.parametrize("steps", [None, 1, 4])
def test_a_user_with_multiplier_zero_sends_nothing_and_harms_no_gradient(steps):
    channel = channels(2, 4, 6)
    lam = torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=torch.float64).repeat(2, 1).requires_grad_()
    p = torch.tensor([0.0, 0.5, 0.3, 0.2], dtype=torch.float64).repeat(2, 1).requires_grad_()
    precoder = structured(channel, 0.1, lam, p, steps)
    assert not precoder[..., 1].abs().any()
    sum_rate(channel, precoder, 0.1).sum().backward()
    for gradient in (lam.grad, p.grad):
        assert gradient is not None
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("steps", [None, 2])
def test_gradients_are_those_of_finite_differences(steps):
    channel = channels(1, 3, 4)
    lam = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64, requires_grad=True)

    def rate(lam: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return user_rates(h, structured(h, 0.1, lam, lam, steps), 0.1)

    assert torch.autograd.gradcheck(rate, (lam, channel.requires_grad_()))


def test_conjugate_gradients_solve_real_systems_and_stand_still_after():
    x = torch.randn(4, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix, right = x @ x.mT + torch.eye(6), x[..., :3]
    expected = torch.linalg.solve(matrix, right)
    torch.testing.assert_close(conjugate_gradients(matrix, right, 6), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(conjugate_gradients(matrix, right, 50), expected)
    assert not conjugate_gradients(matrix, 0 * right, 3).any()


def test_both_forms_of_wmmse_reach_the_same_rate():
    channel = channels(20, 4, 8)
    ours = wmmse(channel, 0.1, iterations=200, tolerance=0.0).sum_rate
    theirs = wmmse_textbook(channel, 0.1, iterations=200).sum_rate
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)


def test_the_rate_of_wmmse_never_falls():
    channel = channels(20, 6, 6)
    history = wmmse(channel, 0.01, iterations=100, tolerance=0.0).history
    assert history.shape == (100, 20)
    assert float(history.diff(dim=0).min()) > -1e-9


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_users_that_wmmse_leaves_out_harm_neither_rate_nor_gradient(dtype):
    channel = channels(40, 8, 8).to(dtype).requires_grad_()
    found = wmmse(channel, 0.01, tolerance=0.0, iterations=100)
    assert bool((found.precoder.abs().square().sum(-2) == 0).any()), "all users are served"
    found.sum_rate.sum().backward()
    assert channel.grad is not None
    assert bool(channel.grad.isfinite().all())
    exact = wmmse(channel.detach().to(torch.complex128), 0.01, tolerance=0.0, iterations=100)
    torch.testing.assert_close(found.sum_rate.double(), exact.sum_rate, rtol=1e-4, atol=0)


def test_wmmse_does_not_stop_where_the_rate_only_rests():
    """128 antennas, 16 users, 20 dB: an early stop reached 35 bit/s/Hz of 44 in another code."""
    channel = channels(3, 16, 128)
    stopped = wmmse(channel, 0.01)
    long = wmmse(channel, 0.01, iterations=600, tolerance=0.0)
    assert bool((stopped.sum_rate > 0.998 * long.sum_rate).all())
    assert bool((stopped.iterations < 300).all())
    assert len(stopped.history) == int(stopped.iterations.max())


def test_more_starts_are_never_worse_and_sometimes_better():
    channel = channels(30, 6, 6)
    one = wmmse(channel, 0.01, iterations=60).sum_rate
    many = wmmse(channel, 0.01, iterations=60, starts=4)
    assert bool((many.sum_rate >= one).all())
    assert bool((many.sum_rate > 1.01 * one).any())
    torch.testing.assert_close(sum_rate(channel, many.precoder, 0.01), many.sum_rate)


def test_nothing_exceeds_the_capacity_and_its_bound_is_tight():
    channel = channels(20, 6, 4)
    capacity = dirty_paper_capacity(channel, 0.1)
    best = wmmse(channel, 0.1, starts=3).sum_rate
    assert bool((best <= capacity).all())
    assert bool((best > 0.8 * capacity).all())
    assert bool((dirty_paper_capacity(channel, 0.1, iterations=3) >= capacity - 1e-9).all())
    torch.testing.assert_close(dirty_paper_capacity(channel, 0.1, iterations=1000), capacity,
                               rtol=1e-3, atol=0)  # fmt: skip


def test_the_capacity_equals_the_maximum_over_uplink_powers():
    channel = channels(1, 2, 3)
    inner = gram(channel)[0] / 0.1
    share = torch.linspace(0, 1, 2001, dtype=torch.float64)
    powers = torch.stack([share, 1 - share], -1)
    system = torch.eye(2) + inner * powers[:, None, :]
    best = torch.linalg.slogdet(system).logabsdet.max() / torch.log(torch.tensor(2.0))
    torch.testing.assert_close(dirty_paper_capacity(channel, 0.1)[0], best, rtol=1e-5, atol=0)


def test_water_fills_the_better_gains_first():
    found = water_filling(torch.tensor([[4.0, 1.0, 0.0]]), 0.5)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.0, 0.0]]))
    found = water_filling(torch.tensor([[4.0, 1.0, 0.0]]), 2.0)
    torch.testing.assert_close(found, torch.tensor([[1.375, 0.625, 0.0]]))


def test_weak_single_precision_channels_give_finite_gradients():
    channel = (1e-6 * channels(4, 4, 4)).to(torch.complex64).requires_grad_()
    sum_rate(channel, equal_structured(channel, 1e-13, steps=4), 1e-13).sum().backward()
    assert channel.grad is not None
    assert bool(channel.grad.isfinite().all())


@pytest.mark.skipif(not REFERENCE.is_file(), reason=f"no reference values: no {REFERENCE}")
def test_mean_rates_are_those_of_the_reference_ensemble():
    for case in json.loads(REFERENCE.read_text()):
        noise = 10 ** (-case["snr_db"] / 10)
        channel = channels(200, case["K"], case["M"], seed=2)
        found = {
            "mrt": mrt(channel),
            "zf": zf(channel),
            "rzf": rzf(channel, noise),
            "struct_equal": equal_structured(channel, noise),
            "wmmse": wmmse(channel, noise, iterations=100).precoder,
        }
        assert set(case["mean_sum_rate"]) == set(found)
        for name, expected in case["mean_sum_rate"].items():
            rates = sum_rate(channel, found[name], noise)
            # four standard errors, of the reference's few channels and of ours
            error = 4 * float(rates.std()) * (1 / case["channels"] + 1 / 200) ** 0.5
            assert abs(float(rates.mean()) - expected) < error, (case, name)


@pytest.mark.parametrize("draw", [
    lambda batch, generator: rayleigh(batch, 5, 3, generator=generator),
    lambda batch, generator: exponentially_correlated(
        batch, 5, 3, correlation=0.7, generator=generator
    ),
], ids=["rayleigh", "correlated"])  # fmt: skip
def test_channels_do_not_depend_on_the_size_of_the_batch(draw):
    whole = draw(64, torch.Generator().manual_seed(3))
    for size in (1, 7):
        generator = torch.Generator().manual_seed(3)
        parts = [draw(min(size, 64 - first), generator) for first in range(0, 64, size)]
        assert torch.equal(torch.cat(parts), whole)


def test_rayleigh_channels_have_unit_power_and_no_correlation():
    channel = channels(4000, 2, 3).reshape(4000, 6)
    covariance = channel.mH @ channel / 4000
    assert (covariance - torch.eye(6)).abs().max() < 0.08
    assert (channel.mT @ channel / 4000).abs().max() < 0.08  # circular
    fourth = channel.abs().pow(4).mean()  # 2 where Gaussian
    assert abs(float(fourth) - 2) < 0.1


def test_correlation_falls_exponentially_with_the_distance_of_antennas():
    generator = torch.Generator().manual_seed(0)
    correlation = torch.full((8000,), 0.8, dtype=torch.float64)
    channel = exponentially_correlated(
        8000, 1, 4, correlation=correlation, generator=generator, dtype=torch.float64
    )[:, 0]
    power = channel.abs().square().mean(0)
    torch.testing.assert_close(power, torch.ones_like(power), rtol=0, atol=0.06)
    # directions differ from user to user: compare |E h_m* h_n e^{..}| through products of lags
    lag = channel[:, 1:] * channel[:, :-1].conj()
    second = channel[:, 2:] * channel[:, :-2].conj()
    turned = (second * (lag[:, :-1] * lag[:, 1:]).conj()).mean().abs()
    assert float(turned) > 0.5
    flat = exponentially_correlated(3, 2, 4, correlation=1.0, generator=generator)
    torch.testing.assert_close(flat.abs(), flat.abs()[..., :1].expand_as(flat))
