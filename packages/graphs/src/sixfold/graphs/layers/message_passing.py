"""Message passing of PyG's convolutions by sorted sums, with what a fixed graph allows to keep.

PyG gathers a message for each edge and scatters them: (edges, features) numbers are written and
read several times. `Topology` sorts the edges once, and `convolve` computes the same numbers from
the same parameters with `sixfold.kernels.spmm`. Any other convolution is called as it is.

GCN, SAGE and GIN aggregate before anything is learnt. If a layer's input is fixed, `collect` does
that once, and `transform` is all that is left of a training step: a product of two dense matrices.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from sixfold.graphs.layers.attention import attend
from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.topology import Topology
from sixfold.kernels import Graph, spmm


def convolve(
    conv: Any, x: Float[Tensor, "node feature"] | Features, topology: Topology
) -> Float[Tensor, "node out"]:
    """Apply a convolution of PyG to every node."""
    kind = _kind(conv)
    if kind == "gat":
        return _attend(conv, x, topology)
    if narrows(conv, x):
        return _project(conv, x, topology)
    if kind is None:
        return conv(x.dense() if isinstance(x, Features) else x, topology.edge_index)
    return transform(conv, collect(conv, x, topology))


def narrows(conv: Any, x: Tensor | Features) -> bool:
    """Tell whether it is better to multiply by the weights before aggregating."""
    kind = _kind(conv)
    if kind is None or kind == "gat":
        return False
    first = _first_linear(conv, kind)
    if first is None:
        return False
    if isinstance(x, Features):  # a fixed input needs no second aggregation for its gradient
        return x.width > 2 * len(first) or x.sparse is not None
    return x.shape[1] > (len(first) if x.requires_grad else 2 * len(first))


def _first_linear(conv: Any, kind: str) -> Float[Tensor, "out feature"] | None:
    """Return the weight that the sum over the neighbours may be exchanged with."""
    if kind == "gin":
        first = _layers(conv.nn)[0]
        return first.weight if type(first) is nn.Linear else None
    return conv.lin.weight if kind == "gcn" else conv.lin_l.weight


def _layers(module: nn.Module) -> list[nn.Module]:
    return list(module) if type(module) is nn.Sequential and len(module) else [module]


def _project(
    conv: Any, x: Float[Tensor, "node feature"] | Features, topology: Topology
) -> Float[Tensor, "node out"]:
    kind = _kind(conv)
    if kind == "gcn":
        weights = topology.gcn_weights(conv.lin.weight.dtype)
        return _plus(spmm(topology.looped, _linear(x, conv.lin.weight), weights), conv.bias)
    if kind == "sage":
        near = _mean(topology, _linear(x, conv.lin_l.weight))
        near = near.add_(_linear(x, conv.lin_r.weight)) if conv.root_weight else near
        return _plus(near, conv.lin_l.bias)
    first, *rest = _layers(conv.nn)
    own = _linear(x, cast(Tensor, first.weight))
    out = _plus(spmm(topology.graph, own).add_((1 + conv.eps) * own), cast(Any, first.bias))
    for layer in rest:
        out = layer(out)
    return out


def _mean(topology: Topology, x: Float[Tensor, "node feature"]) -> Float[Tensor, "node feature"]:
    return spmm(topology.graph, x, topology.mean_weights(x.dtype))


def _linear(x: Tensor | Features, weight: Tensor) -> Tensor:
    return x.linear(weight) if isinstance(x, Features) else functional.linear(x, weight)


def collects(conv: Any) -> bool:
    """Tell whether a convolution aggregates its input before anything learnt touches it."""
    return _kind(conv) in ("gcn", "sage", "gin")


def row_by_row(conv: Any) -> bool:
    """Tell whether a convolution that `collects` then does the same to every node, alone."""
    return _kind(conv) in ("gcn", "sage")


def is_whole(conv: Any) -> bool:
    """Tell whether all of a convolution is computed here: it draws nothing, its output is new."""
    return _kind(conv) in ("gcn", "sage", "gat")


def collect(
    conv: Any,
    x: Float[Tensor, "node feature"] | Features,
    topology: Topology,
    order: Int[Tensor, " row"] | None = None,
) -> list[Float[Tensor, "row _"]]:
    """Aggregate, for a convolution that `collects`: what `transform` reads, in parts.

    Args:
        conv: The convolution.
        x: Its input.
        topology: The graph.
        order: Nodes, in the order in which they are wanted; all as they are if not given.
    """
    kind = _kind(conv)
    if kind == "gin":
        x = x.dense() if isinstance(x, Features) else x
        return [_at(spmm(topology.graph, x) + (1 + conv.eps) * x, order)]
    if kind == "gcn":
        return [_at(_weighted(topology.looped, x, topology.gcn_weights(_dtype(x))), order)]
    parts = [_at(_weighted(topology.graph, x, topology.mean_weights(_dtype(x))), order)]
    return [*parts, _at(x, order)] if conv.root_weight else parts


def _weighted(graph: Graph, x: Tensor | Features, weights: Tensor) -> Tensor:
    """Sum over the neighbours; rows are scaled by way of the edges, so that no copy is made."""
    if not isinstance(x, Features):
        return spmm(graph, x, weights)
    if x.scale is not None:
        weights = x.scale[:, 0].index_select(0, graph.by_target.col).mul_(weights)
    return spmm(graph, x.unscaled(), weights)


def _dtype(x: Tensor | Features) -> torch.dtype:
    return (x.x if isinstance(x, Features) else x).dtype


def _at(x: Tensor | Features, order: Tensor | None) -> Tensor:
    if isinstance(x, Features):
        return x.dense() if order is None else x.at(order)
    return x if order is None else x[order]


def transform(conv: Any, collected: Sequence[Float[Tensor, "row _"]]) -> Float[Tensor, "row out"]:
    """Do the learnt part of a convolution, node by node, on what was collected."""
    kind = _kind(conv)
    if kind == "gcn":
        return _plus(functional.linear(collected[0], conv.lin.weight), conv.bias)
    if kind == "sage":
        out = functional.linear(collected[0], conv.lin_l.weight, conv.lin_l.bias)
        return out.addmm_(collected[1], conv.lin_r.weight.T) if conv.root_weight else out
    return conv.nn(collected[0])


def _attend(
    conv: Any, x: Float[Tensor, "node feature"] | Features, topology: Topology
) -> Float[Tensor, "node out"]:
    """GAT: each head is a sum weighted by the softmax over a node's incoming edges."""
    weight, heads = conv.lin.weight, conv.heads
    # (x W^T) a = x (W^T a): scores come out of the same product as what is averaged.
    scores = [
        (part.transpose(0, 1) @ weight.unflatten(0, (heads, -1)))[:, 0]
        for part in (conv.att_src, conv.att_dst)
    ]
    packed = _linear(x, torch.cat([weight, *scores]))
    out = attend(topology.looped, packed, heads, conv.negative_slope)
    return _plus(out if conv.concat else out.unflatten(1, (heads, -1)).mean(1), conv.bias)


