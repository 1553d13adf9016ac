"""Grouped gated attention against its equations, in values, gradients, graphs and memory."""

from dataclasses import dataclass
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
from torch.nn import functional

from sixfold.kernels import gau_attention
from sixfold.kernels.gau_fused import MAX_WIDTH, gau_backward, gau_fused


@dataclass(frozen=True)
class Sizes:
    batch: int
    tokens: int
    key: int
    value: int
    group: int


SIZES = [
    Sizes(2, 12, 4, 6, 4),
    Sizes(2, 11, 4, 6, 4),  # the last group is not full
    Sizes(1, 9, 3, 5, 4),
    Sizes(2, 3, 4, 6, 8),  # one group, not full
    Sizes(2, 8, 4, 6, 8),
    Sizes(1, 1, 1, 1, 1),
    Sizes(1, 5, 2, 3, 1),  # every token a group
    Sizes(3, 7, 5, 2, 3),
    Sizes(0, 7, 5, 2, 3),
    Sizes(2, 0, 5, 2, 3),
]
KINDS = [
    {"causal": causal, "masked": masked} for causal in (False, True) for masked in (False, True)
]


def draw(sizes: Sizes, dtype=torch.float64, *, masked: bool = False, device="cpu"):
    """Return the six inputs and perhaps a mask, under which item 1 attends to nothing."""
    generator = torch.Generator().manual_seed(sizes.tokens + sizes.value)
    shapes = [(sizes.batch, sizes.tokens, sizes.key)] * 4 + [
        (sizes.batch, sizes.tokens, sizes.value)
    ] * 2
    drawn = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    inputs = [value.to(device, dtype).requires_grad_() for value in drawn]
    mask = None
    if masked:
        mask = torch.rand(sizes.batch, sizes.tokens, generator=generator) < 0.7
        mask[1:2] = False
        mask = mask.to(device)
    return inputs, mask


def naive_gau(quad_q, quad_k, lin_q, lin_k, v, u, group, mask=None, causal=False):
    """Sum over the keys of each query, one query at a time."""
    batch, tokens, _ = v.shape
    mask = torch.ones(batch, tokens) if mask is None else mask
    rows = []
    for b in range(batch):
        for i in range(tokens):
            att_v, att_u = torch.zeros_like(v[b, 0]), torch.zeros_like(v[b, 0])
            for j in range(tokens):
                if not mask[b, j]:
                    continue
                near, past = i // group == j // group, j // group < i // group
                weight = 0.0
                if near and not (causal and j > i):
                    weight = (quad_q[b, i] @ quad_k[b, j] / group).relu() ** 2
                if not causal:
                    weight = weight + lin_q[b, i] @ lin_k[b, j] / tokens
                elif past:
                    weight = weight + lin_q[b, i] @ lin_k[b, j] / group
                att_v, att_u = att_v + weight * v[b, j], att_u + weight * u[b, j]
            rows.append(att_u * v[b, i] * torch.sigmoid(att_v * u[b, i]))
    if not rows:
        return v * u
    return torch.stack(rows).view(v.shape) + 0 * sum(x.sum() for x in (lin_q, lin_k))


def both(sizes: Sizes, mask: Tensor | None, causal: bool):
    """Return the operator and its definition as functions of the six inputs."""
    seen = None if mask is None else mask.cpu()
    return (
        lambda *x: gau_attention(*x, group=sizes.group, mask=mask, causal=causal),
        lambda *x: naive_gau(*x, group=sizes.group, mask=seen, causal=causal),
    )


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_are_those_of_the_equations(sizes, kind):
    inputs, mask = draw(sizes, masked=kind["masked"])
    agree(*both(sizes, mask, kind["causal"]), inputs)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("sizes", SIZES[:8], ids=str)
