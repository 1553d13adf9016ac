"""SI-SNR, and the permutation-invariant loss."""

import pytest
import torch

from sixfold.core import UserError
from sixfold.speech.losses import PIT_EPS, pit, pit_si_snr, si_snr
from sixfold.speech.metrics import si_sdr


def test_si_snr_is_the_metric_but_for_the_epsilon():
    generator = torch.Generator().manual_seed(0)
    estimates, targets = torch.randn(2, 3, 400, dtype=torch.float64, generator=generator)
    expected = [si_sdr(e, t) for e, t in zip(estimates, targets, strict=True)]
    assert si_snr(estimates, targets, eps=1e-12).tolist() == pytest.approx(expected, abs=1e-6)


def test_pit_finds_the_order_and_leaves_out_solved_mixtures():
    torch.manual_seed(0)
    targets = torch.randn(4, 3, 100)
    orders = torch.tensor([[2, 0, 1], [0, 1, 2], [1, 0, 2], [0, 2, 1]])
    estimates = torch.empty_like(targets)
    for item, order in enumerate(orders):
        estimates[item, order] = targets[item]
    estimates += 0.1 * torch.randn_like(estimates)
    losses, found = pit(estimates, targets)
    assert torch.equal(found, orders)
    ordered = estimates.gather(1, orders[..., None].expand_as(targets))
    expected = si_snr(ordered, targets, PIT_EPS)
    torch.testing.assert_close(losses, -expected.mean(1))
    torch.testing.assert_close(pit_si_snr(estimates, targets), losses.mean())
    solved = losses.sort().values[1] + 1e-3  # two items lie below
    rest = losses.sort().values[2:].mean()
    torch.testing.assert_close(pit_si_snr(estimates, targets, float(solved)), rest)
    assert pit_si_snr(estimates, targets, 1000.0) == 0


def test_unequal_shapes_are_named(unchecked):
    with pytest.raises(UserError, match=r"\(1, 2, 9\).*\(1, 3, 9\)"):
        pit(torch.zeros(1, 2, 9), torch.zeros(1, 3, 9))
