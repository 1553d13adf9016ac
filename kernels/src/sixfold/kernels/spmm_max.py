"""The maximum over each node's incoming edges; part of `sixfold.kernels.spmm`.

    y[i, f] = max over the edges e into node i of weight[e] x[source of e, f]

Both paths store which edge won, the first of equal ones, and send the gradient there.
"""

import warnings
from typing import no_type_check

import torch
from torch import Tensor
from torch.autograd import Function

from sixfold.kernels._dispatch import DEVICES, jit, tl, use_fused
from sixfold.kernels.graph import Csr, Graph

EDGES = 16  # that a program reads at once


def block_of(features: int) -> int:
    """Return the number of features that one program handles: a power of two, at most 128."""
    return min(128, 1 << (features - 1).bit_length())


def spmm_max(graph: Graph, x: Tensor, weight: Tensor | None) -> Tensor:
    """Compute the maximum; zeros where there is no edge, no gradient for the weights."""
    return _Max.apply(x, weight, graph)[0]


@no_type_check  # a compiler cannot trace a checked setup_context
class _Max(Function):
    @staticmethod
    def forward(x, weight, graph):
        edges = graph.by_target
        if use_fused("spmm", x):
            weight = None if weight is None else weight.float()
            return spmm_max_fused(x, weight, edges.rowptr, edges.col)
        return largest_reference(edges, x, weight)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, weight, ctx.graph = inputs
        ctx.save_for_backward(weight, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx, grad, _):
        (weight, winner), graph = ctx.saved_tensors, ctx.graph
        if not torch.is_grad_enabled() and use_fused("spmm", grad):
            weight = None if weight is None else weight.float()
            edges = graph.by_source
            tensors = (edges.rowptr, edges.col, graph.order)
            return spmm_max_backward(grad, winner, weight, *tensors), None, None
        return route_reference(graph.by_target, grad, winner, weight), None, None


