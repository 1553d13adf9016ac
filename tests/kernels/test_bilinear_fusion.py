"""Bilinear fusion against the sum over every pair of coordinates."""

import time
from functools import partial

import pytest
import torch
from kernel_checks import TOLERANCE, agree, compiles
from torch import Tensor

from sixfold.kernels import bilinear_fusion

SIZES = [  # batch, heads, x and y of a head, outputs
    (5, 1, 7, 3, 1),
    (5, 2, 3, 4, 1),
    (4, 3, 1, 1, 1),
    (1, 5, 2, 3, 2),  # outputs between x and y
    (3, 4, 5, 2, 3),
    (6, 10, 2, 5, 1),  # ten heads join
    (6, 12, 2, 5, 2),  # six do, and there are two outputs
    (2, 7, 9, 1, 1),
    (3, 7, 40, 33, 1),  # a prime number of heads, too wide to join
    (2, 1, 70, 2, 2),
    (3, 2, 65, 1, 1),
    (3, 9, 7, 7, 3),
    (2, 64, 1, 1, 1),
    (2, 65, 1, 1, 1),
    (2, 66, 1, 1, 2),
    (2, 6, 32, 32, 1),
    (2, 6, 11, 32, 2),
    (1, 1, 1, 1, 1),
    (0, 2, 3, 4, 2),  # no batch
    (7, 20, 3, 2, 1),
]


def naive_bilinear_fusion(x, y, weight, heads):
    """Read the flat weight in its stored order and sum every product of two coordinates."""
    x, y = x.unflatten(1, (heads, -1)), y.unflatten(1, (heads, -1))
    flat = weight.flatten().view(heads, x.shape[2], weight.shape[1], y.shape[2])
    out = []
    for o in range(weight.shape[1]):
        total = x.new_zeros(len(x))
        for h in range(heads):
            total = total + ((x[:, h] @ flat[h, :, o]) * y[:, h]).sum(1)
        out.append(total)
    return torch.stack(out, 1)


def draw(sizes, dtype=torch.float64) -> list[Tensor]:
    batch, heads, x_head, y_head, out = sizes
    generator = torch.Generator().manual_seed(sum(sizes))
    shapes = [(batch, heads * x_head), (batch, heads * y_head), (heads * x_head * y_head, out)]
    drawn = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    return [value.to(dtype).requires_grad_() for value in drawn]


def ways(heads: int):
    """The operator and its definition, for a number of heads."""
    return partial(bilinear_fusion, heads=heads), partial(naive_bilinear_fusion, heads=heads)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_are_those_of_the_formula(sizes):
    agree(*ways(sizes[1]), draw(sizes))


@pytest.mark.parametrize("dtype", list(TOLERANCE)[1:], ids=str)
@pytest.mark.parametrize("sizes", [SIZES[4], SIZES[6], SIZES[8]], ids=str)
def test_rounding_is_that_of_the_number_format(sizes, dtype):
    agree(*ways(sizes[1]), draw(sizes, dtype))


@pytest.mark.parametrize("sizes", [(2, 2, 3, 2, 2), (2, 1, 2, 3, 1), (1, 3, 33, 1, 1)], ids=str)
def test_gradcheck(sizes):
    function, _ = ways(sizes[1])
    assert torch.autograd.gradcheck(function, draw(sizes), eps=1e-6, atol=1e-7)
    assert torch.autograd.gradgradcheck(function, draw(sizes), atol=1e-7)


def test_memory_layout_does_not_matter():
    x, y, weight = draw(SIZES[6])
    strided = [value.detach().t().contiguous().t() for value in (x, y, weight)]
    assert not any(value.is_contiguous() for value in strided)
    found = bilinear_fusion(*strided, heads=SIZES[6][1])
    torch.testing.assert_close(found, bilinear_fusion(x, y, weight, heads=SIZES[6][1]))


@pytest.mark.parametrize("sizes", [SIZES[1], SIZES[6]], ids=str)
def test_compiles_whole_with_its_backward(sizes, unchecked):
    compiles(ways(sizes[1])[0], draw(sizes))


class Fusion(torch.nn.Module):
    def __init__(self, weight: Tensor, heads: int) -> None:
        super().__init__()
        self.weight, self.heads = torch.nn.Parameter(weight), heads

    def forward(self, x, y):
        return bilinear_fusion(x, y, self.weight, heads=self.heads)


@pytest.mark.parametrize("sizes", [SIZES[4], SIZES[6]], ids=str)
def test_exports_with_any_batch(sizes, unchecked):
    x, y, weight = (value.detach() for value in draw(sizes))
    module, batch = Fusion(weight, sizes[1]), torch.export.Dim("batch")
    program = torch.export.export(module, (x, y), dynamic_shapes=({0: batch}, {0: batch}))
    assert "sixfold" not in str(program.graph)
    more = [torch.cat([value, value, value]) for value in (x, y)]
    torch.testing.assert_close(program.module()(*more), module(*more))


@pytest.mark.parametrize(
    ("shapes", "heads", "message"),
    [
        (((2, 6), (2, 9), (18, 1)), 2, "2 heads should divide both streams, of 6 and 9"),
        (((2, 6), (2, 9), (18, 1)), 0, "0 heads"),
        (((2, 6), (1, 9), (18, 1)), 3, "x has 2 rows and y 1"),
        (((2, 6), (2, 9), (17, 1)), 3, "need a weight of 18 entries an output, got 17"),
        (((2, 6), (2, 9), (36, 1)), 3, "18 entries an output, got 36"),
    ],
)
def test_sizes_that_do_not_fit_are_named(shapes, heads, message, unchecked):
    with pytest.raises(ValueError, match=message):
        bilinear_fusion(*(torch.zeros(shape) for shape in shapes), heads=heads)


@pytest.mark.slow
def test_the_product_per_head_is_twenty_times_as_fast_as_the_broadcast_one():
    x, y, weight = (value.detach() for value in draw((4096, 10, 40, 40, 1), torch.float32))

    def broadcast():
        rows = x.view(-1, 10, 1, 40) @ weight.view(10, 40, 40)
        return (rows @ y.view(-1, 10, 40, 1)).sum(1)

    def fastest(run) -> float:
        run()
        times = []
        for _ in range(5):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        return min(times)

    assert fastest(broadcast) > 20 * fastest(lambda: bilinear_fusion(x, y, weight, heads=10))
