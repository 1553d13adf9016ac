"""The weight gradient of a convolution against the formula."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.grad import conv2d_weight as torch_conv2d_weight

from sixfold.kernels import conv2d_weight

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
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1.5e-2}


def naive_conv2d_weight(x, shape, grad, stride, padding, groups):
    """Sum over positions: what a tap saw times what its output is sent."""
    out, inputs, height, width = shape
    x = torch.nn.functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    x, grad = x.unflatten(1, (groups, inputs)), grad.unflatten(1, (groups, out // groups))
    result = x.new_zeros(groups, out // groups, inputs, height, width)
    for i, j, r, c in itertools.product(*map(range, (height, width, *grad.shape[3:]))):
        seen = x[..., r * stride[0] + i, c * stride[1] + j]
        result[..., i, j] += torch.einsum("bgi,bgo->goi", seen, grad[..., r, c])
    return result.flatten(0, 1)


def draw(sizes, dtype=torch.float64):
    shape, out, kernel, stride, padding, groups = sizes
    generator = torch.Generator().manual_seed(sum(shape) + out)
    result = [
        (n + 2 * p - k) // s + 1
        for n, p, k, s in zip(shape[2:], padding, kernel, stride, strict=True)
    ]
    x, grad = (
        torch.randn(s, generator=generator, dtype=torch.float64).to(dtype)
        for s in (shape, (shape[0], out, *result))
    )
    return x, (out, shape[1] // groups, *kernel), grad, stride, padding, groups


def error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found.double() - expected).norm() / (float(expected.norm()) or 1.0))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_it_is_the_formula_and_pytorchs(sizes):
    arguments = draw(sizes)
    found = conv2d_weight(*arguments)
    assert error(found, naive_conv2d_weight(*arguments)) < 1e-12
    x, shape, grad, stride, padding, groups = arguments
    if len(x):  # which PyTorch's needs
        theirs = torch_conv2d_weight(x, shape, grad, stride, padding, 1, groups)
        assert error(found, theirs) < 1e-12


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("sizes", SIZES[:4], ids=str)
def test_rounding_is_that_of_the_number_format(sizes, dtype):
    x, shape, grad, *options = draw(sizes, dtype)
    expected = naive_conv2d_weight(x.double(), shape, grad.double(), *options)
    found = conv2d_weight(x, shape, grad, *options)
    assert found.dtype == dtype
    assert error(found, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("sizes", [SIZES[4], SIZES[6]], ids=str)
def test_gradcheck(sizes):
    x, shape, grad, *options = draw(sizes)
    inputs = (x.requires_grad_(), grad.requires_grad_())
    torch.autograd.gradcheck(
        lambda a, b: conv2d_weight(a, shape, b, *options), inputs, fast_mode=True
    )


@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[3]], ids=str)
def test_memory_layout_does_not_matter(sizes):
    x, shape, grad, *options = draw(sizes)
    expected = conv2d_weight(x, shape, grad, *options)
    for change in (
        lambda v: v.contiguous(memory_format=torch.channels_last),
        lambda v: torch.stack([v, v], -1)[..., 0],
    ):
        found = conv2d_weight(change(x), shape, change(grad), *options)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
