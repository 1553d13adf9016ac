"""The convolution with its own weight gradient against the formula."""

import itertools
from importlib import import_module

import pytest
import torch
from torch import Tensor

from sixfold.kernels import conv2d
from sixfold.kernels.conv2d import PRODUCT_CHANNELS, _Conv2d

MODULE = import_module(conv2d.__module__)  # the package gives the function this name
SIZES = [  # x, out, kernel, stride, padding, groups
    ((2, 3, 9, 6), 4, (5, 2), (2, 1), (0, 1), 1),  # an encoder
    ((2, 3, 8, 6), 4, (5, 2), (2, 1), (0, 1), 1),  # a row that no tap reads
    ((1, 4, 5, 3), 2, (2, 2), (2, 1), (0, 1), 1),
    ((2, 6, 9, 6), 9, (5, 2), (2, 1), (0, 1), 3),  # Gauss' three groups
    ((2, 4, 7, 7), 4, (3, 3), (1, 1), (1, 1), 2),
    ((2, 4, 7, 7), 4, (3, 3), (1, 1), (1, 1), 4),  # depthwise
    ((1, 2, 7, 6), 3, (3, 2), (3, 2), (2, 1), 1),
    ((1, 2, 8, 9), 3, (1, 4), (1, 3), (0, 2), 1),
    ((3, 2, 4, 5), 3, (1, 1), (1, 1), (0, 0), 1),
    ((3, 2, 5, 5), 3, (1, 1), (2, 2), (0, 0), 1),  # the stride is longer than the kernel
    ((2, 1, 5, 1), 1, (5, 1), (1, 1), (0, 0), 1),  # one row out
    ((1, 3, 2, 1), 2, (2, 2), (1, 1), (1, 1), 1),
    ((0, 3, 6, 6), 2, (3, 2), (2, 1), (0, 1), 1),  # no batch
]
CASES = list(itertools.product(SIZES, (True, False)))
TOLERANCE = {torch.float32: (2e-6, 1e-5), torch.bfloat16: (8e-3, 1.5e-2)}


@pytest.fixture(autouse=True)
def products(monkeypatch):
    """Take the path of many channels with few."""
    monkeypatch.setattr(MODULE, "PRODUCT_CHANNELS", 1)


