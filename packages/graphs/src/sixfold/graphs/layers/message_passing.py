"""Message passing of PyG's convolutions as sparse matrix products on a fixed graph.

PyG gathers a message for each edge and scatters the messages: (edges, features) numbers are written
and read several times. `Topology` sorts the edges once, and `convolve` computes the same numbers
from the same parameters with `sixfold.kernels.spmm`. Any other convolution is called as it is.

GCN, SAGE and GIN aggregate before the first learned weight. If a layer's input is fixed,
`aggregate` does that once, and `transform` is all that is left of a training step: a product of two
dense matrices.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from sixfold.graphs.layers.attention import attend
from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.topology import Topology
from sixfold.kernels import Graph
from sixfold.kernels.spmm import sorted_spmm


def convolve(
    conv: nn.Module, x: Float[Tensor, "node feature"] | Features, topology: Topology
) -> Float[Tensor, "node out"]:
    """Apply a convolution of PyG to every node."""
    known = _recognise(conv)
    if known is None:
        return conv(x.dense() if isinstance(x, Features) else x, topology.edge_index)
    if isinstance(known, GAT):
        return known.attend(x, topology)
    if _shrinks(known.first_weight, x):
        return known.project_then_aggregate(x, topology)
    return known.transform(known.aggregate(x, topology))


def projects_first(conv: nn.Module, x: Float[Tensor, "node feature"] | Features) -> bool:
    """Return whether `convolve` multiplies by the weights before it aggregates."""
    known = _recognise(conv)
    return known is not None and _shrinks(known.first_weight, x)


def aggregates_first(conv: nn.Module) -> bool:
    """Return whether `aggregate` and `transform` can compute a convolution."""
    return isinstance(_recognise(conv), GCN | SAGE | GIN)


def row_by_row(conv: nn.Module) -> bool:
    """Return whether `transform` does the same to every node, independently of the others."""
    return isinstance(_recognise(conv), GCN | SAGE)


def has_fast_path(conv: nn.Module) -> bool:
    """Return whether all of a convolution is computed here: no random draws, a new output tensor.

    The network inside a GIN is the user's own, and may draw or keep its output.
    """
    return isinstance(_recognise(conv), GCN | SAGE | GAT)


def aggregate(
    conv: nn.Module,
    x: Float[Tensor, "node feature"] | Features,
    topology: Topology,
    order: Int[Tensor, " row"] | None = None,
) -> list[Float[Tensor, "row _"]]:
    """Aggregate for a convolution that `aggregates_first`; the parts are input of `transform`.

    Args:
        conv: Convolution.
        x: Input features.
        topology: Graph.
        order: Node of each output row; every node in its own row if not given.
    """
    return _aggregating(conv).aggregate(x, topology, order)


def transform(conv: nn.Module, parts: Sequence[Float[Tensor, "row _"]]) -> Float[Tensor, "row out"]:
    """Apply the learned part of a convolution to the parts from `aggregate`."""
    return _aggregating(conv).transform(parts)


class GCN:
    """D^-1/2 (A + I) D^-1/2 x W + b."""

    def __init__(self, conv: Any) -> None:
        self.conv = conv

    @staticmethod
    def supports(conv: Any) -> bool:
        """Return whether the options of a GCNConv are computed here."""
        return conv.normalize and conv.add_self_loops and not conv.improved and conv.aggr == "add"

    @property
    def first_weight(self) -> Float[Tensor, "out feature"]:
        """Weight that commutes with the sum over the neighbours."""
        return self.conv.lin.weight

    def project_then_aggregate(
        self, x: Float[Tensor, "node feature"] | Features, topology: Topology
    ) -> Float[Tensor, "node out"]:
        """Multiply by W, then sum."""
        weight = self.conv.lin.weight
        edge_weights = topology.gcn_weights(weight.dtype)
        out = sorted_spmm(topology.with_self_loops, _linear(x, weight), edge_weights)
        return _add_bias(out, self.conv.bias)

    def aggregate(
        self,
        x: Float[Tensor, "node feature"] | Features,
        topology: Topology,
        order: Int[Tensor, " row"] | None = None,
    ) -> list[Float[Tensor, "row feature"]]:
        """Return D^-1/2 (A + I) D^-1/2 x."""
        weights = topology.gcn_weights(_dtype(x))
        return [_select(_weighted_sum(topology.with_self_loops, x, weights), order)]

    def transform(self, parts: Sequence[Float[Tensor, "row feature"]]) -> Float[Tensor, "row out"]:
        """Multiply by W, add the bias."""
        return _add_bias(functional.linear(parts[0], self.conv.lin.weight), self.conv.bias)


class SAGE:
    """mean(x) W_l + b + x W_r."""

    def __init__(self, conv: Any) -> None:
        self.conv = conv

    @staticmethod
    def supports(conv: Any) -> bool:
        """Return whether the options of a SAGEConv are computed here."""
        return conv.aggr == "mean" and not conv.normalize and not conv.project

    @property
    def first_weight(self) -> Float[Tensor, "out feature"]:
        """Weight that commutes with the mean over the neighbours."""
        return self.conv.lin_l.weight

    def project_then_aggregate(
        self, x: Float[Tensor, "node feature"] | Features, topology: Topology
    ) -> Float[Tensor, "node out"]:
        """Multiply by W_l, then average."""
        conv, projected = self.conv, _linear(x, self.conv.lin_l.weight)
        out = sorted_spmm(topology.graph, projected, topology.mean_weights(projected.dtype))
        out = out.add_(_linear(x, conv.lin_r.weight)) if conv.root_weight else out
        return _add_bias(out, conv.lin_l.bias)

    def aggregate(
        self,
        x: Float[Tensor, "node feature"] | Features,
        topology: Topology,
        order: Int[Tensor, " row"] | None = None,
    ) -> list[Float[Tensor, "row feature"]]:
        """Return mean(x), and x where it is read."""
        weights = topology.mean_weights(_dtype(x))
        parts = [_select(_weighted_sum(topology.graph, x, weights), order)]
        return [*parts, _select(x, order)] if self.conv.root_weight else parts

    def transform(self, parts: Sequence[Float[Tensor, "row feature"]]) -> Float[Tensor, "row out"]:
        """Multiply by W_l and W_r."""
        conv = self.conv
        out = functional.linear(parts[0], conv.lin_l.weight, conv.lin_l.bias)
        return out.addmm_(parts[1], conv.lin_r.weight.T) if conv.root_weight else out


class GIN:
    """nn((1 + eps) x + A x) with a fixed eps."""

    def __init__(self, conv: Any) -> None:
        self.conv = conv

    @staticmethod
    def supports(conv: Any) -> bool:
        """Return whether the options of a GINConv are computed here."""
        return conv.aggr == "add" and not isinstance(conv.eps, nn.Parameter)

    @property
    def first_weight(self) -> Float[Tensor, "out feature"] | None:
        """Weight that commutes with the sum; None if the network does not begin with one."""
        first = self._layers[0]
        return first.weight if type(first) is nn.Linear else None

    def project_then_aggregate(
        self, x: Float[Tensor, "node feature"] | Features, topology: Topology
    ) -> Float[Tensor, "node out"]:
        """Multiply by the first weight, sum, and apply the rest of the network."""
        first, *rest = self._layers
        own = _linear(x, cast(Tensor, first.weight))
        out = sorted_spmm(topology.graph, own).add_((1 + self.conv.eps) * own)
        out = _add_bias(out, cast(Any, first.bias))
        for layer in rest:
            out = layer(out)
        return out

    def aggregate(
        self,
        x: Float[Tensor, "node feature"] | Features,
        topology: Topology,
        order: Int[Tensor, " row"] | None = None,
    ) -> list[Float[Tensor, "row feature"]]:
        """Return (1 + eps) x + A x."""
        x = x.dense() if isinstance(x, Features) else x
        return [_select(sorted_spmm(topology.graph, x) + (1 + self.conv.eps) * x, order)]

    def transform(self, parts: Sequence[Float[Tensor, "row feature"]]) -> Float[Tensor, "row out"]:
        """Apply the network."""
        return self.conv.nn(parts[0])

    @property
    def _layers(self) -> list[nn.Module]:
        network = self.conv.nn
        return list(network) if type(network) is nn.Sequential and len(network) else [network]


class GAT:
    """Each head is a sum weighted by the softmax over a node's incoming edges."""

    first_weight = None  # the scores need the projected features, so GAT always projects first

    def __init__(self, conv: Any) -> None:
        self.conv = conv

    @staticmethod
    def supports(conv: Any) -> bool:
        """Return whether the options of a GATConv are computed here."""
        plain = conv.lin is not None and conv.edge_dim is None and conv.res is None
        return plain and conv.add_self_loops and not (conv.training and conv.dropout)

    def attend(
        self, x: Float[Tensor, "node feature"] | Features, topology: Topology
    ) -> Float[Tensor, "node out"]:
        """Project, and average over the incoming edges by attention."""
        conv, weight, heads = self.conv, self.conv.lin.weight, self.conv.heads
        # (x W^T) a = x (W^T a): scores come out of the same product as what is averaged.
        scores = [
            (part.transpose(0, 1) @ weight.unflatten(0, (heads, -1)))[:, 0]
            for part in (conv.att_src, conv.att_dst)
        ]
        packed = _linear(x, torch.cat([weight, *scores]))
        out = attend(topology.with_self_loops, packed, heads, conv.negative_slope)
        out = out if conv.concat else out.unflatten(1, (heads, -1)).mean(1)
        return _add_bias(out, conv.bias)