def largest_reference(edges: Csr, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the largest values and their edges; the number of edges stands for no edge."""
    count, size = len(edges.col), len(edges.rowptr) - 1
    weight = x.new_ones(count) if weight is None else weight.to(x.dtype)
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        with warnings.catch_warnings():  # that this layout is in beta
            warnings.simplefilter("ignore")
            matrix = torch.sparse_csr_tensor(edges.rowptr, edges.col, weight, (size, size))
        with torch.enable_grad():  # the operator names the edges only if a gradient may be asked
            values = x.detach().contiguous().requires_grad_()
            y, winner = torch.ops.aten._sparse_mm_reduce_impl(matrix, values, "amax")
        return y.detach(), winner.to(edges.col.dtype)
    brought = x.index_select(0, edges.col) * weight[:, None]
    row = edges.row.long()[:, None].expand_as(brought)
    y = x.new_full((size, x.shape[1]), -torch.inf).scatter_reduce(0, row, brought, "amax")
    place = torch.arange(count, dtype=edges.col.dtype, device=x.device)[:, None]
    place = torch.where(brought == y.index_select(0, edges.row), place, count)
    winner = place.new_full(y.shape, count).scatter_reduce(0, row, place, "amin")
    return y.masked_fill((edges.rowptr.diff() == 0)[:, None], 0), winner


def route_reference(edges: Csr, grad: Tensor, winner: Tensor, weight: Tensor | None) -> Tensor:
    """Send each gradient to the source of the winning edge."""
    count = len(edges.col)
    total = grad.new_zeros(grad.shape, dtype=torch.promote_types(grad.dtype, torch.float32))
    if count == 0:
        return total.to(grad.dtype)
    at = winner.clamp(max=count - 1).long()
    sent = grad.to(total.dtype).masked_fill(winner == count, 0)
    if weight is not None:
        sent = sent * weight[at]
    return total.scatter_add(0, edges.col[at].long(), sent.to(total.dtype)).to(grad.dtype)


@jit
def _largest(
    x,
    weight,
    rowptr,
    col,
    y,
    winner,
    edges,
    features,
    WEIGHTED: tl.constexpr,
    EDGES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Find the largest values of one row and their edges."""
    row = tl.program_id(0).to(tl.int64)
    edge, end = tl.load(rowptr + row), tl.load(rowptr + row + 1)
    feature = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = feature < features
    best = tl.full((BLOCK,), -float("inf"), tl.float32)
    found = tl.zeros((BLOCK,), edge.dtype) + edges
    empty = edge == end
    while edge < end:
        at = edge + tl.arange(0, EDGES)
        source = tl.load(col + at, mask=at < end, other=0).to(tl.int64)
        here = (at < end)[:, None] & inside[None, :]
        seen = tl.load(x + source[:, None] * features + feature[None, :], mask=here, other=0.0)
        seen = seen.to(tl.float32)
        if WEIGHTED:
            seen *= tl.load(weight + at, mask=at < end, other=0.0)[:, None]
        seen = tl.where(here, seen, -float("inf"))
        most = tl.max(seen, 0)
        first = tl.min(tl.where((seen == most[None, :]) & here, at[:, None], edges), 0)
        found = tl.where(most > best, first, found)
        best = tl.maximum(best, most)
        edge += EDGES
    best = tl.where(empty, 0.0, best)
    tl.store(y + row * features + feature, best, mask=inside)
    tl.store(winner + row * features + feature, found, mask=inside)


@jit
def _route(
    grad,
    winner,
    weight,
    rowptr,
    col,
    order,
    out,
    features,
    WEIGHTED: tl.constexpr,
    EDGES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum, for one source, the gradients of the targets at which its edges won."""
    row = tl.program_id(0).to(tl.int64)
    edge, end = tl.load(rowptr + row), tl.load(rowptr + row + 1)
    feature = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = feature < features
    total = tl.zeros((BLOCK,), tl.float32)
    while edge < end:
        at = edge + tl.arange(0, EDGES)
        own = tl.load(order + at, mask=at < end, other=0)
        target = tl.load(col + at, mask=at < end, other=0).to(tl.int64)
        here = (at < end)[:, None] & inside[None, :]
        place = target[:, None] * features + feature[None, :]
        won = here & (tl.load(winner + place, mask=here, other=-1) == own[:, None])
        sent = tl.load(grad + place, mask=won, other=0.0).to(tl.float32)
        if WEIGHTED:
            sent *= tl.load(weight + own, mask=at < end, other=0.0)[:, None]
        total += tl.sum(sent, 0)
        edge += EDGES
    tl.store(out + row * features + feature, total, mask=inside)


@torch.library.custom_op("sixfold::spmm_max", mutates_args=(), device_types=DEVICES)
def spmm_max_fused(
    x: Tensor, weight: Tensor | None, rowptr: Tensor, col: Tensor
) -> tuple[Tensor, Tensor]:
    """Launch the kernel of the maximum, with the tensors of the graph by target."""
    x, features = x.contiguous(), x.shape[1]
    y, winner = torch.empty_like(x), x.new_empty(x.shape, dtype=col.dtype)
    if y.numel():
        block = block_of(features)
        grid, options = (len(x), -(-features // block)), {"EDGES": EDGES, "BLOCK": block}
        tensors, weighted = (x, weight, rowptr, col, y, winner), weight is not None
        _largest[grid](*tensors, len(col), features, WEIGHTED=weighted, **options)
    return y, winner


@spmm_max_fused.register_fake
def _(x, weight, rowptr, col):
    return x.new_empty(x.shape), x.new_empty(x.shape, dtype=col.dtype)


@torch.library.custom_op("sixfold::spmm_max_backward", mutates_args=(), device_types=DEVICES)
def spmm_max_backward(
    grad: Tensor,
    winner: Tensor,
    weight: Tensor | None,
    rowptr: Tensor,
    col: Tensor,
    order: Tensor,
) -> Tensor:
    """Launch the kernel of the maximum's gradient, with the tensors of the graph by source."""
    grad, features = grad.contiguous(), grad.shape[1]
    out = torch.empty_like(grad)
    if out.numel():
        block = block_of(features)
        grid, options = (len(grad), -(-features // block)), {"EDGES": EDGES, "BLOCK": block}
        tensors, weighted = (grad, winner, weight, rowptr, col, order, out), weight is not None
        _route[grid](*tensors, features, WEIGHTED=weighted, **options)
    return out


@spmm_max_backward.register_fake
def _(grad, winner, weight, rowptr, col, order):
    return grad.new_empty(grad.shape)
