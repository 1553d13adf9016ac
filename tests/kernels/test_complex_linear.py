"""The complex linear layer against complex numbers."""

import pytest
import torch
from kernel_checks import TOLERANCE, agree, compiles, exports
from torch import Tensor

from sixfold.kernels import complex_linear

SIZES = [  # batch shape, in, out
    ((4,), 3, 5),
    ((), 3, 2),  # one vector
    ((2, 3), 1, 1),
    ((2, 1, 3), 7, 4),
    ((0, 2), 3, 4),
    ((5,), 64, 33),
]
SIZES += [((1 + i % 4,), 1 + i, 16 - i) for i in range(15)]


def planar(function):
    return lambda x, a, bias_a, b, bias_b: function(x, (a, bias_a), (b, bias_b))


def naive_complex_linear(x, real, imag):
    """Multiply as complex numbers; the biases as two layers used crosswise give them."""
    z = torch.complex(*x.chunk(2, -1)) @ torch.complex(real[0], imag[0]).t()
    z = z + torch.complex(real[1] - imag[1], real[1] + imag[1])
    return torch.cat([z.real, z.imag], -1)


def draw(sizes, dtype=torch.float64) -> list[Tensor]:
    batch, inputs, out = sizes
    generator = torch.Generator().manual_seed(inputs + out)
    shapes = [(*batch, 2 * inputs), *[(out, inputs), (out,)] * 2]
    drawn = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    return [value.to(dtype).requires_grad_() for value in drawn]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_are_those_of_complex_numbers(sizes):
    agree(planar(complex_linear), planar(naive_complex_linear), draw(sizes))


@pytest.mark.parametrize("dtype", list(TOLERANCE)[1:], ids=str)
@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[5]], ids=str)
def test_rounding_is_that_of_the_number_format(sizes, dtype):
    agree(planar(complex_linear), planar(naive_complex_linear), draw(sizes, dtype))


@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[1]], ids=str)
def test_gradcheck(sizes):
    assert torch.autograd.gradcheck(planar(complex_linear), draw(sizes), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[3]], ids=str)
def test_compiles_whole_with_its_backward(sizes, unchecked):
    compiles(planar(complex_linear), draw(sizes))


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        parts = draw(((), 3, 4), torch.float32)[1:]
        self.parts = torch.nn.ParameterList([value.detach() for value in parts])

    def forward(self, x):
        return planar(complex_linear)(x, *self.parts)


def test_exports_with_any_batch(unchecked):
    free = {0: torch.export.Dim("batch")}
    exports(Layer(), torch.randn(2, 5, 6), torch.randn(3, 5, 6), free)


@pytest.mark.parametrize(
    ("x", "a", "b", "message"),
    [
        ((2, 5), (4, 3), (4, 3), "x should have 6 planar coordinates, got 5"),
        ((2, 6), (4, 3), (3, 3), r"weights \(4, 3\) and \(3, 3\) should be alike"),
    ],
)
def test_sizes_that_do_not_fit_are_named(x, a, b, message):
    layers = [(torch.zeros(shape), torch.zeros(shape[0])) for shape in (a, b)]
    with pytest.raises(ValueError, match=message):
        complex_linear(torch.zeros(x), *layers)


@pytest.mark.parametrize("part", [0, 1], ids=["real", "imaginary"])
@pytest.mark.parametrize("shape", [(1,), (), (1, 4)], ids=str)
def test_a_bias_of_another_shape_is_not_broadcast(part, shape, unchecked):
    biases = [torch.zeros(4), torch.zeros(4)]
    biases[part] = torch.zeros(shape)
    layers = [(torch.zeros(4, 3), bias) for bias in biases]
    with pytest.raises(ValueError, match="and biases of 4 numbers, got biases"):
        complex_linear(torch.zeros(2, 6), layers[0], layers[1])


def test_no_bias_is_a_bias_of_zero():
    x, a, bias, b, _ = draw(SIZES[0])
    zero = torch.zeros_like(bias)
    found = complex_linear(x, (a, None), (b, None))
    torch.testing.assert_close(found, complex_linear(x, (a, zero), (b, zero)))
