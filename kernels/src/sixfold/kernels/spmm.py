"""Aggregation over the edges of a graph: a sparse matrix times a dense one.

    y[i] = reduce over the edges e into node i of edge_weight[e] x[source of e]

Gather, multiply, scatter-add reads and writes (edges, features) about five times. Here each row of
the result is summed where it is, as a bag of rows of x: those are read once, the result is written
once. The gradient of x is the same sum over the reversed edges, which the graph has sorted already;
the gradient of a weight is the scalar product of the edge's two rows.

On a GPU the Triton kernels do the same in float32, long rows in pieces, without atomics: results
do not change from run to run. Per edge they read one row of x, one index and one weight.
"""

from typing import Literal, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from sixfold.kernels.graph import Graph
from sixfold.kernels.spmm_max import spmm_max
from sixfold.kernels.spmm_sum import edge_products, weighted_sum


def spmm(
    graph: Graph,
    x: Float[Tensor, "node feature"],
    edge_weight: Float[Tensor, " edge"] | None = None,
    reduce: Literal["sum", "mean", "max"] = "sum",
) -> Float[Tensor, "node feature"]:
    """Reduce, at each node, the weighted rows of the sources of its incoming edges.

    A node that receives nothing gets zeros, also from ``max``.

    Args:
        graph: Graph whose nodes are the rows of x.
        x: Node features; the result has their dtype and device.
        edge_weight: Weight of each edge, in the order of the edge list; one if not given.
        reduce: Name of the reduction. The mean divides by the number of edges, not by the sum of
            weights. Of equal largest values that of the lowest source gets the gradient; ``max``
            has no gradient for weights.

    Raises:
        TypeError: x or edge_weight are not floating point.
        ValueError: sizes or devices do not fit, reduce is unknown, or the weights of ``max``
            require a gradient.
    """
    _check(graph, x, edge_weight, reduce)
    if edge_weight is not None:
        edge_weight = edge_weight.index_select(0, graph.perm)
    if reduce == "max":
        return spmm_max(graph, x, edge_weight)
    if reduce == "mean":
        mean = graph.by_target.mean_weights(x.dtype if edge_weight is None else edge_weight.dtype)
        edge_weight = mean if edge_weight is None else edge_weight * mean
    return sorted_spmm(graph, x, edge_weight)


def sorted_spmm(
    graph: Graph,
    x: Float[Tensor, "node feature"],
    edge_weight: Float[Tensor, " edge"] | None = None,
) -> Float[Tensor, "node feature"]:
    """Compute the sum of `spmm` with weights in the order of ``graph.by_target``, unchecked.

    For callers that keep their weights sorted, which saves sorting them at every call.
    """
    return _Spmm.apply(x, edge_weight, graph)


def _check(graph: Graph, x: Tensor, weight: Tensor | None, reduce: str) -> None:
    nodes, edges = graph.num_nodes, graph.num_edges
    if reduce not in ("sum", "mean", "max"):
        raise ValueError(f"spmm: reduce should be 'sum', 'mean' or 'max', got {reduce!r}")
    if x.ndim != 2 or x.shape[0] != nodes:
        raise ValueError(
            f"spmm: x should be ({nodes}, features), a row for each node of the graph, "
            f"got {tuple(x.shape)}"
        )
    if weight is not None and weight.shape != (edges,):
        raise ValueError(
            f"spmm: edge_weight should be ({edges},), a number for each edge of the graph, got "
            f"{tuple(weight.shape)}"
        )
    for name, value in (("x", x), ("edge_weight", weight)):
        if value is None:
            continue
        if not value.is_floating_point():
            raise TypeError(
                f"spmm: {name} should hold floating-point numbers, got {value.dtype}; "
                f"pass {name}.float()"
            )
        if value.device != graph.perm.device:
            raise ValueError(
                f"spmm: {name} is on {value.device}, the graph on {graph.perm.device}; "
                f"pass graph.to({str(value.device)!r})"
            )
    if reduce == "max" and weight is not None and weight.requires_grad:
        raise ValueError(
            "spmm: reduce='max' has no gradient for edge_weight; pass edge_weight.detach()"
        )


@no_type_check  # a compiler cannot trace a checked setup_context
class _Spmm(Function):
    """The sum; its backward chooses its path anew, so that it can be differentiated again."""

    @staticmethod
    def forward(x, weight, graph):
        return weighted_sum(graph.by_target, x, weight)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, ctx.graph = inputs
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)

    @staticmethod
    def backward(ctx, grad):
        (x, weight), graph, again = ctx.saved_tensors, ctx.graph, torch.is_grad_enabled()
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            reordered = None if weight is None else weight.index_select(0, graph.order)
            if again:
                grad_x = _Spmm.apply(grad, reordered, graph.flipped())
            else:
                grad_x = weighted_sum(graph.by_source, grad, reordered)
        if ctx.needs_input_grad[1]:
            edges = graph.by_target
            if again:
                seen = grad.index_select(0, edges.row) * x.index_select(0, edges.col)
                grad_weight = seen.sum(1)
            else:
                grad_weight = edge_products(edges, grad, x)
        return grad_x, grad_weight, None
