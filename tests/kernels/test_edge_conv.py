"""One depthwise convolution against the learned one and each fixed one by itself."""

import pytest
import torch
from kernel_checks import TOLERANCE, agree, compiles, exports
from torch import Tensor
from torch.nn import functional

from sixfold.kernels import edge_conv, edge_conv_merge

SIZES = [  # batch, channels, height, width, kernel, branches
    (2, 3, 5, 4, (3, 3), 3),
    (1, 1, 1, 1, (3, 3), 3),
    (2, 4, 6, 5, (3, 3), 0),  # no fixed kernels
    (1, 2, 7, 3, (5, 1), 1),
    (1, 2, 2, 2, (1, 1), 2),
    (1, 3, 2, 3, (3, 7), 4),  # a kernel larger than the image
    (0, 2, 4, 4, (3, 3), 3),
]
SIZES += [(1 + i % 3, 1 + i % 5, 3 + i, 9 - i // 2, (3, 3), 1 + i % 3) for i in range(14)]


def naive_edge_conv(x, weight, bias, branches):
    """Convolve once for every kernel, tap by tap, and add the images."""
    kernels = [(weight, bias), *((scale * mask, offset) for scale, mask, offset in branches)]
    height, width = weight.shape[2:]
    sides = (width // 2, width // 2, height // 2, height // 2)
    padded, total = functional.pad(x, sides), torch.zeros_like(x)
    for kernel, offset in kernels:
        total = total + offset[:, None, None]
        for i in range(height):
            for j in range(width):
                seen = padded[:, :, i : i + x.shape[2], j : j + x.shape[3]]
                total = total + kernel[:, 0, i, j, None, None] * seen
    return total


def grouped(function):
    """Let a function that takes branches take their tensors one after the other."""

    def flat(x, weight, bias, *rest):
        branches = [(rest[i], rest[i + 1], rest[i + 2]) for i in range(0, len(rest), 3)]
        return function(x, weight, bias, branches)

    return flat


def draw(sizes, dtype=torch.float64) -> list[Tensor]:
    batch, channels, height, width, kernel, branches = sizes
    generator = torch.Generator().manual_seed(batch + channels + height)
    shapes = [(batch, channels, height, width), (channels, 1, *kernel), (channels,)]
    for i in range(branches):  # the first mask is shared by all channels
        shapes += [(channels, 1, 1, 1), (channels if i else 1, 1, *kernel), (channels,)]
    drawn = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    return [value.to(dtype).requires_grad_() for value in drawn]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_are_those_of_the_sum_of_images(sizes):
    agree(grouped(edge_conv), grouped(naive_edge_conv), draw(sizes))


@pytest.mark.parametrize("dtype", list(TOLERANCE)[1:], ids=str)
@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[5]], ids=str)
def test_rounding_is_that_of_the_number_format(sizes, dtype):
    agree(grouped(edge_conv), grouped(naive_edge_conv), draw(sizes, dtype))


@pytest.mark.parametrize("sizes", [(1, 2, 3, 2, (3, 3), 2), SIZES[4]], ids=str)
def test_gradcheck(sizes):
    assert torch.autograd.gradcheck(grouped(edge_conv), draw(sizes), eps=1e-6, atol=1e-7)


def test_merging_once_equals_merging_at_every_call():
    x, weight, bias, *rest = draw(SIZES[0])
    branches = [(rest[i], rest[i + 1], rest[i + 2]) for i in range(0, len(rest), 3)]
    merged = edge_conv_merge(weight, bias, branches)
    assert torch.equal(edge_conv(x, *merged, []), edge_conv(x, weight, bias, branches))


def test_channels_last_stays_channels_last():
    x, *rest = (value.detach() for value in draw((2, 4, 6, 5, (3, 3), 2)))
    y = grouped(edge_conv)(x.to(memory_format=torch.channels_last), *rest)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, grouped(edge_conv)(x, *rest))


@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[3]], ids=str)
def test_compiles_whole_with_its_backward(sizes, unchecked):
    compiles(grouped(edge_conv), draw(sizes))


class Edges(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        drawn = draw((1, 4, 1, 1, (3, 3), 2), torch.float32)[1:]
        self.parts = torch.nn.ParameterList([value.detach() for value in drawn])

    def forward(self, x):
        return grouped(edge_conv)(x, *self.parts)


def test_exports_with_any_batch_and_size(unchecked):
    free = {axis: torch.export.Dim(name) for axis, name in ((0, "b"), (2, "h"), (3, "w"))}
    exports(Edges(), torch.randn(2, 4, 6, 5), torch.randn(3, 4, 9, 11), free)


@pytest.mark.parametrize(
    ("x", "weight", "message"),
    [
        ((1, 3, 4, 4), (2, 1, 3, 3), r"x of 3 channels needs a kernel \(3, 1, odd, odd\), got \(2"),
        ((1, 2, 4, 4), (2, 1, 2, 3), r"x of 2 channels .* got \(2, 1, 2, 3\)"),
        ((1, 2, 4, 4), (2, 1, 3, 4), r"x of 2 channels .* got \(2, 1, 3, 4\)"),
    ],
)
def test_sizes_that_do_not_fit_are_named(x, weight, message, unchecked):
    with pytest.raises(ValueError, match=message):
        edge_conv(torch.zeros(x), torch.zeros(weight), torch.zeros(weight[0]), [])


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_a_bias_of_another_shape_is_not_broadcast(shape, unchecked):
    with pytest.raises(ValueError, match=r"bias should be \(2,\), got"):
        edge_conv(torch.zeros(1, 2, 4, 4), torch.zeros(2, 1, 3, 3), torch.zeros(shape), [])


@pytest.mark.parametrize(
    ("scale", "mask", "offset"),
    [
        ((3, 1, 1, 1), (2, 1, 3, 3), (2,)),
        ((2, 1, 1, 1), (2, 1, 3, 5), (2,)),
        ((2, 1, 1, 1), (3, 1, 3, 3), (2,)),
        ((2, 1, 1, 1), (2, 1, 3, 3), (1,)),
    ],
)
def test_a_branch_that_does_not_fit_is_named(scale, mask, offset):
    good = (torch.zeros(2, 1, 1, 1), torch.zeros(1, 1, 3, 3), torch.zeros(2))
    bad = (torch.zeros(scale), torch.zeros(mask), torch.zeros(offset))
    message = r"a kernel \(2, 1, 3, 3\) needs branches .*, got in branch 1 "
    with pytest.raises(ValueError, match=message):
        edge_conv_merge(torch.zeros(2, 1, 3, 3), torch.zeros(2), [good, bad])