def _plus(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x.add_(bias)  # nobody else has seen x yet


def _kind(conv: Any) -> str | None:
    """Name a convolution that is known here, with options that are computed here."""
    name = f"{type(conv).__module__}.{type(conv).__qualname__}"
    rule = _KNOWN.get(name.removeprefix("torch_geometric.nn.conv."))
    usual = rule and conv.flow == "source_to_target" and conv.node_dim in (-2, 0)
    return rule[0] if rule and usual and not conv._explain and rule[1](conv) else None


def _usual_gat(conv: Any) -> bool:
    plain = conv.lin is not None and conv.edge_dim is None and conv.res is None
    return plain and conv.add_self_loops and not (conv.training and conv.dropout)


_KNOWN: dict[str, tuple[str, Any]] = {
    "gcn_conv.GCNConv": (
        "gcn",
        lambda c: c.normalize and c.add_self_loops and not c.improved and c.aggr == "add",
    ),
    "sage_conv.SAGEConv": (
        "sage",
        lambda c: c.aggr == "mean" and not c.normalize and not c.project,
    ),
    "gin_conv.GINConv": (
        "gin",
        lambda c: c.aggr == "add" and not isinstance(c.eps, nn.Parameter),
    ),
    "gat_conv.GATConv": ("gat", _usual_gat),
}
