"""The two sums of a sparse product, without gradients; part of `sixfold.kernels.spmm`.

`weighted_sum`: y[i] = sum over the edges e of row i of weight[e] x[col e].
`edge_products`: out[e] = <left[row e], right[col e]>, the gradient of the weights.

The kernels accumulate in float32. A row of more than `SEGMENT` edges is summed in pieces, and the
pieces in a second pass, so that a node with very many neighbours does not delay the others.
"""

import torch
from torch import Tensor
from torch.nn import functional

from sixfold.kernels._dispatch import DEVICES, jit, tl, use_fused
from sixfold.kernels.graph import SEGMENT, Csr
from sixfold.kernels.spmm_max import block_of

EDGES = 16  # that a program reads at once


def weighted_sum(edges: Csr, x: Tensor, weight: Tensor | None) -> Tensor:
    """Sum the weighted rows of x over the edges of each row; no gradient."""
    if use_fused("spmm", x):
        weight = None if weight is None else weight.float()
        tensors = (edges.rowptr, edges.col, edges.segments, edges.long_rows)
        return spmm_fused(x, weight, *tensors, edges.partials)
    return weighted_sum_reference(edges, x, weight)


def weighted_sum_reference(edges: Csr, x: Tensor, weight: Tensor | None) -> Tensor:
    """Compute `weighted_sum` as bags of embeddings, PyTorch's fastest formulation."""
    return functional.embedding_bag(
        edges.col,
        x.contiguous(),
        edges.rowptr,
        mode="sum",
        per_sample_weights=None if weight is None else weight.to(x.dtype),
        include_last_offset=True,
    )


def edge_products(edges: Csr, left: Tensor, right: Tensor) -> Tensor:
    """Return, for each edge, the scalar product of left[row] and right[col]."""
    if use_fused("spmm", left, right):
        return spmm_edge_products_fused(left, right, edges.row, edges.col)
    return edge_products_reference(edges, left, right)


def edge_products_reference(edges: Csr, left: Tensor, right: Tensor) -> Tensor:
    """Compute `edge_products` as the gradient of a bag's weights: no (edges, features) tensor."""
    tensors = (left.contiguous(), right.contiguous(), edges.col, edges.rowptr, edges.row)
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(*tensors, 0)


@jit
def _sum(
    x,
    weight,
    rowptr,
    col,
    segments,
    y,
    partials,
    features,
    WEIGHTED: tl.constexpr,
    EDGES: tl.constexpr,
    BLOCK: tl.constexpr,
    SEGMENT: tl.constexpr,
):
    """Sum one segment of one row, in float32, for one block of features."""
    segment = segments + 3 * tl.program_id(0).to(tl.int64)
    row, number = tl.load(segment).to(tl.int64), tl.load(segment + 2).to(tl.int64)
    edge = tl.load(segment + 1)
    end = tl.minimum(edge + SEGMENT, tl.load(rowptr + row + 1))
    feature = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = feature < features
    total = tl.zeros((BLOCK,), tl.float32)
    while edge < end:
        at = edge + tl.arange(0, EDGES)
        source = tl.load(col + at, mask=at < end, other=0).to(tl.int64)
        here = (at < end)[:, None] & inside[None, :]
        seen = tl.load(x + source[:, None] * features + feature[None, :], mask=here, other=0.0)
        seen = seen.to(tl.float32)
        if WEIGHTED:
            seen *= tl.load(weight + at, mask=at < end, other=0.0)[:, None]
        total += tl.sum(seen, 0)
        edge += EDGES
    if number < 0:
        tl.store(y + row * features + feature, total, mask=inside)
    else:
        tl.store(partials + number * features + feature, total, mask=inside)


@jit
def _sum_partials(long_rows, partials, y, features, BLOCK: tl.constexpr):
    """Sum the segments of one long row."""
    long = long_rows + 3 * tl.program_id(0).to(tl.int64)
    row, number = tl.load(long).to(tl.int64), tl.load(long + 1).to(tl.int64)
    past = tl.load(long + 2)
    feature = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = feature < features
    total = tl.zeros((BLOCK,), tl.float32)
    while number < past:
        total += tl.load(partials + number * features + feature, mask=inside, other=0.0)
        number += 1
    tl.store(y + row * features + feature, total, mask=inside)


@jit
def _products(
    left, right, row, col, out, edges, features, EDGES: tl.constexpr, BLOCK: tl.constexpr
):
    """Multiply the two rows of each edge of a block, in float32."""
    edge = tl.program_id(0).to(tl.int64) * EDGES + tl.arange(0, EDGES)
    own = tl.load(row + edge, mask=edge < edges, other=0).to(tl.int64)[:, None] * features
    other = tl.load(col + edge, mask=edge < edges, other=0).to(tl.int64)[:, None] * features
    total, feature = tl.zeros((EDGES,), tl.float32), tl.arange(0, BLOCK)
    first = 0
    while first < features:
        at = (first + feature)[None, :]
        here = (edge < edges)[:, None] & (at < features)
        a = tl.load(left + own + at, mask=here, other=0.0).to(tl.float32)
        b = tl.load(right + other + at, mask=here, other=0.0).to(tl.float32)
        total += tl.sum(a * b, 1)
        first += BLOCK
    tl.store(out + edge, total, mask=edge < edges)


@torch.library.custom_op("sixfold::spmm", mutates_args=(), device_types=DEVICES)
def spmm_fused(
    x: Tensor,
    weight: Tensor | None,
    rowptr: Tensor,
    col: Tensor,
    segments: Tensor,
    long_rows: Tensor,
    partials: int,
) -> Tensor:
    """Launch the kernels of the sum; the graph's tensors are those of `Csr`."""
    x, features = x.contiguous(), x.shape[1]
    y = x.new_empty(rowptr.shape[0] - 1, features)
    if y.numel() == 0:
        return y
    block = block_of(features)
    blocks = -(-features // block)
    scratch = x.new_empty(partials, features, dtype=torch.float32)
    _sum[(len(segments), blocks)](
        x,
        weight,
        rowptr,
        col,
        segments,
        y,
        scratch,
        features,
        WEIGHTED=weight is not None,
        EDGES=EDGES,
        BLOCK=block,
        SEGMENT=SEGMENT,
    )
    if len(long_rows):
        _sum_partials[(len(long_rows), blocks)](long_rows, scratch, y, features, BLOCK=block)
    return y


@spmm_fused.register_fake
def _(x, weight, rowptr, col, segments, long_rows, partials):
    return x.new_empty(rowptr.shape[0] - 1, x.shape[1])


@torch.library.custom_op("sixfold::spmm_edge_products", mutates_args=(), device_types=DEVICES)
def spmm_edge_products_fused(left: Tensor, right: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Launch the kernel of `edge_products`; the result is float32."""
    left, right, (edges, features) = (
        left.contiguous(),
        right.contiguous(),
        (len(row), left.shape[1]),
    )
    out = left.new_empty(edges, dtype=torch.float32)
    if edges:
        grid, block = (-(-edges // EDGES),), block_of(features)
        tensors = (left, right, row, col, out)
        _products[grid](*tensors, edges, features, EDGES=EDGES, BLOCK=block)
    return out


@spmm_edge_products_fused.register_fake
def _(left, right, row, col):
    return left.new_empty(row.shape[0], dtype=torch.float32)
