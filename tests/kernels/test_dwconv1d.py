"""The depthwise convolution against its formula, in values, gradients, memory and graphs."""

import itertools
from importlib import import_module

import pytest
import torch
from kernel_checks import (
    DEVICE,
    agree,
    allocated,
    compiles,
    error,
    exact,
    fused_everywhere,
    gradients,
    poisoned,
    repeats,
)
from torch import Tensor

from sixfold.kernels import dwconv1d
from sixfold.kernels.dwconv1d import dwconv1d_fused

Sizes = tuple[tuple[int, ...], int, tuple[int, int], int, bool] | tuple
SIZES: list[Sizes] = [  # x, taps, padding, dilation, residual
    ((2, 9, 5), 3, (1, 1), 1, True),
    ((2, 40, 4), 17, (8, 8), 1, True),
    ((1, 50, 3), 39, (19, 19), 1, False),
    ((1, 7, 3), 20, (19, 0), 1, True),  # causal; fewer steps than taps
    ((2, 1, 4), 20, (19, 0), 1, True),  # one step
    ((3, 11, 2), 4, (6, 0), 2, True),  # dilation, causal
    ((2, 11, 2), 4, (0, 6), 2, True),  # looks ahead only
    ((2, 12, 3), 5, (8, 8), 4, True),
    ((2, 12, 3), 3, (1, 5), 3, True),  # no tap reads the present step
    ((2, 12, 3), 3, (7, -1), 3, True),  # all taps read the past
    ((2, 12, 3), 3, (-1, 3), 1, True),  # all taps read the future
    ((2, 10, 3), 4, (0, 0), 1, False),
    ((2, 10, 3), 4, (5, 1), 1, False),
    ((2, 10, 3), 4, (1, 5), 1, False),
    ((2, 10, 3), 3, (7, 6), 1, False),  # wider than the taps: the backward pass crops
    ((2, 10, 3), 3, (-2, -1), 1, False),  # a crop
    ((2, 10, 3), 3, (-2, 4), 1, False),
    ((2, 10, 3), 1, (0, 0), 1, True),
    ((1, 6, 1), 2, (1, 0), 5, False),
    ((2, 6, 3, 4), 3, (2, 0), 1, True),  # one more axis
    ((2, 6, 2, 3, 4), 4, (2, 2), 1, False),  # two more
    ((2, 1, 3, 4), 2, (1, 0), 1, True),
    ((0, 6, 3), 3, (2, 0), 1, True),  # no batch
    ((2, 0, 3), 3, (2, 0), 1, True),  # no steps
    ((2, 0, 3), 3, (2, 2), 1, False),  # none in, two out
    ((2, 3, 3), 4, (0, 0), 1, False),  # none out
    ((2, 5, 0, 3), 3, (2, 0), 1, True),
    ((2, 9, 5), 3, (1, 1), 1, True, "silu"),
    ((1, 9, 2, 5), 4, (3, 0), 1, False, "silu"),
    ((2, 9, 5), 3, (1, 5), 3, True, "silu"),  # no tap reads the present step
    ((2, 15, 6), 7, (6, 6), 2, False, "none", 2),  # the dense memory: two inputs an output
    ((2, 7, 2, 6), 3, (2, 0), 1, False, "silu", 3),
    ((2, 0, 6), 3, (2, 2), 1, False, "none", 2),
]
FUSED = [*SIZES[:16], *SIZES[18:24], *SIZES[26:]]  # the crops are gradients, tested as such
TRITON_DTYPES = (torch.float32, torch.bfloat16)
DTYPES = {torch.float32: (2e-6, 1e-5), torch.bfloat16: (8e-3, 1.5e-2)}


def naive_dwconv1d(x, weight, padding=(0, 0), dilation=1, residual=False, pre_act="none"):
    """Sum the taps of the formula one by one."""
    (_, m, taps), time, left = weight.shape, x.shape[1], padding[0]
    steps = time + sum(padding) - dilation * (taps - 1)
    x = x * torch.sigmoid(x) if pre_act == "silu" else x
    rows = []
    for t in range(steps):
        row = x.new_zeros(*x.shape[:1], *x.shape[2:-1], len(weight))
        for i, j in itertools.product(range(m), range(taps)):
            if 0 <= t + j * dilation - left < time:
                row = row + weight[:, i, j] * x[:, t + j * dilation - left, ..., i::m]
        rows.append(row)
    empty = x.new_zeros(x.shape[0], 0, *x.shape[2:-1], len(weight))
    y = torch.stack(rows, 1) if rows else empty
    return y + x if residual else y


