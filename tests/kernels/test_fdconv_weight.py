"""FDConv's modulated kernels against the sum and the product written out, sample by sample."""

from importlib import import_module

import pytest
import torch
from kernel_checks import (
    DEVICE,
    TOLERANCE,
    agree,
    allocated,
    compiles,
    error,
    exports,
    fused_everywhere,
    gradients,
    poisoned,
    repeats,
)
from torch import Tensor

from sixfold.kernels import fdconv_weight
from sixfold.kernels.fdconv_weight import fdconv_weight_backward, fdconv_weight_fused

FACTORS = ("spatial", "channel", "filter", "local_logit")
SIZES = [  # batch, members, kernel
    (2, 4, (3, 5, 3, 3)),
    (3, 2, (4, 2, 1, 1)),
    (1, 1, (1, 1, 1, 1)),
    (5, 3, (2, 7, 1, 3)),
    (2, 7, (6, 1, 3, 1)),
    (0, 2, (2, 3, 3, 3)),
    (9, 1, (2, 2, 5, 5)),
]
SETS = [FACTORS, (), *((name,) for name in FACTORS), ("spatial", "channel"), FACTORS[1:]]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Cut small kernels into several blocks along every axis, the last ones not full."""
    module = import_module("sixfold.kernels.fdconv_weight")
    for name, size in (("SAMPLES", 2), ("PLACES", 16), ("ROWS", 2)):
        monkeypatch.setattr(module, name, size)


class Case:
    """A choice of factors, and both ways to combine their tensors."""

    def __init__(self, factors=FACTORS, *, mixed=False, mult=2.0, activation="sigmoid") -> None:
        self.factors, self.mixed, self.mult, self.activation = factors, mixed, mult, activation

    def __str__(self) -> str:
        members = "mixed" if self.mixed else "members"
        return f"{members} {'+'.join(self.factors)} {self.activation} {self.mult}"

    def draw(self, sizes, dtype=torch.float64, device="cpu") -> list[Tensor]:
        batch, members, shape = sizes
        out, inputs, height, width = shape
        shapes = {
            "attention": (batch, members),
            "basis": (batch if self.mixed else members, *shape),
            "spatial": (batch, 1, 1, height, width),
            "channel": (batch, 1, inputs, 1, 1),
            "filter": (batch, out, 1, 1, 1),
            "local_logit": (batch, *shape),
        }
        names = [*([] if self.mixed else ["attention"]), "basis", *self.factors]
        generator = torch.Generator().manual_seed(batch + out + inputs)
        drawn = [torch.randn(shapes[n], generator=generator, dtype=torch.float64) for n in names]
        return [value.to(dtype).to(device).requires_grad_() for value in drawn]

    def arguments(self, tensors) -> list:
        rest = list(tensors)
        attention = None if self.mixed else rest.pop(0)
        basis, given = rest[0], dict(zip(self.factors, rest[1:], strict=True))
        factors = [given.get(name) for name in FACTORS]
        return [attention, basis, *factors, self.mult, self.activation]

    def public(self, *tensors) -> Tensor:
        *arguments, activation = self.arguments(tensors)
        return fdconv_weight(*arguments, activation=activation)

    def fused(self, *tensors) -> Tensor:
        return fdconv_weight_fused(*self.arguments(tensors))

    def naive(self, *tensors) -> Tensor:
        attention, basis, *factors, mult, activation = self.arguments(tensors)
        samples = []
        for b in range(tensors[0].shape[0]):
            if attention is None:
                weight = basis[b]
            else:
                weight = sum(attention[b, g] * basis[g] for g in range(len(basis)))
            for factor in factors[:3]:
                if factor is not None:
                    weight = factor[b] * weight
            if factors[3] is not None and activation == "tanh":
                weight = (1 + torch.tanh(factors[3][b])) * weight
            elif factors[3] is not None:
                weight = mult / (1 + torch.exp(-factors[3][b])) * weight
            samples.append(weight)
        return torch.stack(samples) if samples else basis.new_zeros(0, *basis.shape[1:])


CASES = [Case(factors) for factors in SETS]
CASES += [Case(mult=0.7), Case(activation="tanh"), Case(("local_logit",), activation="tanh")]
CASES += [Case(mixed=True), Case((), mixed=True), Case(("filter", "local_logit"), mixed=True)]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_are_those_of_the_formula(sizes, case):
    agree(case.public, case.naive, case.draw(sizes))


@pytest.mark.parametrize("case", [CASES[0], CASES[9], CASES[11]], ids=str)
@pytest.mark.parametrize("dtype", list(TOLERANCE)[1:], ids=str)
def test_rounding_is_that_of_the_number_format(dtype, case):
    agree(case.public, case.naive, case.draw(SIZES[0], dtype))


@pytest.mark.parametrize("case", [CASES[0], CASES[9], CASES[11]], ids=str)
def test_gradcheck(case):
    inputs = case.draw((2, 2, (2, 2, 1, 2)))
    assert torch.autograd.gradcheck(case.public, inputs, eps=1e-6, atol=1e-7)
    assert torch.autograd.gradgradcheck(case.public, inputs, atol=1e-6)


def test_the_result_is_no_view_of_a_lone_basis():
    basis = torch.ones(2, 3, 2, 1, 1)
    assert fdconv_weight(None, basis).data_ptr() != basis.data_ptr()


def test_forward_allocates_no_more_than_the_eager_chain_of_three_products():
    case = Case()
    inputs = [value.detach() for value in case.draw((4, 2, (16, 16, 3, 3)), torch.float32)]
    size = inputs[-1].nbytes
    assert allocated(lambda: case.public(*inputs)) < 5.2 * size  # sum, 3 products, sigmoid


@pytest.mark.parametrize("case", [CASES[0], CASES[9]], ids=str)
def test_compiles_whole_with_its_backward(case, unchecked):
    compiles(case.public, case.draw(SIZES[0]))


class Weight(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.basis = torch.nn.Parameter(torch.randn(4, 3, 5, 3, 3))

    def forward(self, attention):
        channel = attention.sum(1)[:, None, None, None, None].expand(-1, 1, 5, 1, 1)
        return fdconv_weight(attention, self.basis, channel=channel)


def test_exports_with_any_batch(unchecked):
    exports(Weight(), torch.randn(2, 4), torch.randn(5, 4), {0: torch.export.Dim("batch")})


@pytest.mark.interp
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[2], SIZES[5]], ids=str)
def test_kernels_agree_with_the_formula(sizes, case):
    with poisoned():
        agree(case.fused, case.naive, case.draw(sizes, torch.float32, DEVICE))


@pytest.mark.interp
@pytest.mark.parametrize("sizes", [SIZES[1], *SIZES[3:5], SIZES[6]], ids=str)
def test_kernels_agree_at_other_sizes(sizes):
    with poisoned():
        agree(Case().fused, Case().naive, Case().draw(sizes, torch.float32, DEVICE))


@pytest.mark.interp
@pytest.mark.parametrize("case", [CASES[0], CASES[9], CASES[11]], ids=str)
@pytest.mark.parametrize("dtype", list(TOLERANCE)[2:], ids=str)
def test_kernels_in_half_precision(dtype, case):
    with poisoned():
        agree(case.fused, case.naive, case.draw(SIZES[0], dtype, DEVICE))


def layouts(logit: Tensor) -> dict[str, Tensor]:
    """The same logits in other layouts, the first as FDConv's local branch makes them."""
    by_channel = logit.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    swapped = logit.transpose(3, 4).contiguous().transpose(3, 4)  # no single stride walks the taps
    return {
        "by channel": by_channel,
        "swapped taps": swapped,
        "every other": torch.stack([logit, logit], -1)[..., 0],
        "expanded": logit[:1].expand_as(logit),
    }


