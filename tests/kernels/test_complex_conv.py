"""Complex convolutions on planar tensors against complex numbers."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sixfold.kernels import (
    apply_kernel,
    apply_transposed,
    complex_bias,
    complex_conv2d,
    complex_conv_transpose2d,
    complex_kernel,
    scaled_kernel,
    transposed_kernels,
)
from sixfold.kernels.complex_conv import GAUSS_CHANNELS


@dataclass(frozen=True)
class Sizes:
    inputs: tuple[int, ...]  # complex channels of each input
    out: int
    kernel: tuple[int, int]
    size: tuple[int, int]  # height, width
    batch: int = 2
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)


CONV = [
    Sizes((3,), 4, (5, 2), (9, 6), stride=(2, 1), padding=(0, 1)),
    Sizes((3,), 4, (5, 2), (8, 6), stride=(2, 1), padding=(0, 1)),
    Sizes((1,), 3, (2, 2), (4, 3), stride=(2, 1), padding=(0, 1)),
    Sizes((1,), 1, (1, 1), (5, 4)),
    Sizes((2,), 1, (7, 7), (5, 3), padding=(3, 3)),
    Sizes((2, 2), 3, (3, 2), (6, 5), padding=(1, 0)),
    Sizes((1, 3), 2, (3, 2), (6, 5), stride=(1, 2)),
    Sizes((1, 2, 1), 2, (2, 2), (4, 5)),
    Sizes((2,), 2, (3, 1), (3, 1), batch=1),
    Sizes((2, 1), 2, (3, 2), (6, 5), batch=0),
]
TRANSPOSED = [
    Sizes((3,), 4, (2, 2), (1, 6)),
    Sizes((3,), 4, (5, 2), (4, 6)),
    Sizes((3,), 4, (6, 2), (4, 6)),
    Sizes((2, 2), 3, (5, 2), (7, 5)),
    Sizes((2, 2), 1, (6, 2), (7, 5)),
    Sizes((1, 3), 2, (2, 2), (3, 4)),
    Sizes((1, 2, 1), 2, (5, 2), (3, 4)),
    Sizes((2,), 2, (3, 1), (3, 4)),
    Sizes((2,), 2, (4, 3), (2, 3), batch=1),
    Sizes((2,), 1, (5, 2), (1, 2), batch=1),  # one step out
    Sizes((2, 1), 2, (5, 2), (3, 4), batch=0),
]
FORMS = {"block": (1000, 0), "gauss": (1, 0), "thin": (1000, 1000)}  # channels: Gauss, thin
TOLERANCE = {torch.float32: (2e-6, 1e-5), torch.bfloat16: (8e-3, 1.5e-2)}


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    """Force one form of the kernel."""
    names = ("GAUSS_CHANNELS", "THIN_CHANNELS")
    for name, value in zip(names, FORMS[request.param], strict=True):
        monkeypatch.setattr(f"sixfold.kernels.complex_conv.{name}", value)
    return request.param


def naive_complex_conv2d(x, real, imag, stride, padding):
    """Multiply as complex numbers, window by window; the biases as two crosswise layers give."""
    x = torch.cat([torch.complex(*part.chunk(2, 1)) for part in x], 1)
    x = functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    weight = torch.complex(real[0], imag[0])
    rows = (x.shape[2] - weight.shape[2]) // stride[0] + 1
    columns = (x.shape[3] - weight.shape[3]) // stride[1] + 1
    y = []
    for r, c in itertools.product(range(rows), range(columns)):
        top, left = r * stride[0], c * stride[1]
        window = x[:, :, top : top + weight.shape[2], left : left + weight.shape[3]]
        y.append(torch.einsum("bihw,oihw->bo", window, weight))
    y = torch.stack(y, -1).unflatten(-1, (rows, columns))
    y = y + torch.complex(real[1] - imag[1], real[1] + imag[1])[:, None, None]
    return torch.cat([y.real, y.imag], 1)


def naive_complex_conv_transpose2d(x, real, imag):
    """Scatter every input position, rows two apart; crop the width by the kernel's less one."""
    x = torch.cat([torch.complex(*part.chunk(2, 1)) for part in x], 1)
    weight = torch.complex(real[0], imag[0])
    (_, out, height, width), (batch, _, rows, columns) = weight.shape, x.shape
    y = x.new_zeros(batch, out, 2 * (rows - 1) + height, columns + width - 1)
    for r, c in itertools.product(range(rows), range(columns)):
        spread = torch.einsum("bi,iohw->bohw", x[:, :, r, c], weight)
        before, after = (2 * r, c), (y.shape[2] - 2 * r - height, y.shape[3] - c - width)
        y = y + functional.pad(spread, (before[1], after[1], before[0], after[0]))
    y = y[..., width - 1 : y.shape[3] - (width - 1)]
    y = y + torch.complex(real[1] - imag[1], real[1] + imag[1])[:, None, None]
    return torch.cat([y.real, y.imag], 1)


