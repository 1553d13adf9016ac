"""FCN's cross layer after its matrix product, against the published formula."""

from functools import partial
from importlib import import_module

import pytest
import torch
from kernel_checks import (
    DEVICE,
    TOLERANCE,
    agree,
    compiles,
    error,
    exports,
    fused_everywhere,
    gradients,
    poisoned,
    repeats,
)
from torch import Tensor

from sixfold.kernels import cross_epilogue
from sixfold.kernels.cross_epilogue import (
    WIDEST,
    cross_epilogue_backward,
    cross_epilogue_fused,
)

KINDS = {  # which tensors follow h, x and bias
    "linear, norm": (True, True),
    "linear": (True, False),
    "exponential, norm": (False, True),
    "exponential": (False, False),
}
SHAPES = [(2, 3, 5), (4, 1, 7), (1, 1, 2), (3, 2, 1), (7, 33), (6,), (2, 2, 3, 4), (0, 2, 3)]
FUSED = [(2, 3, 5), (37, 45), (3, 1, 2), (1, 1, 16), (2, 1), (11, 3), (0, 2, 3)]


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """Give a program of the backward pass several rows, and the last one fewer."""
    monkeypatch.setattr(import_module("sixfold.kernels.cross_epilogue"), "PROGRAMS", 4)


def naive_cross_epilogue(h, x, bias, first, norm, eps=1e-5):
    """Self-mask, concatenate, multiply and add, one step of the formula a line."""
    mask = h
    if norm is not None:
        mean = h.mean(-1, keepdim=True)
        variance = (h - mean).square().mean(-1, keepdim=True)
        mask = (h - mean) / (variance + eps).sqrt() * norm[0] + norm[1]
    mask = torch.where(mask > 0, mask, torch.zeros_like(mask))
    c = torch.cat([h, h * mask], -1)
    return (x if first is None else first) * (c + bias) + x


def draw(shape, kind, dtype=torch.float64, device="cpu") -> list[Tensor]:
    """Draw h, x, bias, then x0 and the norm's scale and offset if the kind has them."""
    (linear, normed), half, generator = KINDS[kind], shape[-1], torch.Generator()
    generator.manual_seed(sum(shape))
    wide = (*shape[:-1], 2 * half)
    shapes = [shape, wide, (2 * half,), *[wide] * linear, *[(half,)] * (2 * normed)]
    drawn = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    return [value.to(dtype).to(device).requires_grad_() for value in drawn]


def arranged(kind, tensors) -> tuple[Tensor, Tensor, Tensor, Tensor | None, tuple | None]:
    linear, normed = KINDS[kind]
    h, x, bias, *rest = tensors
    return h, x, bias, rest[0] if linear else None, tuple(rest[-2:]) if normed else None


def public(kind, *tensors, eps=1e-5) -> Tensor:
    h, x, bias, first, norm = arranged(kind, tensors)
    return cross_epilogue(h, x, bias, x0=first, norm=norm, eps=eps)


def fused(kind, *tensors, eps=1e-5) -> Tensor:
    h, x, bias, first, norm = arranged(kind, tensors)
    return cross_epilogue_fused(h, x, bias, first, *(norm or (None, None)), eps)


