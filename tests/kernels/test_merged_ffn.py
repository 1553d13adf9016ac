"""The merged feed-forward block against the block as it trains."""

from functools import partial

import pytest
import torch
from kernel_checks import TOLERANCE, agree, compiles, error, exports
from torch import Tensor, nn
from torch.nn import functional

from sixfold.kernels import merge_ffn, merged_ffn

SIZES = [  # batch shape, width, hidden, active
    ((5,), 3, 12, 3),
    ((2, 4), 6, 24, 6),
    ((2, 4), 6, 24, 0),  # all idle: a linear map
    ((2, 4), 6, 24, 24),  # none idle: the shortcut is left
    ((2, 1, 3), 5, 7, 4),
    ((), 4, 8, 3),  # one token
    ((0, 3), 4, 8, 3),
    ((3,), 1, 1, 1),
    ((3,), 8, 2, 1),  # narrower inside
]
SIZES += [((1 + i % 4,), 2 + i, 3 * i + 4, 1 + i) for i in range(12)]


def naive_block(x, layer_in, layer_out, active, norm_in, norm_out, shortcut=True):
    """Norm, layer, GELU on the first channels, norm, layer, shortcut."""
    hidden = (x * norm_in[0] + norm_in[1]) @ layer_in[0].t() + layer_in[1]
    gated = functional.gelu(hidden[..., :active])
    hidden = torch.cat([gated, hidden[..., active:]], -1) * norm_out[0] + norm_out[1]
    return hidden @ layer_out[0].t() + layer_out[1] + (x if shortcut else 0)


def naive_merged(x, weight, bias, out_weight):
    width = out_weight.shape[0]
    straight = x @ weight[:width].t() + bias[:width]
    hidden = x @ weight[width:].t() + bias[width:]
    return straight + (0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))) @ out_weight.t()


def draw(*shapes, dtype=torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(sum(map(sum, shapes)))
    drawn = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    return [value.to(dtype).requires_grad_() for value in drawn]


def merged_inputs(sizes, dtype=torch.float64) -> list[Tensor]:
    batch, width, _, active = sizes
    shapes = ((*batch, width), (width + active, width), (width + active,), (width, active))
    return draw(*shapes, dtype=dtype)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_are_those_of_the_formula(sizes):
    agree(merged_ffn, naive_merged, merged_inputs(sizes))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("normed", [False, True])
def test_merging_does_not_change_the_block(sizes, normed):
    batch, width, hidden, active = sizes
    x, w1, b1, w2, b2, *norms = draw(
        (*batch, width), (hidden, width), (hidden,), (width, hidden), (width,), *[(width,)] * 2,
        *[(hidden,)] * 2,
    )  # fmt: skip
    norm_in, norm_out = (norms[0], norms[1]), (norms[2], norms[3])
    merge = partial(merge_ffn, (w1, b1), (w2, b2), active=active)
    if normed:
        weights = merge(norm_in=norm_in, norm_out=norm_out)
    else:
        weights = merge()
        norm_in, norm_out = ((torch.ones(n), torch.zeros(n)) for n in (width, hidden))
    expected = naive_block(x, (w1, b1), (w2, b2), active, norm_in, norm_out)
    assert error(merged_ffn(x, *weights), expected) < 1e-12


def test_batch_norms_in_evaluation_fold_as_documented():
    x, w1, b1, w2, b2 = draw((7, 4), (10, 4), (10,), (4, 10), (4,))
    norms, affine = [], []
    for size in (4, 10):
        norm = nn.BatchNorm1d(size, dtype=torch.float64).eval()
        gamma, beta, mean, variance = (torch.rand(size).double() + 0.5 for _ in range(4))
        values = {"weight": gamma, "bias": beta, "running_mean": mean, "running_var": variance}
        norm.load_state_dict(values, strict=False)
        scale = gamma / (variance + norm.eps).sqrt()
        norms.append(norm)
        affine.append((scale, beta - mean * scale))
    hidden = functional.linear(norms[0](x), w1, b1)
    hidden = norms[1](torch.cat([functional.gelu(hidden[:, :3]), hidden[:, 3:]], 1))
    expected = functional.linear(hidden, w2, b2) + x
    weights = merge_ffn((w1, b1), (w2, b2), active=3, norm_in=affine[0], norm_out=affine[1])
    assert error(merged_ffn(x, *weights), expected) < 1e-12


def test_merging_is_done_in_float64_and_cast_once():
    w1, b1, w2, b2 = draw((40, 10), (40,), (10, 40), (10,), dtype=torch.float32)
    single = merge_ffn((w1, b1), (w2, b2), active=7)
    double = merge_ffn((w1.double(), b1.double()), (w2.double(), b2.double()), active=7)
    for found, expected in zip(single, double, strict=True):
        assert torch.equal(found, expected.float())


@pytest.mark.parametrize("dtype", list(TOLERANCE)[1:], ids=str)
@pytest.mark.parametrize("sizes", [SIZES[1], SIZES[2]], ids=str)
def test_rounding_is_that_of_the_number_format(sizes, dtype):
    agree(merged_ffn, naive_merged, merged_inputs(sizes, dtype))


@pytest.mark.parametrize("sizes", [((2,), 3, 0, 2), ((1, 2), 2, 0, 0)], ids=str)
def test_gradcheck(sizes):
    inputs = merged_inputs(sizes)
    assert torch.autograd.gradcheck(merged_ffn, inputs, eps=1e-6, atol=1e-7)
    assert torch.autograd.gradgradcheck(merged_ffn, inputs, atol=1e-7)


@pytest.mark.parametrize("sizes", [SIZES[1], SIZES[2]], ids=str)
def test_compiles_whole_with_its_backward(sizes, unchecked):
    compiles(merged_ffn, merged_inputs(sizes))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        weights = merged_inputs(((), 6, 24, 6), torch.float32)[1:]
        self.weights = nn.ParameterList([value.detach() for value in weights])

    def forward(self, x):
        return merged_ffn(x, *self.weights)


def test_exports_with_any_batch(unchecked):
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    exports(Block(), torch.randn(2, 5, 6), torch.randn(3, 4, 6), free)


@pytest.mark.parametrize(
    ("x", "weight", "out_weight", "message"),
    [
        ((2, 5), (6, 4), (4, 2), r"needs x of 4 coordinates .*, got x \(2, 5\)"),
        ((2, 4), (7, 4), (4, 2), r"a weight \(6, 4\), got x \(2, 4\) and weight \(7, 4\)"),
        ((2, 4), (6, 4), (4, 3), r"out_weight \(4, 3\) needs .* a weight \(7, 4\)"),
    ],
)
def test_sizes_that_do_not_fit_are_named(x, weight, out_weight, message, unchecked):
    with pytest.raises(ValueError, match=message):
        merged_ffn(*(torch.zeros(s) for s in (x, weight, weight[:1], out_weight)))


@pytest.mark.parametrize(
    ("out", "active", "message"),
    [
        ((4, 7), 2, r"\(8, 4\) needs a second one \(4, 8\) .*, got \(4, 7\) and 2"),
        ((4, 8), 9, r"0 to 8 active channels, got \(4, 8\) and 9"),
        ((4, 8), -1, r"and -1$"),
    ],
)
def test_layers_that_cannot_be_merged_are_named(out, active, message):
    layers = (torch.zeros(8, 4), torch.zeros(8)), (torch.zeros(out), torch.zeros(out[0]))
    with pytest.raises(ValueError, match=message):
        merge_ffn(*layers, active=active)