class Case:
    """Tensors of given sizes, and the two ways to combine them."""

    def __init__(self, sizes: Sizes, *, transposed: bool, dtype=torch.float64) -> None:
        self.sizes, self.transposed, self.count = sizes, transposed, len(sizes.inputs)
        generator = torch.Generator().manual_seed(sum(sizes.inputs) + sizes.kernel[0])
        shapes = [(sizes.batch, 2 * n, *sizes.size) for n in sizes.inputs]
        channels = (sum(sizes.inputs), sizes.out)
        weight = (*(channels if transposed else channels[::-1]), *sizes.kernel)
        shapes += [weight, (sizes.out,)] * 2
        drawn = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
        self.tensors = [value.to(dtype).requires_grad_() for value in drawn]

    def exact(self) -> list[Tensor]:
        return [value.detach().double().requires_grad_() for value in self.tensors]

    def fast(self, *tensors: Tensor) -> Tensor:
        x, (a, bias_a, b, bias_b) = tensors[: self.count], tensors[self.count :]
        if self.transposed:
            return complex_conv_transpose2d(x, (a, bias_a), (b, bias_b))
        options = {"stride": self.sizes.stride, "padding": self.sizes.padding}
        return complex_conv2d(x, (a, bias_a), (b, bias_b), **options)

    def naive(self, *tensors: Tensor) -> Tensor:
        x, (a, bias_a, b, bias_b) = tensors[: self.count], tensors[self.count :]
        if self.transposed:
            return naive_complex_conv_transpose2d(x, (a, bias_a), (b, bias_b))
        options = (self.sizes.stride, self.sizes.padding)
        return naive_complex_conv2d(x, (a, bias_a), (b, bias_b), *options)


CASES = [(sizes, False) for sizes in CONV] + [(sizes, True) for sizes in TRANSPOSED]
SOME = [(CONV[0], False), (CONV[6], False), (TRANSPOSED[1], True), (TRANSPOSED[4], True)]
both_kinds = pytest.mark.parametrize(("sizes", "transposed"), CASES, ids=str)
some_of_both = pytest.mark.parametrize(("sizes", "transposed"), SOME, ids=str)


