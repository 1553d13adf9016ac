"""PyG's GCN, SAGE, GIN and GAT computed by sparse matrix products, from PyG's own parameters.

Each class wraps a convolution, says whether it `supports` its options, and computes it; GCN, SAGE
and GIN in two orders, of which `sixfold.graphs.layers.message_passing` chooses the cheaper.
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
from sixfold.kernels import Graph
from sixfold.kernels.spmm import sorted_spmm


class GCN:
    """D^-1/2 (A + I) D^-1/2 x W + b, where A may have weights."""

    def __init__(self, conv: Any) -> None:
        self.conv = conv

    @staticmethod
    def supports(conv: Any) -> bool:
        """Return whether the options of a GCNConv are computed here."""
        usual = conv.normalize and conv.add_self_loops and not conv.improved
        return usual and conv.aggr == "add" and _is_linear(conv.lin)

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
        usual = conv.aggr == "mean" and not conv.normalize and not conv.project
        rest = [conv.lin_r] if conv.root_weight else []
        return usual and all(map(_is_linear, [conv.lin_l, *rest]))

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
        plain = _is_linear(conv.lin) and conv.edge_dim is None and conv.res is None
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


def _is_linear(module: nn.Module | None) -> bool:
    """Return whether a map is the one that PyG made, and nobody replaced."""
    name = f"{type(module).__module__}.{type(module).__qualname__}"
    return name == "torch_geometric.nn.dense.linear.Linear"


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