def test_a_few_groups_at_once_are_all_groups(sizes, groups, kind, monkeypatch):
    numbers = groups * sizes.batch * sizes.value * sizes.group
    monkeypatch.setattr(import_module("sixfold.kernels.gau_reference"), "PIECE", numbers)
    inputs, mask = draw(sizes, masked=kind["masked"])
    agree(*both(sizes, mask, kind["causal"]), inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_rounding_is_that_of_the_number_format(causal, dtype):
    sizes = Sizes(2, 23, 8, 16, 8)
    inputs, _ = draw(sizes, dtype)
    agree(*both(sizes, None, causal), inputs)


@pytest.mark.parametrize("causal", [False, True])
def test_gradcheck_once_and_twice(causal):
    inputs, mask = draw(SIZES[1], masked=True)
    fast, _ = both(SIZES[1], mask, causal)
    options = {"atol": 1e-7, "fast_mode": True}
    torch.autograd.gradcheck(fast, inputs, eps=1e-6, **options)
    torch.autograd.gradgradcheck(fast, inputs, **options)


def test_causal_means_that_the_future_does_not_reach_the_past():
    inputs, _ = draw(Sizes(1, 20, 4, 6, 8))
    changed = [value.detach().clone() for value in inputs]
    for value in changed:
        value[:, 13:] = 7
    before, after = (gau_attention(*x, group=8, causal=True)[:, :13] for x in (inputs, changed))
    assert torch.equal(before, after)


def test_masked_tokens_reach_nobody_else():
    inputs, _ = draw(Sizes(1, 20, 4, 6, 8))
    mask = torch.arange(20)[None] != 5
    changed = [value.detach().clone() for value in inputs]
    for value in changed:
        value[:, 5] = 7
    before, after = (gau_attention(*x, group=8, mask=mask)[mask] for x in (inputs, changed))
    assert torch.equal(before, after)


def test_items_of_a_batch_do_not_meet():
    inputs, _ = draw(SIZES[1])
    whole = gau_attention(*inputs, group=4)
    for item in range(2):
        alone = gau_attention(*[value[item : item + 1] for value in inputs], group=4)
        torch.testing.assert_close(whole[item : item + 1], alone, rtol=1e-12, atol=1e-12)


def test_dropout_drops_entries_of_a_and_keeps_their_mean():
    tokens = 64  # one group; the linear part is off, so that att_u = A u is all there is
    inputs, _ = draw(Sizes(1, tokens, 4, tokens, tokens))
    q, k, _, _, v, _ = (value.detach() for value in inputs)
    none, v, u = torch.zeros_like(q), torch.ones_like(v), torch.eye(tokens).double()[None]
    torch.manual_seed(0)
    dropped = gau_attention(q, k, none, none, v, u, group=tokens, dropout=0.25)
    kept = gau_attention(q, k, none, none, v, u, group=tokens)
    a = (q @ k.mT / tokens).relu().square()
    share = ((dropped == 0) & (a > 0)).sum() / (a > 0).sum()
    assert 0.2 < share < 0.3
    on = dropped != 0  # off the diagonal of u the gate is a half
    off = on & ~torch.eye(tokens, dtype=torch.bool)
    torch.testing.assert_close(dropped[off], kept[off] / 0.75)


def test_memory_layout_does_not_matter():
    inputs, _ = draw(SIZES[1])
    expected = gau_attention(*inputs, group=4)
    strided = [value.mT.contiguous().mT for value in inputs]
    assert not strided[4].is_contiguous()
    torch.testing.assert_close(gau_attention(*strided, group=4), expected, rtol=1e-12, atol=1e-12)


def test_autocast_casts():
    inputs, _ = draw(SIZES[1], torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = gau_attention(*inputs, group=4)
    assert y.dtype == torch.bfloat16
    doubles = [value.detach().double() for value in inputs]
    assert (
        error(y, naive_gau(*doubles, group=4)) < 2 * TOLERANCE[torch.bfloat16][0]
    )  # inputs are rounded
    assert {value.dtype for value in gradients(y, inputs)} == {torch.float32}


@pytest.mark.parametrize("causal", [False, True])
def test_two_runs_agree_to_the_bit(causal):
    inputs, mask = draw(SIZES[1], torch.float32, masked=True)
    repeats(both(SIZES[1], mask, causal)[0], inputs)


@pytest.mark.parametrize("causal", [False, True])
def test_compiles_whole_with_its_backward(causal, unchecked):
    inputs, mask = draw(SIZES[1], torch.float32, masked=True)
    compiles(both(SIZES[1], mask, causal)[0], inputs)


class Layer(torch.nn.Module):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, x):
        q, k, lin_q, lin_k = (x[..., i::6] for i in range(4))
        v, u = x.chunk(2, -1)
        return gau_attention(q, k, lin_q, lin_k, v, u, group=4, causal=self.causal)


@pytest.mark.parametrize("causal", [False, True])
def test_exports_with_any_batch_and_length(causal, unchecked):
    shapes = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    exports(Layer(causal), torch.randn(2, 11, 24), torch.randn(3, 30, 24), shapes)


def test_forward_keeps_to_its_scratch():
    tokens, key, value, group = 512, 32, 128, 64
    inputs, _ = draw(Sizes(1, tokens, key, value, group), torch.float32)
    sums = 4 * tokens * value  # linear parts and sums of v and u
    gate = 5 * tokens * value
    scores = 3 * tokens * group
    most = 4 * (sums + gate + scores + tokens * key + 4 * key * value)
    assert allocated(lambda: gau_attention(*inputs, group=group)) <= most


@pytest.mark.interp
def test_more_dimensions_than_the_kernels_take_go_to_the_reference():
    inputs, _ = draw(Sizes(1, 3, MAX_WIDTH + 1, 2, 2), torch.float32, device=DEVICE)
    with fused_everywhere(), pytest.warns(RuntimeWarning, match="at most 128 features"):
        gau_attention(*inputs, group=2)
    inputs, _ = draw(SIZES[0], torch.float32, device=DEVICE)
    with fused_everywhere(), pytest.warns(RuntimeWarning, match="no dropout"):
        gau_attention(*inputs, group=4, dropout=0.1)


# The kernels, on a GPU or interpreted.

KERNEL_SIZES = [
    Sizes(1, 90, 18, 21, 70),  # two blocks of keys and of rows a group, the last group not full
    Sizes(2, 33, 5, 130, 16),  # two blocks of columns, three groups
    Sizes(2, 8, 16, 3, 8),
    Sizes(2, 3, 4, 6, 8),
    SIZES[-2],
    SIZES[-1],
]


def by_reference(sizes: Sizes, mask: Tensor | None, causal: bool):
    """Return the reference, in float64 on the CPU, which the tests above hold to the equations."""
    seen = None if mask is None else mask.cpu()
    return lambda *x: gau_attention(*x, group=sizes.group, mask=seen, causal=causal)


@pytest.mark.interp
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", [KINDS[0], KINDS[3]], ids=str)
@pytest.mark.parametrize("sizes", KERNEL_SIZES, ids=str)
def test_the_kernels_agree_with_the_equations(sizes, kind, dtype):
    inputs, mask = draw(sizes, dtype, masked=kind["masked"], device=DEVICE)
    fast, _ = both(sizes, mask, kind["causal"])
    doubles = [value.detach().cpu().double().requires_grad_() for value in inputs]
    expected = by_reference(sizes, mask, kind["causal"])(*doubles)
    with fused_everywhere(), poisoned():
        y = fast(*inputs)
        found = gradients(y, inputs)
    forward, backward = TOLERANCE[dtype]
    assert error(y, expected) < forward
    for one, wanted in zip(found, gradients(expected, doubles), strict=True):
        assert one.dtype == dtype
        assert error(one, wanted) < backward


@pytest.mark.interp
def test_the_kernels_are_what_runs_and_repeat_to_the_bit(monkeypatch):
    monkeypatch.setattr(import_module(gau_attention.__module__), "attend_reference", None)
    inputs, mask = draw(SIZES[1], torch.float32, masked=True, device=DEVICE)
    with fused_everywhere(), poisoned():
        repeats(both(SIZES[1], mask, False)[0], inputs)


@pytest.mark.interp
def test_the_kernels_can_be_differentiated_twice():
    def second(device: str) -> list[Tensor]:
        inputs, mask = draw(SIZES[1], torch.float32, masked=True, device=device)
        y = both(SIZES[1], mask, True)[0](*inputs)
        grads = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        size = torch.stack([value.square().sum() for value in grads]).sum()
        return list(torch.autograd.grad(size, inputs))

    with fused_everywhere():
        found = second(DEVICE)
    for one, wanted in zip(found, second("cpu"), strict=True):
        assert error(one, wanted.double()) < TOLERANCE[torch.float32][1]


@pytest.mark.interp
def test_the_operators_are_registered_well():
    (q, k, lin_q, _, v, u), mask = draw(SIZES[1], torch.float32, masked=True, device=DEVICE)
    memories = [torch.randn(2, 3, 4, 6, device=DEVICE) for _ in range(2)]
    inputs = (q, k, lin_q, v, u, *memories, mask, 4, True)
    torch.library.opcheck(gau_fused, inputs)
    plain = [x.detach() if isinstance(x, Tensor) else x for x in inputs]
    torch.library.opcheck(gau_backward, (v.detach(), *plain))


@pytest.mark.interp
def test_the_kernels_compile_whole(unchecked):
    inputs, _ = draw(SIZES[1], torch.float32, device=DEVICE)
    with fused_everywhere():
        compiles(both(SIZES[1], None, False)[0], inputs)


@pytest.mark.parametrize(
    ("index", "shape", "message"),
    [
        (1, (2, 12, 5), r"quad_q, quad_k.*\(2, 12, 4\), \(2, 12, 5\)"),
        (5, (2, 12, 7), r"v and\s+u \(batch, tokens, value\), got .*\(2, 12, 7\)"),
        (4, (2, 11, 6), r"got .*\(2, 11, 6\)"),
    ],
)
def test_sizes_that_do_not_fit_are_named(index, shape, message, unchecked):
    inputs, _ = draw(SIZES[0])
    inputs[index] = torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        gau_attention(*inputs, group=4)


def test_other_arguments_that_do_not_fit_are_named(unchecked):
    inputs, _ = draw(SIZES[0])
    with pytest.raises(ValueError, match=r"mask should be \(2, 12\).*got \(2, 11\)"):
        gau_attention(*inputs, group=4, mask=torch.ones(2, 11, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least 1 token, got 0"):
        gau_attention(*inputs, group=0)
    with pytest.raises(TypeError, match=r"of one type, got torch\.float32, torch\.float64"):
        gau_attention(inputs[0].float(), *inputs[1:], group=4)


def test_one_group_has_nothing_to_read_across_groups():
    (q, k, lin_q, lin_k, v, u), _ = draw(SIZES[4])
    y = gau_attention(q, k, lin_q, lin_k, v, u, group=8, causal=True)
    a = (q @ k.mT / 8).relu().square().tril()
    expected = (a @ u) * v * functional.sigmoid((a @ v) * u)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
