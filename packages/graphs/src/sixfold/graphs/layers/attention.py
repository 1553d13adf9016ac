"""The attention of GAT over a graph that stays as it is.

    y[i] = sum over the edges j -> i of alpha_ij z_j,   alpha_i = softmax over them of
    LeakyReLU(toward_j + fro_i)

PyG gathers (edges, heads, features) messages, and keeps them for the backward pass. But a leaky
ReLU is one of two lines, and exp(toward_j + fro_i) = exp(toward_j) exp(fro_i): the edges whose
score is positive, and the others, each need no more than a sum over neighbours of rows that were
scaled before. So do all gradients. Kept are rows for nodes; nothing for edges.
"""

from collections.abc import Iterator
from typing import no_type_check

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from sixfold.kernels import Graph
from sixfold.kernels.graph import Csr
from sixfold.kernels.spmm_sum import weighted_sum

SAFE = 60.0  # exp(-60) is a normal float32 number


def attend(
    graph: Graph, packed: Float[Tensor, "node column"], heads: int, slope: float
) -> Float[Tensor, "node out"]:
    """Average at each node the rows of its sources, by the softmax of the edges' scores.

    Args:
        graph: Every node with a loop, so that none receives nothing.
        packed: Of each node, what is averaged, head after head; a source's part of each head's
            scores; a target's part. If sources' parts are more than `SAFE` apart, exponentials of
            single nodes could vanish, and `attend_reference` is asked.
        heads: How many.
        slope: Of the leaky ReLU.

    Returns:
        The averages, head after head.
    """
    least, most = packed.detach()[:, -2 * heads : -heads].aminmax(dim=0)
    if not (0 <= slope <= 1 and bool((most - least < SAFE).all())):
        return attend_reference(graph, packed, heads, slope)
    wide = packed.float() if packed.itemsize < 4 else packed
    return _Attend.apply(wide, graph, heads, slope)[0].to(packed.dtype)


def attend_reference(
    graph: Graph, packed: Float[Tensor, "node column"], heads: int, slope: float
) -> Float[Tensor, "node out"]:
    """Compute the same edge by edge, whatever the scores."""
    z, toward, fro = _unpacked(packed, heads)
    row, col = graph.by_target.row.long(), graph.by_target.col.long()
    scores = functional.leaky_relu(toward[col] + fro[row], slope)
    at = row[:, None].expand_as(scores)
    largest = torch.full_like(fro, -torch.inf).scatter_reduce(0, at, scores.detach(), "amax")
    weights = (scores - largest[row]).exp()
    total = torch.zeros_like(fro).index_add(0, row, weights)
    messages = (weights / total[row])[..., None] * z[col]
    return torch.zeros_like(z).index_add(0, row, messages).flatten(1)


def _unpacked(packed: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    z, toward, fro = packed.tensor_split((-2 * heads, -heads), 1)
    return z.unflatten(1, (heads, -1)), toward, fro


def _factors(packed: Tensor, heads: int, slope: float) -> Iterator[tuple[Tensor, ...]]:
    """Yield, for each head, its scores and the factors of their exponentials.

    A source's and a target's factor for edges that pass, and for others; they make exp(score - the
    largest score that the target could have), and none is above one.
    """
    toward, fro = (scores.T.contiguous() for scores in _unpacked(packed, heads)[1:])
    most = toward.amax(1, keepdim=True)
    source, target = toward - most, (1 - slope) * (fro + most)
    parts = source, target.clamp(max=0), slope * source, -target.clamp(min=0)
    return zip(*[toward, fro, *(part.exp()[..., None] for part in parts)], strict=True)


def _rows(
    x: Float[Tensor, "node feature"], last: Tensor | float, scale: Float[Tensor, "node 1"]
) -> Float[Tensor, "node _"]:
    """Append a number to each row, and scale the rows."""
    rows = x.new_empty(len(x), x.shape[1] + 1)
    torch.mul(x, scale, out=rows[:, :-1])
    rows[:, -1:] = last * scale
    return rows


def _sums(edges: Csr, of_row: Tensor, of_col: Tensor, given: Iterator[Tensor]) -> list[Tensor]:
    """Sum at each row what is given first over the edges that pass, then the second over others."""
    passed = of_col.index_select(0, edges.col).gt_(of_row.neg().index_select(0, edges.row))
    high = weighted_sum(edges, next(given), passed)
    return [high, weighted_sum(edges, next(given), passed.neg_().add_(1))]


@no_type_check  # a compiler cannot trace a checked setup_context
class _Attend(Function):
    """Head after head, so that what has a number for each edge is there for one head only.

    Rows have one number more, a one, of which the sums are the denominators.
    """

    @staticmethod
    def forward(packed, graph, heads, slope):
        z = _unpacked(packed, heads)[0]
        out = z.new_empty(len(z), heads * z.shape[2])  # no view, so that it may be changed in place
        kept = []  # of each head the two sums, and their weights
        total = z.new_empty(heads, len(z), 1)
        factors = enumerate(_factors(packed, heads, slope))
        for head, (toward, fro, source, target, low_source, low_target) in factors:
            given = (_rows(z[:, head], 1.0, scale) for scale in (source, low_source))
            high, low = _sums(graph.by_target, fro, toward, given)
            torch.addcmul(high[:, -1:] * target, low[:, -1:], low_target, out=total[head])
            kept += high.mul_(target / total[head]), low.mul_(low_target / total[head])
            torch.add(high[:, :-1], low[:, :-1], out=out.view_as(z)[:, head])
        return out, total, *kept

    @staticmethod
    def setup_context(ctx, inputs, output):
        packed, ctx.graph, ctx.heads, ctx.slope = inputs
        ctx.save_for_backward(packed, *output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, *_):
        if grad is None:  # what is kept has none, and making zeros for it would take memory
            return (None,) * 4
        (packed, total, *kept), slope = ctx.saved_tensors, ctx.slope
        z, found = _unpacked(packed, ctx.heads)[0], torch.empty_like(packed)
        grad = grad.unflatten(1, z.shape[1:])
        grad_z, grad_scores = _unpacked(found, ctx.heads)[0], total.new_empty(2, *total.shape[:2])
        factors = enumerate(_factors(packed, ctx.heads, slope))
        for head, (toward, fro, source, target, low_source, low_target) in factors:
            # A score's gradient is its weight times: <grad, z> less what that is on average.
            share, rest = kept[2 * head : 2 * head + 2]
            passed = (grad[:, head] * share[:, :-1]).sum(1)
            average = (grad[:, head] * rest[:, :-1]).sum(1).add_(passed)
            # Of all edges into a node that is nothing: what the others have, those that pass lack.
            grad_scores[1, head] = (1 - slope) * (passed - average * share[:, -1])
            scales = target / total[head], low_target / total[head]
            given = (_rows(grad[:, head], -average[:, None], scale) for scale in scales)
            high, low = _sums(ctx.graph.by_source, toward, fro, given)
            high, low = high.mul_(source), low.mul_(low_source)
            torch.add(high[:, :-1], low[:, :-1], out=grad_z[:, head])
            scored = high.add_(low, alpha=slope)
            grad_scores[0, head] = (scored[:, :-1] * z[:, head]).sum(1) + scored[:, -1]
        found[:, -2 * ctx.heads :] = grad_scores.flatten(0, 1).T
        return found, None, None, None