def naive_conv2d(x, weight, bias, stride, padding, groups):
    """Sum over the window of each output position."""
    out, inputs, height, width = weight.shape
    x = torch.nn.functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    rows = (x.shape[2] - height) // stride[0] + 1
    columns = (x.shape[3] - width) // stride[1] + 1
    kernels = weight.view(groups, out // groups, inputs, height, width)
    y = []
    for r, c in itertools.product(range(rows), range(columns)):
        top, left = r * stride[0], c * stride[1]
        window = x[:, :, top : top + height, left : left + width].unflatten(1, (groups, inputs))
        y.append(torch.einsum("bgihw,goihw->bgo", window, kernels).flatten(1))
    y = torch.stack(y, -1).unflatten(-1, (rows, columns))
    return y if bias is None else y + bias[:, None, None]


def draw(sizes, biased: bool, dtype=torch.float64):
    shape, out, kernel, stride, padding, groups = sizes
    generator = torch.Generator().manual_seed(sum(shape) + out)
    shapes = [shape, (out, shape[1] // groups, *kernel), *([(out,)] if biased else [])]
    tensors = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    tensors = [value.to(dtype).requires_grad_() for value in tensors]
    return tensors, lambda v: [*v, *([] if biased else [None]), stride, padding, groups]


def gradients(y: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Pull back a cotangent that depends on the size alone."""
    sent = torch.linspace(0, 2, y.numel(), dtype=torch.float64).cos().view(y.shape)
    return torch.autograd.grad(y, inputs, sent.to(y.dtype))


def error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    scale = float(expected.detach().norm()) or 1.0
    return float((found.double() - expected).detach().norm() / scale)


@pytest.mark.parametrize(("sizes", "biased"), CASES, ids=str)
def test_values_and_gradients_are_those_of_the_formula(sizes, biased):
    tensors, arguments = draw(sizes, biased)
    y, expected = conv2d(*arguments(tensors)), naive_conv2d(*arguments(tensors))
    assert error(y, expected) < 1e-12
    for found, wanted in zip(gradients(y, tensors), gradients(expected, tensors), strict=True):
        assert error(found, wanted) < 1e-11


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("sizes", SIZES[:4], ids=str)
def test_rounding_is_that_of_the_number_format(sizes, dtype):
    forward, backward = TOLERANCE[dtype]
    tensors, arguments = draw(sizes, True, dtype)
    exact = [value.detach().double().requires_grad_() for value in tensors]
    y, expected = conv2d(*arguments(tensors)), naive_conv2d(*arguments(exact))
    assert y.dtype == dtype
    assert error(y, expected) < forward
    for found, wanted in zip(gradients(y, tensors), gradients(expected, exact), strict=True):
        assert found.dtype == dtype
        assert error(found, wanted) < backward


@pytest.mark.parametrize("sizes", [SIZES[4], SIZES[6]], ids=str)
def test_gradcheck_once_and_twice(sizes):
    tensors, arguments = draw(sizes, True)
    torch.autograd.gradcheck(
        lambda *v: conv2d(*arguments(v)), tensors, eps=1e-6, atol=1e-7, fast_mode=True
    )
    torch.autograd.gradgradcheck(
        lambda *v: conv2d(*arguments(v)), tensors, atol=1e-7, fast_mode=True
    )


@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[3]], ids=str)
def test_memory_layout_does_not_matter(sizes):
    tensors, arguments = draw(sizes, True)
    expected = gradients(conv2d(*arguments(tensors)), tensors)
    last = [v.detach().contiguous(memory_format=torch.channels_last) for v in tensors[:2]]
    strided = torch.stack([tensors[0].detach()] * 2, -1)[..., 0]
    for x, weight in (last, [strided, tensors[1].detach()]):
        others = [value.requires_grad_() for value in (x, weight, tensors[2].detach())]
        for found, wanted in zip(
            gradients(conv2d(*arguments(others)), others), expected, strict=True
        ):
            torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


def test_autocast_trains():
    tensors, arguments = draw(SIZES[3], True, torch.float32)
    exact = [value.detach().double().requires_grad_() for value in tensors]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = conv2d(*arguments(tensors))
    expected = naive_conv2d(*arguments(exact))
    assert y.dtype == torch.bfloat16
    assert error(y, expected) < 8e-3
    for found, wanted in zip(gradients(y, tensors), gradients(expected, exact), strict=True):
        assert found.dtype == torch.float32
        assert error(found, wanted) < 1.5e-2


def test_two_runs_agree_to_the_bit():
    tensors, arguments = draw(SIZES[3], True, torch.float32)
    runs = [conv2d(*arguments(tensors)) for _ in range(2)]
    assert torch.equal(*runs)
    for first, second in zip(*(gradients(y, tensors) for y in runs), strict=True):
        assert torch.equal(first, second)


def test_compiles_whole_with_its_backward(unchecked):
    torch.compiler.reset()
    tensors, arguments = draw(SIZES[3], True)
    compiled = torch.compile(conv2d, fullgraph=True, backend="aot_eager")
    y, expected = compiled(*arguments(tensors)), conv2d(*arguments(tensors))
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    for found, wanted in zip(gradients(y, tensors), gradients(expected, tensors), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(4, 3, 5, 2))

    def forward(self, x):
        return conv2d(x, self.weight, None, (2, 1), (0, 1))


def test_exports_with_any_batch_and_width(unchecked):
    shapes = {0: torch.export.Dim("batch"), 3: torch.export.Dim("width")}
    module = Layer()
    with torch.no_grad():
        program = torch.export.export(module, (torch.randn(2, 3, 9, 6),), dynamic_shapes=(shapes,))
    x = torch.randn(3, 3, 9, 11)
    torch.testing.assert_close(program.module()(x), module(x))


def test_the_matrix_products_are_for_many_channels_in_training_only(monkeypatch):
    monkeypatch.setattr(MODULE, "PRODUCT_CHANNELS", PRODUCT_CHANNELS)

    def own(channels: int, *, trained: bool = True) -> bool:
        """Say whether the backward pass is ours."""
        x = torch.zeros(1, channels, 2, 2, requires_grad=True)
        weight = torch.zeros(1, channels, 1, 1, requires_grad=trained)
        return _Conv2d.__name__ in type(conv2d(x, weight).grad_fn).__name__

    assert [own(n) for n in (PRODUCT_CHANNELS - 1, PRODUCT_CHANNELS)] == [False, True]
    assert not own(PRODUCT_CHANNELS, trained=False)
