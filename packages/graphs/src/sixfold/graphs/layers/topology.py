"""The edges of a fixed graph, sorted for sums over them, and the weights that convolutions use."""

import copy
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sixfold.core import UserError
from sixfold.kernels import Graph
from sixfold.kernels.graph import Csr


class Topology:
    """The edges of a fixed graph; what is derived from them is computed at its first use and kept.

    Args:
        edge_index: Sources above targets; or pieces of it, which are concatenated on demand only,
            to save memory.
        num_nodes: Number of nodes, isolated ones included.
        edge_weight: Weight of each edge, in the order of ``edge_index``; one if not given.
        edge_attr: Attributes of each edge, in the order of ``edge_index``.
        degree: Weighted in-degree of each node, counting one self loop, if the graph is a subgraph
            of a larger one and its own degrees are too small.
    """

    def __init__(
        self,
        edge_index: Int[Tensor, "2 edge"] | list[Int[Tensor, "2 _"]],
        num_nodes: int,
        edge_weight: Float[Tensor, " ..."] | None = None,
        edge_attr: Float[Tensor, "..."] | None = None,
        *,
        degree: Tensor | None = None,
    ) -> None:
        self._pieces = [edge_index] if isinstance(edge_index, Tensor) else edge_index
        self.num_nodes, self._degree = num_nodes, degree
        self._needs_gradients = True
        self._sorted: dict[str, Graph] = {}
        self._perm: dict[str, Tensor] = {}  # of the sorted edges, for weights
        self._set_values(edge_weight, edge_attr)

    @classmethod
    def of(cls, data: Any) -> "Topology":
        """Return the topology of a torch_geometric ``Data``, with the values of its edges."""
        values = (getattr(data, name, None) for name in ("edge_weight", "edge_attr"))
        return cls(data.edge_index, len(data.x), *values)

    def with_values(
        self,
        edge_weight: Float[Tensor, " ..."] | None = None,
        edge_attr: Float[Tensor, "..."] | None = None,
    ) -> "Topology":
        """Return the same edges with other values; they are sorted once for both."""
        other = copy.copy(self)
        other._set_values(edge_weight, edge_attr)
        return other

    def _set_values(self, edge_weight: Tensor | None, edge_attr: Tensor | None) -> None:
        edges = sum(piece.shape[1] for piece in self._pieces)
        for name, value in (("edge_weight", edge_weight), ("edge_attr", edge_attr)):
            if value is not None and (len(value) != edges or value.ndim > 2):
                raise UserError(f"{name} is shaped {tuple(value.shape)}, for {edges} edges")
        if edge_weight is not None and edge_weight.ndim != 1:
            raise UserError(
                f"edge_weight should be ({edges},), got {tuple(edge_weight.shape)}; "
                "flatten it, or pass it as edge_attr"
            )
        self.edge_weight, self.edge_attr = edge_weight, edge_attr
        self._weights: dict[tuple[str, torch.dtype], Tensor] = {}

    def expect(self, *, gradients: bool) -> None:
        """Declare whether sums over the edges will be differentiated.

        Only gradients read the edges sorted by source, more than half of the memory kept.
        """
        if gradients == self._needs_gradients:
            return
        self._needs_gradients = gradients
        for name, graph in list(self._sorted.items()):
            del self._sorted[name]
            if not gradients:
                self._sorted[name] = _without_sources(graph.by_target)

    @property
    def edge_index(self) -> Int[Tensor, "2 edge"]:
        """Sources above targets."""
        return self._pieces[0] if len(self._pieces) == 1 else torch.cat(self._pieces, 1)

    @property
    def graph(self) -> Graph:
        """The edges as they are."""
        if "graph" not in self._sorted:
            self._sort("graph", [self._keys(piece) for piece in self._pieces])
        return self._sorted["graph"]

    @property
    def with_self_loops(self) -> Graph:
        """The edges with exactly one self loop at every node, which come last in its ``perm``."""
        if "loops" not in self._sorted:
            pieces = [self._keys(piece, keep_loops=False) for piece in self._pieces]
            nodes = torch.arange(self.num_nodes, device=self._pieces[0].device)
            self._sort("loops", [*pieces, nodes * (self.num_nodes + 1)])
        return self._sorted["loops"]

    def _keys(self, edges: Tensor, *, keep_loops: bool = True) -> Int[Tensor, " edge"]:
        """Return the sort key of each edge: by target, then by source."""
        if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < self.num_nodes:
            raise ValueError(
                f"edge_index names the nodes {int(edges.min())} to {int(edges.max())}, but "
                f"{self.num_nodes} nodes are 0 to {self.num_nodes - 1}"
            )
        keys = torch.add(edges[0].long(), edges[1].long(), alpha=self.num_nodes)
        return keys if keep_loops else keys[keys % (self.num_nodes + 1) != 0]

    def _sort(self, name: str, keys: list[Int[Tensor, " _"]]) -> None:
        """Sort the edges by target and by source.

        `Graph.from_edge_index` does the same with three times the memory: 64-bit indices in both
        orders at once.
        """
        joined = torch.cat(keys)
        keys.clear()
        joined, perm = joined.sort()
        row, col = (joined // self.num_nodes).int(), (joined % self.num_nodes).int()
        perm = perm.int()
        del joined
        by_target = Csr.from_sorted(row, col, self.num_nodes)
        if self.edge_weight is not None:
            self._perm[name] = perm
        if not self._needs_gradients:
            self._sorted[name] = _without_sources(by_target)
            return
        order = col.argsort(stable=True).int()
        by_source = Csr.from_sorted(col[order], row[order], self.num_nodes)
        self._sorted[name] = Graph(by_target, by_source, perm, order)

    @property
    def degree(self) -> Tensor:
        """Sum of the weights of the edges into each node, one self loop included."""
        if self._degree is not None:
            return self._degree
        edges = self.with_self_loops.by_target
        if self.edge_weight is None:
            return edges.degree
        weights = self._weights_with_loops()
        return weights.new_zeros(self.num_nodes).index_add(0, edges.row, weights)

    def mean_weights(self, dtype: torch.dtype) -> Float[Tensor, " edge"]:
        """Return one over the in-degree of each edge's target, in the order of ``graph``."""
        if ("mean", dtype) not in self._weights:
            self._weights["mean", dtype] = self.graph.by_target.mean_weights(dtype)
        return self._weights["mean", dtype]

    def sum_weights(self, dtype: torch.dtype) -> Float[Tensor, " edge"] | None:
        """Return the weight of each edge, in the order of ``graph``; None if there are none."""
        if self.edge_weight is None:
            return None
        return self._in_order(self.edge_weight, "graph").to(dtype)

    def gcn_weights(self, dtype: torch.dtype) -> Float[Tensor, " edge_or_loop"]:
        """Return D^-1/2 (A + I) D^-1/2, in the order of ``with_self_loops``.

        Raises:
            UserError: the weights of the edges into a node add up to less than zero.
        """
        if self.edge_weight is not None and self.edge_weight.requires_grad:
            return self._gcn_weights().to(dtype)
        if ("gcn", dtype) not in self._weights:
            self._refuse_negative_degrees()
            self._weights["gcn", dtype] = self._gcn_weights().to(dtype)
        return self._weights["gcn", dtype]

    def _gcn_weights(self) -> Float[Tensor, " edge_or_loop"]:
        edges, degree = self.with_self_loops.by_target, self.degree.double()
        # Where a degree is zero its power's gradient is infinite, and must not be multiplied by 0.
        scale = torch.where(degree == 0, 0.0, torch.where(degree == 0, 1.0, degree).rsqrt())
        weights = scale.index_select(0, edges.row) * scale.index_select(0, edges.col)
        return weights if self.edge_weight is None else weights * self._weights_with_loops()

    def _weights_with_loops(self) -> Float[Tensor, " edge_or_loop"]:
        """Return weights in the order of ``with_self_loops``: loops that are missing weigh one."""
        assert self.edge_weight is not None
        (source, target), given = self.edge_index, self.edge_weight.double()
        loops = source == target
        own = given.new_ones(self.num_nodes).index_put((source[loops],), given[loops])
        return self._in_order(torch.cat([given[~loops], own]), "loops")

    def _in_order(self, values: Float[Tensor, " _"], name: str) -> Float[Tensor, " _"]:
        graph = self.graph if name == "graph" else self.with_self_loops
        return values.index_select(0, self._perm.get(name, graph.perm))

    def _refuse_negative_degrees(self) -> None:
        if self.edge_weight is not None and bool((negative := self.degree < 0).any()):
            node = int(negative.nonzero()[0])
            raise UserError(
                f"the weights of the edges into node {node} add up to {float(self.degree[node]):g} "
                "with its self loop, and a GCN takes the square root; give weights from 0 on, or "
                "choose a convolution that does not normalise them, such as GraphConv"
            )

    def k_hop_subgraph(
        self, nodes: Bool[Tensor, " node"], num_hops: int
    ) -> tuple["Topology", Int[Tensor, " subgraph_node"]]:
        """Return the subgraph that outputs of some nodes depend on, and the indices of its nodes.

        Edges into its outermost nodes are left out: the outputs of these nodes are never read.

        Args:
            nodes: Mask of the nodes in the middle.
            num_hops: Number of layers that aggregate.
        """
        source, target = self.edge_index
        inner = outer = nodes
        for _ in range(num_hops):
            inner, outer = outer, outer.clone()
            outer[source[inner[target]]] = True
        ids = outer.nonzero()[:, 0]
        new_index = torch.full((self.num_nodes,), -1, device=ids.device)
        new_index[ids] = torch.arange(len(ids), device=ids.device)
        kept = inner[target] if num_hops else torch.zeros_like(target, dtype=torch.bool)
        values = (
            value if value is None else value[kept] for value in (self.edge_weight, self.edge_attr)
        )
        edges = new_index[self.edge_index[:, kept]]
        return Topology(edges, len(ids), *values, degree=self.degree[ids]), ids


def _without_sources(by_target: Csr) -> Graph:
    """Keep only what sums read; differentiating them fails with an error about a shape."""
    none = by_target.col[:0].clone()
    return Graph(by_target, Csr.from_sorted(none, none, 0), none, none)