def naive(kind, *tensors, eps=1e-5) -> Tensor:
    h, x, bias, first, norm = arranged(kind, tensors)
    return naive_cross_epilogue(h, x, bias, first, norm, eps)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_those_of_the_formula(shape, kind):
    agree(partial(public, kind), partial(naive, kind), draw(shape, kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", list(TOLERANCE)[1:], ids=str)
def test_rounding_is_that_of_the_number_format(dtype, kind):
    agree(partial(public, kind), partial(naive, kind), draw((7, 33), kind, dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind):
    inputs, function = draw((2, 3), kind), partial(public, kind)
    assert torch.autograd.gradcheck(function, inputs, eps=1e-6, atol=1e-7)
    assert torch.autograd.gradgradcheck(function, inputs, atol=1e-6)


def test_eps_reaches_the_norm():
    kind = "linear, norm"
    agree(partial(public, kind, eps=0.5), partial(naive, kind, eps=0.5), draw((4, 5), kind))


@pytest.mark.parametrize("kind", ["linear, norm", "exponential"])
def test_compiles_whole_with_its_backward(kind, unchecked):
    compiles(partial(public, kind), draw((3, 2, 5), kind))


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        _, _, *rest = draw((1, 4), "exponential, norm", torch.float32)
        self.weight = torch.nn.Parameter(torch.randn(4, 8))
        self.parts = torch.nn.ParameterList([value.detach() for value in rest])

    def forward(self, x):
        return public("exponential, norm", x @ self.weight.t(), x, *self.parts)


def test_exports_with_any_batch(unchecked):
    exports(Layer(), torch.randn(2, 3, 8), torch.randn(5, 3, 8), {0: torch.export.Dim("batch")})


@pytest.mark.interp
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", FUSED, ids=str)
def test_kernels_agree_with_the_formula(shape, kind):
    with poisoned():
        agree(partial(fused, kind), partial(naive, kind), draw(shape, kind, torch.float32, DEVICE))


@pytest.mark.interp
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", list(TOLERANCE)[2:], ids=str)
def test_kernels_in_half_precision(dtype, kind):
    with poisoned():
        agree(partial(fused, kind), partial(naive, kind), draw((37, 45), kind, dtype, DEVICE))


@pytest.mark.interp
def test_kernels_take_the_formats_of_an_autocast_region():
    """The product is in bfloat16, all else in float32, and each gradient is in its own format."""
    kind = "linear, norm"
    h, *rest = draw((9, 5), kind, torch.float32, DEVICE)
    inputs = [h.detach().bfloat16().requires_grad_(), *rest]
    exact = [value.detach().double().cpu().requires_grad_() for value in inputs]
    y, expected = fused(kind, *inputs), naive(kind, *exact)
    assert y.dtype == torch.float32
    assert error(y, expected) < 2e-6
    for value, found, wanted in zip(
        inputs, gradients(y, inputs), gradients(expected, exact), strict=True
    ):
        assert found.dtype == value.dtype
        assert error(found, wanted) < (1e-5 if value.dtype == torch.float32 else 8e-3)


@pytest.mark.interp
@pytest.mark.parametrize("kind", KINDS)
def test_kernels_take_any_layout(kind):
    inputs = draw((3, 4, 5), kind, torch.float32, DEVICE)
    strided = [torch.stack([v, v], -1)[..., 0].detach().requires_grad_() for v in inputs]
    assert not any(value.is_contiguous() for value in strided)
    agree(partial(fused, kind), partial(naive, kind), strided)


@pytest.mark.interp
@pytest.mark.parametrize("kind", ["linear, norm", "exponential, norm"])
def test_kernels_repeat_to_the_bit(kind):
    repeats(partial(fused, kind), draw((11, 3), kind, torch.float32, DEVICE))


@pytest.mark.interp
@pytest.mark.parametrize("kind", KINDS)
def test_the_operators_are_registered_soundly(kind, unchecked):
    tensors = draw((2, 3, 5), kind, torch.float32, DEVICE)
    h, x, bias, first, norm = arranged(kind, tensors)
    arguments = (h, x, bias, first, *(norm or (None, None)), 1e-5)
    torch.library.opcheck(cross_epilogue_fused, arguments)
    plain = [value.detach() if isinstance(value, Tensor) else value for value in arguments]
    torch.library.opcheck(cross_epilogue_backward, (torch.ones_like(x), *plain))


@pytest.mark.interp
@pytest.mark.parametrize("kind", ["linear", "exponential, norm"])
def test_the_kernels_compile_whole_with_their_backward(kind, unchecked):
    with fused_everywhere():
        compiles(partial(public, kind), draw((3, 2, 5), kind, torch.float32, DEVICE))


@pytest.mark.interp
@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives_go_through_the_reference(kind):
    inputs = draw((2, 5), kind, torch.float32, DEVICE)
    doubles = [value.detach().double().cpu().requires_grad_() for value in inputs]
    seconds = []
    with fused_everywhere():
        for function, values in ((public, inputs), (naive, doubles)):
            first = gradients(function(kind, *values), values, create_graph=True)
            total = torch.stack([value.square().sum() for value in first]).sum()
            seconds.append(torch.autograd.grad(total, values, materialize_grads=True))
    for found, wanted in zip(*seconds, strict=True):
        assert error(found, wanted) < 1e-5


@pytest.mark.interp
def test_a_gpu_runs_the_kernels_and_says_when_it_does_not():
    with fused_everywhere():
        y = public("linear", *draw((2, 5), "linear", torch.float32, DEVICE))
        assert "cross_epilogue" in type(y.grad_fn).__name__
        h, x = (torch.zeros(1, n * (WIDEST + 1), device=DEVICE) for n in (1, 2))
        with pytest.warns(RuntimeWarning, match="2049 coordinates are more than the 2048"):
            cross_epilogue(h, x, x[0])


@pytest.mark.parametrize(
    ("h", "x", "bias", "norm", "message"),
    [
        ((1, 3), (2, 6), (6,), None, r"h \(1, 3\) .*, got x \(2, 6\)"),
        ((2, 3), (2, 5), (5,), None, r"h \(2, 3\) needs x and bias of 6 .*, got x \(2, 5\)"),
        ((2, 3), (2, 6), (3,), None, r"bias \(3,\)$"),
        ((2, 3), (2, 6), (6,), (6,), r"a norm of 3, .* norm \(6,\)"),
    ],
)
def test_sizes_that_do_not_fit_are_named(h, x, bias, norm, message, unchecked):
    pair = None if norm is None else (torch.zeros(norm), torch.zeros(norm))
    with pytest.raises(ValueError, match=message):
        cross_epilogue(*(torch.zeros(shape) for shape in (h, x, bias)), norm=pair)


@pytest.mark.parametrize("shape", [(1, 6), (6,), (2, 1), ()], ids=str)
def test_a_first_input_of_another_shape_is_never_read_past_its_end(shape, unchecked):
    h, x, bias = (torch.zeros(size) for size in ((2, 3), (2, 6), (6,)))
    with pytest.raises(ValueError, match=r"got x \(2, 6\), .*, x0 \("):
        cross_epilogue(h, x, bias, x0=torch.zeros(shape))
