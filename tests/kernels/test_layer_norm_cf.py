"""Layer norm over channels against means and variances written out."""

from functools import partial

import pytest
import torch
from kernel_checks import TOLERANCE, agree, allocated, compiles, exports
from torch import Tensor

from sixfold.kernels import layer_norm_cf

SHAPES = [
    (2, 5, 3, 4),
    (1, 1, 2, 2),  # one channel: nothing but the bias is left
    (1, 2, 1, 1),
    (3, 48, 7, 5),
    (2, 33, 1, 6),
    (1, 64, 9, 1),
    (0, 4, 3, 3),
    (2, 4, 0, 3),
]
CASES = [*((shape, 1e-6) for shape in SHAPES), *((shape, 0.5) for shape in SHAPES[:6])]
CASES += [((2, channels, 3, 2), 1e-6) for channels in (3, 7, 16, 96, 100, 129)]


def naive_layer_norm_cf(x, weight, bias, *, eps=1e-6):
    """Mean and biased variance of each pixel, as the formula has them."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).square().mean(1, keepdim=True)
    normal = (x - mean) / torch.sqrt(variance + eps)
    return normal * weight[:, None, None] + bias[:, None, None]


def draw(shape, dtype=torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    shapes = [shape, shape[1:2], shape[1:2]]
    drawn = [torch.randn(s, generator=generator, dtype=torch.float64) + 0.5 for s in shapes]
    return [value.to(dtype).requires_grad_() for value in drawn]


@pytest.mark.parametrize(("shape", "eps"), CASES, ids=str)
def test_values_and_gradients_are_those_of_the_formula(shape, eps):
    agree(partial(layer_norm_cf, eps=eps), partial(naive_layer_norm_cf, eps=eps), draw(shape))


@pytest.mark.parametrize("dtype", list(TOLERANCE)[1:], ids=str)
@pytest.mark.parametrize("shape", [SHAPES[3], SHAPES[4]], ids=str)
def test_rounding_is_that_of_the_number_format(shape, dtype):
    agree(layer_norm_cf, naive_layer_norm_cf, draw(shape, dtype))


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2]], ids=str)
def test_gradcheck(shape):
    assert torch.autograd.gradcheck(layer_norm_cf, draw(shape), eps=1e-6, atol=1e-7)
    assert torch.autograd.gradgradcheck(layer_norm_cf, draw(shape), atol=1e-7)


def test_both_layouts_give_the_same_numbers_and_channels_come_out_last():
    x, weight, bias = draw(SHAPES[3])
    lasting = x.detach().to(memory_format=torch.channels_last)
    first, second = layer_norm_cf(x, weight, bias), layer_norm_cf(lasting, weight, bias)
    assert torch.equal(first, second)
    for y in (first, second):
        assert y.is_contiguous(memory_format=torch.channels_last)


def test_a_channels_last_image_is_not_copied():
    x = torch.randn(1, 32, 40, 40).to(memory_format=torch.channels_last)
    weight, bias = torch.ones(32), torch.zeros(32)
    statistics = 2 * 40 * 40 * 4
    assert allocated(lambda: layer_norm_cf(x, weight, bias)) <= x.nbytes + statistics


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[4]], ids=str)
def test_compiles_whole_with_its_backward(shape, unchecked):
    compiles(layer_norm_cf, draw(shape))


class Norm(torch.nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(channels))
        self.bias = torch.nn.Parameter(torch.rand(channels))

    def forward(self, x):
        return layer_norm_cf(x, self.weight, self.bias)


def test_exports_with_any_batch_and_size(unchecked):
    free = {axis: torch.export.Dim(name) for axis, name in ((0, "b"), (2, "h"), (3, "w"))}
    exports(Norm(6), torch.randn(2, 6, 5, 4), torch.randn(3, 6, 9, 11), free)


@pytest.mark.parametrize(("weight", "bias"), [((4,), (5,)), ((5,), (4,)), ((5, 1), (5,))])
def test_sizes_that_do_not_fit_are_named(weight, bias, unchecked):
    message = r"x of shape \(2, 5, 3, 3\) needs a weight and a bias of 5 numbers, got "
    with pytest.raises(ValueError, match=message):
        layer_norm_cf(torch.zeros(2, 5, 3, 3), torch.zeros(weight), torch.zeros(bias))
