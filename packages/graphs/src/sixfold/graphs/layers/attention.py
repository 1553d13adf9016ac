"""The attention of GAT over a fixed graph.

    y[i] = sum over the edges j -> i of alpha_ij z_j,   alpha_i = softmax over them of
    LeakyReLU(source_j + target_i)

PyG gathers (edges, heads, features) messages, and keeps them for the backward pass. But a leaky
ReLU consists of two linear pieces, and exp(source_j + target_i) = exp(source_j) exp(target_i). So
the edges with a positive score need one sum over neighbours of rows that were scaled beforehand,
and the other edges a second one; the gradients are such sums too. The backward pass keeps rows of
nodes, and nothing for each edge.
"""

from collections.abc import Iterator
from typing import no_type_check

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from sixfold.core.autograd import once_differentiable
from sixfold.kernels import Graph
from sixfold.kernels.graph import Csr
from sixfold.kernels.spmm_sum import weighted_sum

MAX_SPREAD = 60.0  # of source scores: exp(-60) is a normal float32 number


def attend(
    graph: Graph, packed: Float[Tensor, "node column"], heads: int, slope: float
) -> Float[Tensor, "node out"]:
    """Average the values of each node's neighbours, weighted by the softmax of the edges' scores.

    Args:
        graph: Graph with a self loop at every node, so that every node has a neighbour.
        packed: Columns of each node: its values, head after head; its score as a source, for each
            head; its score as a target. If source scores are more than `MAX_SPREAD` apart,
            exponentials could underflow, and `attend_reference` computes the result.
        heads: Number of heads.
        slope: Negative slope of the leaky ReLU.

    Returns:
        The averages, head after head.
    """
    lowest, highest = packed.detach()[:, -2 * heads : -heads].aminmax(dim=0)
    if not (0 <= slope <= 1 and bool((highest - lowest < MAX_SPREAD).all())):
        return attend_reference(graph, packed, heads, slope)
    wide = packed.float() if packed.itemsize < 4 else packed
    return _Attend.apply(wide, graph, heads, slope)[0].to(packed.dtype)


def attend_reference(
    graph: Graph, packed: Float[Tensor, "node column"], heads: int, slope: float
) -> Float[Tensor, "node out"]:
    """Compute `attend` edge by edge, which is stable for all scores."""
    z, source_score, target_score = _unpacked(packed, heads)
    row, col = graph.by_target.row.long(), graph.by_target.col.long()
    scores = functional.leaky_relu(source_score[col] + target_score[row], slope)
    at = row[:, None].expand_as(scores)
    lowest = torch.full_like(target_score, -torch.inf)
    largest = lowest.scatter_reduce(0, at, scores.detach(), "amax")
    weights = (scores - largest[row]).exp()
    total = torch.zeros_like(target_score).index_add(0, row, weights)
    messages = (weights / total[row])[..., None] * z[col]
    return torch.zeros_like(z).index_add(0, row, messages).flatten(1)


def _unpacked(packed: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    z, source_score, target_score = packed.tensor_split((-2 * heads, -heads), 1)
    return z.unflatten(1, (heads, -1)), source_score, target_score


def _factors(packed: Tensor, heads: int, slope: float) -> Iterator[tuple[Tensor, ...]]:
    """Yield, for each head, source and target scores and the factors of their exponentials.

    The factors are those of source and target for edges with a positive score, and those for the
    other edges. A product of two is exp(score - the largest score that the target could have), so
    that no factor is above one.
    """
    source_score, target_score = (scores.T.contiguous() for scores in _unpacked(packed, heads)[1:])
    largest = source_score.amax(1, keepdim=True)
    source, target = source_score - largest, (1 - slope) * (target_score + largest)
    parts = source, target.clamp(max=0), slope * source, -target.clamp(min=0)
    factors = (part.exp()[..., None] for part in parts)
    return zip(source_score, target_score, *factors, strict=True)


def _scaled_rows(
    x: Float[Tensor, "node feature"], last: Tensor | float, scale: Float[Tensor, "node 1"]
) -> Float[Tensor, "node _"]:
    """Append a column, and scale the rows."""
    rows = x.new_empty(len(x), x.shape[1] + 1)
    torch.mul(x, scale, out=rows[:, :-1])
    rows[:, -1:] = last * scale
    return rows


def _two_sums(
    edges: Csr, row_scores: Tensor, col_scores: Tensor, values: Iterator[Tensor]
) -> list[Tensor]:
    """Sum the first values over edges with a positive score, and the second over the others."""
    positive = col_scores.index_select(0, edges.col)
    positive = positive.gt_(row_scores.neg().index_select(0, edges.row))
    high = weighted_sum(edges, next(values), positive)
    return [high, weighted_sum(edges, next(values), positive.neg_().add_(1))]


@no_type_check  # a compiler cannot trace a checked setup_context
class _Attend(Function):
    """`attend`, head after head, so that only one head at a time has a number for each edge.

    Rows have one more column of ones, whose sums are the denominators of the softmax.
    """

    @staticmethod
    def forward(packed, graph, heads, slope):
        z = _unpacked(packed, heads)[0]
        out = z.new_empty(len(z), heads * z.shape[2])  # no view, so that it may be changed in place
        kept = []  # for each head both weighted sums, with their share of the weights
        total = z.new_empty(heads, len(z), 1)
        for head, factors in enumerate(_factors(packed, heads, slope)):
            source_score, target_score, source, target, low_source, low_target = factors
            rows = (_scaled_rows(z[:, head], 1.0, scale) for scale in (source, low_source))
            high, low = _two_sums(graph.by_target, target_score, source_score, rows)
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
        if grad is None:  # the kept outputs have none, and zeros for them would take memory
            return (None,) * 4
        (packed, total, *kept), slope = ctx.saved_tensors, ctx.slope
        z, grad_packed = _unpacked(packed, ctx.heads)[0], torch.empty_like(packed)
        grad = grad.unflatten(1, z.shape[1:])
        grad_z = _unpacked(grad_packed, ctx.heads)[0]
        grad_scores = total.new_empty(2, *total.shape[:2])
        for head, factors in enumerate(_factors(packed, ctx.heads, slope)):
            source_score, target_score, source, target, low_source, low_target = factors
            # The gradient of a score is its weight times (<grad, z> - the weighted mean of that).
            high, low = kept[2 * head : 2 * head + 2]
            positive = (grad[:, head] * high[:, :-1]).sum(1)
            mean = (grad[:, head] * low[:, :-1]).sum(1).add_(positive)
            # Summed over a node's incoming edges it is zero, but for the slope of negative scores.
            grad_scores[1, head] = (1 - slope) * (positive - mean * high[:, -1])
            scales = target / total[head], low_target / total[head]
            rows = (_scaled_rows(grad[:, head], -mean[:, None], scale) for scale in scales)
            high, low = _two_sums(ctx.graph.by_source, source_score, target_score, rows)
            high, low = high.mul_(source), low.mul_(low_source)
            torch.add(high[:, :-1], low[:, :-1], out=grad_z[:, head])
            weighted = high.add_(low, alpha=slope)
            grad_scores[0, head] = (weighted[:, :-1] * z[:, head]).sum(1) + weighted[:, -1]
        grad_packed[:, -2 * ctx.heads :] = grad_scores.flatten(0, 1).T
        return grad_packed, None, None, None