@pytest.mark.interp
@pytest.mark.parametrize(
    "kernel", [(3, 5, 3, 3), (3, 4, 1, 3), (4, 3, 3, 1), (4, 3, 1, 1)], ids=str
)
@pytest.mark.parametrize("layout", ["by channel", "swapped taps", "every other", "expanded"])
def test_kernels_take_logits_in_any_layout(layout, kernel):
    case = Case()
    *rest, logit = case.draw((3, 2, kernel), torch.float32, DEVICE)
    strided = layouts(logit.detach())[layout].requires_grad_()
    with poisoned():
        agree(case.fused, case.naive, [*rest, strided])


def test_the_layout_of_the_local_branch_is_not_copied():
    case = Case(("local_logit",))
    logit = case.draw((4, 2, (8, 8, 3, 3)), torch.float32)[-1].detach()
    by_channel = layouts(logit)["by channel"]
    fused_op = import_module("sixfold.kernels.fdconv_weight")
    assert fused_op._one_tap_axis(by_channel) is by_channel
    _, grad = fused_op._grad_places(logit, by_channel)
    assert grad.stride() == by_channel.stride()


@pytest.mark.interp
def test_kernels_take_the_formats_of_an_autocast_region():
    """The logits are in bfloat16, all else in float32; each gradient is in its own format."""
    case = Case()
    *rest, logit = case.draw(SIZES[0], torch.float32, DEVICE)
    inputs = [*rest, logit.detach().bfloat16().requires_grad_()]
    exact = [value.detach().double().cpu().requires_grad_() for value in inputs]
    y, expected = case.fused(*inputs), case.naive(*exact)
    assert y.dtype == torch.float32
    assert error(y, expected) < 2e-6
    for value, found, wanted in zip(
        inputs, gradients(y, inputs), gradients(expected, exact), strict=True
    ):
        assert found.dtype == value.dtype
        assert error(found, wanted) < (1e-5 if value.dtype == torch.float32 else 8e-3)