_BY_PYG_TYPE: Mapping[str, type[GCN] | type[SAGE] | type[GIN] | type[GAT]] = {
    "torch_geometric.nn.conv.gcn_conv.GCNConv": GCN,
    "torch_geometric.nn.conv.sage_conv.SAGEConv": SAGE,
    "torch_geometric.nn.conv.gin_conv.GINConv": GIN,
    "torch_geometric.nn.conv.gat_conv.GATConv": GAT,
}


def _recognise(conv: Any) -> GCN | SAGE | GIN | GAT | None:
    """Wrap a convolution that is computed here; None for other types and unusual options."""
    # by name, because to import the types takes seconds
    known = _BY_PYG_TYPE.get(f"{type(conv).__module__}.{type(conv).__qualname__}")
    usual = known and conv.flow == "source_to_target" and conv.node_dim in (-2, 0)
    return known(conv) if known and usual and not conv._explain and known.supports(conv) else None


def _aggregating(conv: nn.Module) -> GCN | SAGE | GIN:
    known = _recognise(conv)
    assert isinstance(known, GCN | SAGE | GIN), f"{conv} does not aggregate first"
    return known


def _shrinks(weight: Tensor | None, x: Tensor | Features) -> bool:
    """Return whether aggregating is cheaper after a product with a weight than before it."""
    if weight is None:
        return False
    if isinstance(x, Features):  # a fixed input needs no second aggregation for its gradient
        return x.width > 2 * len(weight) or x.sparse is not None
    return x.shape[1] > (len(weight) if x.requires_grad else 2 * len(weight))


def _linear(x: Tensor | Features, weight: Tensor) -> Tensor:
    return x.linear(weight) if isinstance(x, Features) else functional.linear(x, weight)


def _weighted_sum(graph: Graph, x: Tensor | Features, weights: Tensor) -> Tensor:
    """Sum over the neighbours; the edge weights take over the scale of rows, to avoid a copy."""
    if not isinstance(x, Features):
        return sorted_spmm(graph, x, weights)
    if x.scale is not None:
        weights = x.scale[:, 0].index_select(0, graph.by_target.col).mul_(weights)
    return sorted_spmm(graph, x.unscaled(), weights)


def _dtype(x: Tensor | Features) -> torch.dtype:
    return (x.x if isinstance(x, Features) else x).dtype


def _select(x: Tensor | Features, order: Tensor | None) -> Tensor:
    if isinstance(x, Features):
        return x.dense() if order is None else x.select(order)
    return x if order is None else x[order]


def _add_bias(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x.add_(bias)  # x is new, and used nowhere else
