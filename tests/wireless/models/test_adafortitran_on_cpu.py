"""The pieces of a transformer layer on a CPU against PyTorch's."""

import pytest
import torch
from torch.nn import functional

from sixfold.wireless.models.adafortitran import AdaFortiTran, AdaFortiTranConfig, on_cpu


def agree(ours, theirs, inputs: list[torch.Tensor]) -> None:
    """Compare outputs and all gradients of two functions."""
    outputs = [function(*inputs) for function in (ours, theirs)]
    weights = torch.randn_like(outputs[0])
    grads = [torch.autograd.grad((y * weights).sum(), inputs) for y in outputs]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def leaf(*size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(size))
    return torch.randn(size, generator=generator).requires_grad_()


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 3), (7, 4), (16, 48), (64, 16)])
@pytest.mark.parametrize("rows", [(5,), (2, 9), (1, 1)], ids=str)
def test_linear_is_torchs(rows, inputs, outputs):
    given = [leaf(*rows, inputs), leaf(outputs, inputs), leaf(outputs)]
    agree(on_cpu.linear, functional.linear, given)


def plain_attention(projected: torch.Tensor, heads: int) -> torch.Tensor:
    query, key, value = projected.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(query, key, value)
    return mixed.transpose(1, 2).flatten(2)


@pytest.mark.parametrize(("tokens", "heads", "features"), [(1, 1, 1), (9, 2, 3), (33, 4, 8)])
def test_attention_is_torchs(tokens, heads, features):
    given = [leaf(3, tokens, 3 * heads * features)]
    agree(lambda x: on_cpu.attention(x, heads, 0.0), lambda x: plain_attention(x, heads), given)


def test_attention_with_dropout_has_the_gradient_of_what_it_kept():
    """In double precision, with the same draws at every call."""
    projected = leaf(2, 5, 12).detach().double().requires_grad_()

    def attend(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return on_cpu.attention(x, 2, 0.4)

    assert torch.autograd.gradcheck(attend, projected, atol=1e-6)
    assert not torch.allclose(attend(projected), on_cpu.attention(projected, 2, 0.0))


def test_attention_with_dropout_is_right_on_average():
    projected = leaf(1, 6, 12).detach().expand(4000, -1, -1)
    torch.manual_seed(0)
    mean = on_cpu.attention(projected, 2, 0.3).mean(0)
    torch.testing.assert_close(mean, on_cpu.attention(projected[:1], 2, 0.0)[0], rtol=0, atol=0.05)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_scales_the_rest(share):
    torch.manual_seed(0)
    x = torch.ones(1000, 401, requires_grad=True)
    y = on_cpu.dropout(x, share)
    kept = y != 0
    assert kept.double().mean().item() == pytest.approx(1 - share, abs=0.003)
    assert kept.double().mean(0).std() < 1.2 * (share * (1 - share) / 1000) ** 0.5  # independent
    torch.testing.assert_close(y[kept], torch.full_like(y[kept], 1 / (1 - share)))
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(grad, y)


def test_the_network_is_the_same_with_torchs_layers(monkeypatch):
    torch.manual_seed(0)
    config = AdaFortiTranConfig(
        subcarriers=12, pilot_subcarriers=4, patch=(3, 7), layers=2, width=16, dropout=0.0
    )
    model = AdaFortiTran(config).train()
    pilots, conditions = torch.randn(20, 4, 2, 2), torch.rand(20, 3) * 1e-6
    found = []
    for here in (True, False):
        monkeypatch.setattr(on_cpu, "runs_here", lambda x, here=here: here)
        y = model(pilots, conditions)
        found.append([y, *torch.autograd.grad(y.square().mean(), list(model.parameters()))])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