def draw(sizes: Sizes, dtype=torch.float64) -> tuple[Tensor, Tensor, dict]:
    shape, taps, padding, dilation, residual, *more = sizes
    pre_act: str = more[0] if more else "none"
    m: int = more[1] if len(more) > 1 else 1
    generator = torch.Generator().manual_seed(sum(shape) + taps)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    weight = torch.randn(shape[-1] // m, m, taps, generator=generator, dtype=torch.float64)
    options = {
        "padding": padding,
        "dilation": dilation,
        "residual": residual,
        "pre_act": pre_act,
    }
    return x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), options


def both(options):
    """Return the operator and its definition with these options."""
    return (
        lambda *v: dwconv1d(*v, **options),
        lambda *v: naive_dwconv1d(*v, **options),
    )


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_are_those_of_the_formula(sizes):
    x, weight, options = draw(sizes)
    agree(*both(options), (x, weight))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_chunks_are_joined_without_a_seam(sizes, monkeypatch):
    module = import_module(dwconv1d.__module__)
    monkeypatch.setattr(module, "ROWS", 2)
    monkeypatch.setattr(module, "CHUNK", 24)
    x, weight, options = draw(sizes)
    agree(*both(options), (x, weight))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", [*SIZES[1:8], SIZES[27], SIZES[30]], ids=str)
def test_rounding_is_that_of_the_number_format(sizes, dtype):
    x, weight, options = draw(sizes, dtype)
    agree(*both(options), (x, weight), DTYPES[dtype])


@pytest.mark.interp
@pytest.mark.parametrize("dtype", TRITON_DTYPES, ids=str)
@pytest.mark.parametrize("sizes", FUSED, ids=str)
def test_the_kernels_compute_the_formula_and_write_everything(sizes, dtype):
    x, weight, options = draw(sizes, dtype)
    x, weight = (v.detach().to(DEVICE).requires_grad_() for v in (x, weight))
    with poisoned(), fused_everywhere():
        agree(*both(options), (x, weight))


@pytest.mark.interp
def test_the_kernels_reach_beyond_one_tile():
    """More steps, columns and positions than a block of any kernel."""
    x, weight, options = draw(((1, 21, 1, 70), 3, (2, 0), 1, True, "silu"), torch.float32)
    x, weight = (v.detach().to(DEVICE).requires_grad_() for v in (x, weight))
    with poisoned(), fused_everywhere():
        agree(*both(options), (x, weight))
        repeats(both(options)[0], (x, weight))


@pytest.mark.interp
@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[27], SIZES[30]], ids=str)
def test_the_fused_operator_is_registered_as_pytorch_wants(sizes):
    x, weight, options = draw(sizes, torch.float32)
    x, weight = (v.detach().to(DEVICE).requires_grad_() for v in (x, weight))
    arguments = (*options["padding"], options["dilation"], options["residual"])
    silu = options["pre_act"] == "silu"
    torch.library.opcheck(dwconv1d_fused, (x, weight, *arguments, silu))


@pytest.mark.interp
def test_the_fused_operator_compiles_whole_and_can_be_differentiated_twice(unchecked):
    x, weight, options = draw(SIZES[27], torch.float32)
    x, weight = (v.detach().to(DEVICE).requires_grad_() for v in (x, weight))
    with fused_everywhere():
        compiles(both(options)[0], (x, weight))
        (first,) = torch.autograd.grad(
            both(options)[0](x, weight).square().sum(), x, create_graph=True
        )
        (second,) = torch.autograd.grad(first.square().sum(), weight)
    a, b = exact((x, weight))
    (first,) = torch.autograd.grad(both(options)[1](a, b).square().sum(), a, create_graph=True)
    (expected,) = torch.autograd.grad(first.square().sum(), b)
    assert error(second, expected) < 1e-4


@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[8], SIZES[12], SIZES[15], SIZES[19]], ids=str)
def test_gradcheck(sizes):
    x, weight, options = draw(sizes)
    torch.autograd.gradcheck(lambda *v: dwconv1d(*v, **options), (x, weight), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[8], SIZES[12], SIZES[19]], ids=str)
def test_gradients_can_be_differentiated_again(sizes):
    x, weight, options = draw(sizes)
    torch.autograd.gradgradcheck(lambda *v: dwconv1d(*v, **options), (x, weight), atol=1e-7)