def gradients(y: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Pull back a cotangent that depends on the size alone."""
    sent = torch.linspace(0, 2, y.numel(), dtype=torch.float64).cos().view(y.shape)
    return torch.autograd.grad(y, inputs, sent.to(y.dtype))


def error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    scale = float(expected.detach().norm()) or 1.0
    return float((found.double() - expected).detach().norm() / scale)


@both_kinds
def test_values_and_gradients_are_those_of_complex_numbers(sizes, transposed, form):
    case = Case(sizes, transposed=transposed)
    y, expected = case.fast(*case.tensors), case.naive(*case.tensors)
    assert error(y, expected) < 1e-12
    found, wanted = gradients(y, case.tensors), gradients(expected, case.tensors)
    for one, other in zip(found, wanted, strict=True):
        assert error(one, other) < 1e-11


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@some_of_both
def test_rounding_is_that_of_the_number_format(sizes, transposed, form, dtype):
    forward, backward = TOLERANCE[dtype]
    if form == "gauss" and dtype == torch.bfloat16:
        forward *= 2  # three sums in the place of two products: rounding of A + B and re + im
        backward *= 2
    case = Case(sizes, transposed=transposed, dtype=dtype)
    exact = case.exact()
    y, expected = case.fast(*case.tensors), case.naive(*exact)
    assert y.dtype == dtype
    assert error(y, expected) < forward
    for found, wanted in zip(gradients(y, case.tensors), gradients(expected, exact), strict=True):
        assert error(found, wanted) < backward


@pytest.mark.parametrize("sizes", TRANSPOSED, ids=str)
def test_the_transposed_one_is_torchs(sizes, form):
    case = Case(sizes, transposed=True)
    x, (a, bias_a, b, bias_b) = case.tensors[: case.count], case.tensors[case.count :]
    re, im = (torch.cat([part.chunk(2, 1)[i] for part in x], 1) for i in (0, 1))

    def layer(value, weight, bias):
        return functional.conv_transpose2d(
            value, weight, bias, stride=(2, 1), padding=(0, sizes.kernel[1] - 1)
        )

    real = layer(re, a, bias_a) - layer(im, b, bias_b)
    imag = layer(im, a, bias_a) + layer(re, b, bias_b)
    assert error(case.fast(*case.tensors), torch.cat([real, imag], 1)) < 1e-12


@pytest.mark.parametrize(("sizes", "transposed"), [SOME[1], SOME[3]], ids=str)
def test_gradcheck(sizes, transposed, form):
    case = Case(sizes, transposed=transposed)
    torch.autograd.gradcheck(case.fast, case.tensors, eps=1e-6, atol=1e-7, fast_mode=True)


@some_of_both
def test_memory_layout_does_not_matter(sizes, transposed, form):
    case = Case(sizes, transposed=transposed)
    expected = gradients(case.fast(*case.tensors), case.tensors)
    layouts = {
        "channels last": lambda v: v.contiguous(memory_format=torch.channels_last),
        "strided": lambda v: torch.stack([v, v], -1)[..., 0],
    }
    for change in layouts.values():
        others = [
            (change(v.detach()) if v.ndim == 4 else v.detach()).requires_grad_()
            for v in case.tensors
        ]
        for found, wanted in zip(gradients(case.fast(*others), others), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


@some_of_both
def test_channels_last_stays_channels_last(sizes, transposed, form):
    case = Case(sizes, transposed=transposed)
    x = [v.contiguous(memory_format=torch.channels_last) for v in case.tensors[: case.count]]
    y = case.fast(*x, *case.tensors[case.count :])
    if form == "thin" and transposed:
        return  # a planar map of one channel is as good either way
    assert y.is_contiguous(memory_format=torch.channels_last)


@some_of_both
def test_a_scale_can_be_folded_into_the_kernel(sizes, transposed, form):
    case = Case(sizes, transposed=transposed)
    x, (a, bias_a, b, bias_b) = case.tensors[: case.count], case.tensors[case.count :]
    scale = torch.linspace(-1, 2, 2 * sizes.out, dtype=torch.float64)
    bias = complex_bias(bias_a, bias_b) * scale
    if transposed:
        kernels = [scaled_kernel(k, scale) for k in transposed_kernels(a, b, sizes.inputs)]
        y = apply_transposed(x, kernels, bias, scale)
    else:
        kernel = scaled_kernel(complex_kernel(a, b, sizes.inputs), scale)
        y = apply_kernel(x, kernel, bias, sizes.stride, sizes.padding, scale)
    assert error(y, case.naive(*case.tensors) * scale[:, None, None]) < 1e-12


@pytest.mark.parametrize(("channels", "sizes"), [(-1, (8, 2)), (0, (12, 1))])
def test_gauss_form_begins_at_its_channels(channels, sizes):
    """Rows are two or three times the outputs, columns two or one times the inputs."""
    n = GAUSS_CHANNELS + channels
    real, imag = torch.zeros(2, 4, n, 1, 1)
    kernel = complex_kernel(real, imag, [n])
    assert kernel.shape == (sizes[0], sizes[1] * n, 1, 1)


@some_of_both
def test_two_runs_agree_to_the_bit(sizes, transposed, form):
    case = Case(sizes, transposed=transposed, dtype=torch.float32)
    runs = [case.fast(*case.tensors) for _ in range(2)]
    assert torch.equal(*runs)
    for first, second in zip(*(gradients(y, case.tensors) for y in runs), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(("sizes", "transposed"), [SOME[1], SOME[3]], ids=str)
def test_compiles_whole_with_its_backward(sizes, transposed, form, unchecked):
    torch.compiler.reset()
    case = Case(sizes, transposed=transposed)
    compiled = torch.compile(case.fast, fullgraph=True, backend="aot_eager")
    y, expected = compiled(*case.tensors), case.fast(*case.tensors)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    found, wanted = gradients(y, case.tensors), gradients(expected, case.tensors)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


class Layer(torch.nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        self.weights = torch.nn.ParameterList(v.detach() for v in case.tensors[case.count :])

    def forward(self, *x):
        return self.case.fast(*x, *self.weights)


@pytest.mark.parametrize(("sizes", "transposed"), [SOME[0], SOME[3]], ids=str)
def test_exports_with_any_batch_and_width(sizes, transposed, form, unchecked):
    case = Case(sizes, transposed=transposed, dtype=torch.float32)
    layer, x = Layer(case), tuple(v.detach() for v in case.tensors[: case.count])
    shapes = {0: torch.export.Dim("batch"), 3: torch.export.Dim("width", min=3)}
    with torch.no_grad():
        program = torch.export.export(
            layer,
            x,
            dynamic_shapes=(tuple(shapes for _ in x),),
            prefer_deferred_runtime_asserts_over_guards=True,  # as sixfold.core.weights.export
        )
    longer = [torch.cat([v, v], 3).repeat(2, 1, 1, 1) for v in x]
    torch.testing.assert_close(program.module()(*longer), layer(*longer))


@pytest.mark.parametrize("name", ["complex_conv2d", "complex_conv_transpose2d"])
def test_other_channels_than_the_kernel_reads_are_named(name, unchecked):
    function = {f.__name__: f for f in (complex_conv2d, complex_conv_transpose2d)}[name]
    weight = (torch.zeros(3, 3, 2, 2), torch.zeros(3))
    x = [torch.zeros(1, 4, 5, 5), torch.zeros(1, 4, 5, 5)]
    message = rf"{name}: the kernel reads 3 .* 6 planar ones in all, got \(1, 4, 5, 5\), \(1, 4"
    with pytest.raises(ValueError, match=message):
        function(x, weight, weight)


@pytest.mark.parametrize("function", [complex_conv2d, complex_conv_transpose2d])
@pytest.mark.parametrize(
    ("imaginary", "bias", "message"),
    [((64, 64, 1, 2), (64,), "should be alike"), ((64, 64, 2, 2), (1,), "biases of 64 numbers")],
)
def test_parts_of_other_shapes_are_not_broadcast(function, imaginary, bias, message, unchecked):
    parts = (
        (torch.zeros(64, 64, 2, 2), torch.zeros(64)),
        (torch.zeros(imaginary), torch.zeros(bias)),
    )
    with pytest.raises(ValueError, match=message):
        function([torch.zeros(1, 128, 3, 3)], *parts)


def test_a_part_of_x_without_imaginary_channels_is_refused(unchecked):
    layer = (torch.zeros(1, 2, 1, 1), torch.zeros(1))
    with pytest.raises(ValueError, match="4 planar ones in all"):
        complex_conv2d([torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 2, 2)], layer, layer)


def test_no_bias_is_a_bias_of_zero(form):
    sizes = CONV[1]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 2 * 3, *sizes.size, generator=generator).double().requires_grad_()
    a, b = (torch.randn(4, 3, *sizes.kernel, generator=generator).double() for _ in range(2))
    a.requires_grad_()
    none, zero = ((a, bias) for bias in (None, torch.zeros(4).double()))
    found = complex_conv2d([x], none, (b, None))
    expected = complex_conv2d([x], zero, (b, zero[1]))
    torch.testing.assert_close(found, expected)
    for value in (x, a):
        ours, theirs = (
            torch.autograd.grad(y.square().sum(), value, retain_graph=True)[0]
            for y in (found, expected)
        )
        torch.testing.assert_close(ours, theirs)


def test_one_bias_without_the_other_is_refused():
    x, weight = torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match="of both parts or of neither"):
        complex_conv2d([x], (weight, torch.zeros(1)), (weight, None))
