"""The linear layer as a convolution against PyTorch's own."""

from importlib import import_module

import pytest
import torch
from kernel_checks import error
from torch.nn import functional

from sixfold.kernels import linear

FILE = import_module("sixfold.kernels.linear")


@pytest.fixture
def convolved(monkeypatch):
    """Take the convolution at any size, and count the calls of it."""
    calls = []
    original = functional.conv2d

    def counted(*arguments, **options):
        calls.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(FILE, "PRODUCTS", 0)
    monkeypatch.setattr(FILE.functional, "conv2d", counted)
    return calls


@pytest.mark.parametrize("shape", [(5, 3), (2, 7, 1, 3), (1, 3), (4, 9, 2, 33)], ids=str)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("layout", ["dense", "slice", "transposed"])
def test_values_and_gradients_are_those_of_a_linear_layer(shape, biased, layout, convolved):
    generator = torch.Generator().manual_seed(0)
    shapes = [shape, (6, shape[-1]), *([(6,)] if biased else [])]
    exact = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    inputs = [value.float().requires_grad_() for value in exact]
    exact = [value.detach().double().requires_grad_() for value in inputs]

    def laid_out(x):
        if layout == "transposed":
            return x.transpose(0, -1).contiguous().transpose(0, -1)
        return torch.cat([x, x], -1)[..., : shape[-1]] if layout == "slice" else x

    y, expected = linear(laid_out(inputs[0]), *inputs[1:]), functional.linear(*exact)
    assert len(convolved) == 1
    assert y.shape == expected.shape
    assert error(y, expected) < 1e-6
    sent = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    found = torch.autograd.grad(y, inputs, sent.float())
    for one, other in zip(found, torch.autograd.grad(expected, exact, sent), strict=True):
        assert error(one, other) < 1e-6


def test_no_rows_give_no_rows(convolved):
    assert linear(torch.randn(2, 0, 3), torch.randn(4, 3), torch.randn(4)).shape == (2, 0, 4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_numbers_than_float32_take_the_layer_of_pytorch(dtype, convolved):
    x, weight = torch.randn(5, 3).to(dtype), torch.randn(4, 3).to(dtype)
    assert torch.equal(linear(x, weight), functional.linear(x, weight))
    assert not convolved


def test_a_compiled_layer_is_one_that_the_compiler_knows(convolved, unchecked):
    compiled = torch.compile(linear, fullgraph=True, backend="eager")
    x, weight = torch.randn(5, 3), torch.randn(4, 3)
    assert torch.equal(compiled(x, weight), functional.linear(x, weight))
    assert not convolved