@pytest.mark.interp
@pytest.mark.parametrize("case", [CASES[0], CASES[11]], ids=str)
def test_kernels_repeat_to_the_bit(case):
    repeats(case.fused, case.draw(SIZES[0], torch.float32, DEVICE))


@pytest.mark.interp
@pytest.mark.parametrize("case", [CASES[0], CASES[12]], ids=str)
def test_the_operators_are_registered_soundly(case, unchecked):
    arguments = case.arguments(case.draw(SIZES[0], torch.float32, DEVICE))
    torch.library.opcheck(fdconv_weight_fused, tuple(arguments))
    plain = [value.detach() if isinstance(value, Tensor) else value for value in arguments]
    sent = torch.ones_like(fdconv_weight_fused(*plain))
    torch.library.opcheck(fdconv_weight_backward, (sent, *plain))


@pytest.mark.interp
@pytest.mark.parametrize("case", [CASES[0], CASES[9]], ids=str)
def test_the_kernels_compile_whole_with_their_backward(case, unchecked):
    with fused_everywhere():
        compiles(case.public, case.draw(SIZES[0], torch.float32, DEVICE))


@pytest.mark.interp
@pytest.mark.parametrize("case", [CASES[0], CASES[9], CASES[11]], ids=str)
def test_second_derivatives_go_through_the_reference(case):
    inputs = case.draw((2, 2, (2, 3, 1, 2)), torch.float32, DEVICE)
    doubles = [value.detach().double().cpu().requires_grad_() for value in inputs]
    seconds = []
    with fused_everywhere():
        assert "fdconv_weight" in type(case.public(*inputs).grad_fn).__name__
        for function, values in ((case.public, inputs), (case.naive, doubles)):
            first = gradients(function(*values), values, create_graph=True)
            total = torch.stack([value.square().sum() for value in first]).sum()
            seconds.append(torch.autograd.grad(total, values))
    for found, wanted in zip(*seconds, strict=True):
        assert error(found, wanted) < 1e-5


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("attention", (2, 3)),
        ("attention", (2, 4, 1)),
        ("spatial", (2, 1, 1, 3, 1)),
        ("channel", (2, 5, 1, 1, 1)),
        ("filter", (3, 3, 1, 1, 1)),
        ("local_logit", (2, 5, 3, 3, 3)),
    ],
)
def test_sizes_that_do_not_fit_are_named(name, shape, unchecked):
    given: dict = {"attention": torch.zeros(2, 4), "basis": torch.zeros(4, 3, 5, 3, 3)}
    given[name] = torch.zeros(shape)
    numbers = r"\(" + ", ".join(map(str, shape)) + r"\)$"
    message = rf"a basis \(4, 3, 5, 3, 3\) and 2 samples need {name} \(2, .*\), got {numbers}"
    with pytest.raises(ValueError, match=message):
        fdconv_weight(**given)


def test_an_unknown_activation_is_named(unchecked):
    with pytest.raises(ValueError, match="should be sigmoid or tanh, got 'softmax'"):
        fdconv_weight(None, torch.zeros(2, 1, 1, 1, 1), activation="softmax")  # pyright: ignore