@pytest.mark.parametrize("sizes", [SIZES[1], SIZES[12], SIZES[19]], ids=str)
def test_memory_layout_does_not_matter(sizes):
    x, weight, options = draw(sizes)
    expected = dwconv1d(x, weight, **options)
    wanted = gradients(expected, (x, weight))
    for other in (
        x.transpose(0, -1).contiguous().transpose(0, -1),
        torch.stack([x, x], -1)[..., 0],
    ):
        assert not other.is_contiguous()
        strided = other.detach().requires_grad_()
        y = dwconv1d(strided, weight.flip(-1).detach().flip(-1), **options)
        torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
        again = dwconv1d(strided, weight, **options)
        for found, value in zip(gradients(again, (strided, weight)), wanted, strict=True):
            torch.testing.assert_close(found, value, rtol=1e-11, atol=1e-11)


def test_autocast_trains():
    """Under autocast the convolution runs in bfloat16, and each gradient has its input's dtype."""
    x, weight, options = draw(SIZES[1], torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = dwconv1d(x, weight, **options)
    a, b = (v.detach().double().requires_grad_() for v in (x, weight))
    expected = naive_dwconv1d(a, b, **options)
    assert error(y, expected) < 8e-3
    for found, wanted in zip(gradients(y, (x, weight)), gradients(expected, (a, b)), strict=True):
        assert found.dtype == torch.float32
        assert error(found, wanted) < 1.5e-2


def test_two_runs_agree_to_the_bit():
    x, weight, options = draw(SIZES[1], torch.float32)
    runs = [dwconv1d(x, weight, **options) for _ in range(2)]
    assert torch.equal(*runs)
    for first, second in zip(*(gradients(y, (x, weight)) for y in runs), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[8], SIZES[12], SIZES[21]], ids=str)
def test_compiles_whole_with_its_backward(sizes, unchecked):
    torch.compiler.reset()  # or the second size is traced again with symbols, which takes longer
    x, weight, options = draw(sizes)
    compiled = torch.compile(dwconv1d, fullgraph=True, backend="aot_eager")
    y, expected = compiled(x, weight, **options), dwconv1d(x, weight, **options)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    for found, wanted in zip(
        gradients(y, (x, weight)), gradients(expected, (x, weight)), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


class Filter(torch.nn.Module):
    def __init__(self, taps: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(4, 1, taps))
        self.reach = taps - 1

    def forward(self, x):
        return dwconv1d(x, self.weight, padding=(self.reach, 0), residual=True)


def test_exports_with_any_batch_and_length(unchecked):
    batch, time = torch.export.Dim("batch"), torch.export.Dim("time", min=2)
    module = Filter(5)
    program = torch.export.export(
        module, (torch.randn(2, 9, 4),), dynamic_shapes=({0: batch, 1: time},)
    )
    assert "sixfold" not in str(program.graph)  # plain operators, that any runtime knows
    for shape in ((3, 31, 4), (2, 3, 4)):
        x = torch.randn(shape)
        torch.testing.assert_close(program.module()(x), module(x))


def test_forward_allocates_the_output_and_nothing_of_the_size_of_the_input():
    x, weight = torch.randn(1, 4000, 64), torch.randn(64, 1, 17)
    total = allocated(lambda: dwconv1d(x, weight, padding=(8, 8), residual=True))
    size = x.nbytes
    assert size <= total < 1.1 * size  # the weight, laid out anew, is the rest


@pytest.mark.parametrize(
    ("shape", "weight", "options", "message"),
    [
        ((2, 9, 5), (4, 1, 3), {}, r"got x \(2, 9, 5\) and weight \(4, 1, 3\)"),
        ((2, 9, 5), (5, 2, 3), {}, r"weight \(channels, m, taps\), got .* weight \(5, 2, 3\)"),
        ((2, 9, 6), (3, 2, 1), {"residual": True}, "as many channels out as in, got 6 in and 3"),
        ((2, 9, 5), (5, 1, 3), {"dilation": 0}, "dilation 0 and the number of taps 3 should be at"),
        ((2, 9, 5), (5, 3), {}, r"weight \(5, 3\)"),
        ((9, 5), (5, 1, 3), {}, r"x should be \(batch, time, ..., channels m\).*got x \(9, 5\)"),
        (
            (2, 3, 5),
            (5, 1, 5),
            {},
            r"3 steps padded by \(0, 0\) give -1 with 5 taps of dilation 1$",
        ),
        ((2, 9, 5), (5, 1, 3), {"residual": True}, "give 7 .*residual needs as many out as in"),
    ],
)
def test_sizes_that_do_not_fit_are_named(shape, weight, options, message, unchecked):
    with pytest.raises(ValueError, match=message):
        dwconv1d(torch.zeros(shape), torch.zeros(weight), **options)
