"""The attention of GAT over a graph that stays as it is.

    y[i] = sum over the edges j -> i of alpha_ij z_j,   alpha_i = softmax over them of
    LeakyReLU(toward_j + fro_i)

PyG gathers (edges, heads, features) messages and keeps them for the backward pass. Here each head
is a sparse product whose weights are divided by their sum afterwards; kept are two numbers for each
edge and head, and what has a row for each node.
"""

import warnings
from typing import no_type_check

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from sixfold.kernels import Graph
from sixfold.kernels.graph import Csr
from sixfold.kernels.spmm_sum import edge_products, weighted_sum

SAFE = 60.0  # exp(-60) is a normal float32 number


def attend(
    graph: Graph,
    z: Float[Tensor, "head node feature"],
    toward: Float[Tensor, "head node"],
    fro: Float[Tensor, "head node"],
    slope: float,
) -> Float[Tensor, "head node feature"]:
    """Average at each node the rows of its sources, by the softmax of the edges' scores.

    Args:
        graph: Every node with a loop, so that none receives nothing.
        z: What is averaged.
        toward: A source's part of the scores.
        fro: A target's part.
        slope: Of the leaky ReLU.
    """
    return _Attend.apply(z.contiguous(), toward, fro, graph, slope)[0]


def _unnormed(
    edges: Csr, toward: Tensor, fro: Tensor, slope: float
) -> tuple[Float[Tensor, " edge"], Bool[Tensor, " edge"]]:
    """Return exp(score - something of the target), and where the leaky ReLU let all through."""
    scores = toward.index_select(0, edges.col).add_(fro.index_select(0, edges.row))
    passed = scores > 0
    scores = functional.leaky_relu_(scores, slope)
    most, least = toward.max(), toward.min()
    if float(most - least) < SAFE and 0 <= slope <= 1:  # a node's largest is not far below this
        largest = functional.leaky_relu(most + fro, slope)
    else:
        largest = torch.segment_reduce(scores, "max", offsets=edges.rowptr.long())
    return scores.sub_(largest.index_select(0, edges.row)).exp_(), passed


def _row_sums(edges: Csr, values: Float[Tensor, " edge"]) -> Float[Tensor, " node"]:
    return weighted_sum(edges, values.new_ones(len(edges.rowptr) - 1, 1), values)[:, 0]


def _products(edges: Csr, left: Tensor, right: Tensor) -> Float[Tensor, " edge"]:
    """Multiply the rows that each edge joins; on a CPU sampled_addmm is a few times faster."""
    if left.is_cuda or left.dtype not in (torch.float32, torch.float64):
        return edge_products(edges, left, right)
    shape, zeros = (len(left), len(right)), left.new_zeros(len(edges.col))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse (CSR|invariant)")
        pattern = torch.sparse_csr_tensor(
            edges.rowptr, edges.col, zeros, shape, check_invariants=False
        )
    return torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values()


@no_type_check  # a compiler cannot trace a checked setup_context
class _Attend(Function):
    """Head after head, so that what has a number for each edge is there for one head only."""

    @staticmethod
    def forward(z, toward, fro, graph, slope):
        edges, out = graph.by_target, torch.empty_like(z)
        weights = z.new_empty(len(z), len(edges.col))
        passed, total = torch.empty_like(weights, dtype=torch.bool), torch.empty_like(toward)
        for head in range(len(z)):
            weights[head], passed[head] = _unnormed(edges, toward[head], fro[head], slope)
            total[head] = _row_sums(edges, weights[head])
            out[head] = weighted_sum(edges, z[head], weights[head])
        return out.div_(total[..., None]), weights, passed, total

    @staticmethod
    def setup_context(ctx, inputs, output):
        z, _, _, ctx.graph, ctx.slope = inputs
        ctx.save_for_backward(z, *output)
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, *_):
        z, out, weights, passed, total = ctx.saved_tensors
        graph, grad_z = ctx.graph, torch.empty_like(z)
        toward, fro = torch.empty_like(total), torch.empty_like(total)
        for head, weight in enumerate(weights):
            sent = grad[head] / total[head][:, None]
            grad_z[head] = weighted_sum(graph.by_source, sent, weight.index_select(0, graph.order))
            scores = _products(graph.by_target, sent, z[head])
            scores.sub_((sent * out[head]).sum(1).index_select(0, graph.by_target.row))
            scores.mul_(weight).mul_(torch.where(passed[head], 1.0, ctx.slope))
            toward[head] = _row_sums(graph.by_source, scores.index_select(0, graph.order))
            fro[head] = _row_sums(graph.by_target, scores)
        return grad_z, toward, fro, None, None
