import pytest
import torch

from sixfold.recsys.layers.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_it_keeps_the_expectation_and_zeroes_the_right_share(p):
    torch.manual_seed(0)
    x = torch.ones(300, 1001)  # a number of values that four does not divide
    found = Dropout(p)(x)
    kept = found[found != 0]
    assert kept.unique().numel() == 1
    assert kept[0].item() == pytest.approx(1 / (1 - p), rel=1e-3)
    assert kept.numel() / x.numel() == pytest.approx(1 - p, abs=0.003)
    rows = (found == 0).float().mean(1)  # no row is unlike the others
    assert (rows - p).abs().max() < 6 * (p * (1 - p) / 1001) ** 0.5


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    dropped = (Dropout(0.5)(torch.ones(1 << 20)) == 0).double() - 0.5
    for shift in (1, 2, 3, 4, 5):
        assert (dropped[shift:] * dropped[:-shift]).mean().abs() < 0.25 * 5e-3


def test_gradients_pass_where_values_do():
    x = torch.randn(64, 9, requires_grad=True)
    found = Dropout(0.3)(x)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(gradient, found.detach() / x.detach())


def test_the_generator_decides():
    x, layer = torch.ones(1000), Dropout(0.5)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(layer(x))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_it_leaves_alone_what_is_not_trained_or_not_to_be_dropped():
    x = torch.ones(5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert Dropout(0.5)(torch.ones(0, 3)).shape == (0, 3)
    assert Dropout(0.5)(torch.ones(7, dtype=torch.bfloat16)).dtype == torch.bfloat16
