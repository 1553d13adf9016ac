"""The edges of a fixed graph, sorted for sums over them, and the weights that convolutions use."""

from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sixfold.kernels import Graph
from sixfold.kernels.graph import Csr


class Topology:
    """The edges of a fixed graph; what is derived from them is computed at its first use and kept.

    Args:
        edge_index: Sources above targets; or pieces of it, which are concatenated on demand only,
            to save memory.
        num_nodes: Number of nodes, isolated ones included.
        in_degree: In-degree of each node, counting one self loop, if the graph is a subgraph of a
            larger one and its own degrees are too small.
    """

    def __init__(
        self,
        edge_index: Int[Tensor, "2 edge"] | list[Int[Tensor, "2 _"]],
        num_nodes: int,
        in_degree: Int[Tensor, " node"] | None = None,
    ) -> None:
        self._pieces = [edge_index] if isinstance(edge_index, Tensor) else edge_index
        self.num_nodes, self._in_degree = num_nodes, in_degree
        self._needs_gradients = True
        self._weights: dict[tuple[str, torch.dtype], Tensor] = {}

    def expect(self, *, gradients: bool) -> None:
        """Declare whether sums over the edges will be differentiated.

        Only gradients read the edges sorted by source, more than half of the memory kept.
        """
        if gradients == self._needs_gradients:
            return
        self._needs_gradients = gradients
        for name in ("graph", "with_self_loops"):
            cached = vars(self).pop(name, None)
            if cached is not None and not gradients:
                vars(self)[name] = _without_sources(cached.by_target)

    @property
    def edge_index(self) -> Int[Tensor, "2 edge"]:
        """Sources above targets."""
        return self._pieces[0] if len(self._pieces) == 1 else torch.cat(self._pieces, 1)

    @cached_property
    def graph(self) -> Graph:
        """The edges as they are."""
        return self._sorted([self._keys(piece) for piece in self._pieces])

    @cached_property
    def with_self_loops(self) -> Graph:
        """The edges with exactly one self loop at every node."""
        pieces = [self._keys(piece, keep_loops=False) for piece in self._pieces]
        loops = torch.arange(self.num_nodes, device=self._pieces[0].device) * (self.num_nodes + 1)
        return self._sorted([*pieces, loops])

    def _keys(self, edges: Tensor, *, keep_loops: bool = True) -> Int[Tensor, " edge"]:
        """Return the sort key of each edge: by target, then by source."""
        if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < self.num_nodes:
            raise ValueError(
                f"edge_index names the nodes {int(edges.min())} to {int(edges.max())}, but "
                f"{self.num_nodes} nodes are 0 to {self.num_nodes - 1}"
            )
        keys = torch.add(edges[0].long(), edges[1].long(), alpha=self.num_nodes)
        return keys if keep_loops else keys[keys % (self.num_nodes + 1) != 0]

    def _sorted(self, keys: list[Int[Tensor, " _"]]) -> Graph:
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
        if not self._needs_gradients:
            return _without_sources(by_target)
        order = col.argsort(stable=True).int()
        by_source = Csr.from_sorted(col[order], row[order], self.num_nodes)
        return Graph(by_target, by_source, perm, order)

    @property
    def in_degree(self) -> Int[Tensor, " node"]:
        """Number of edges into each node, one self loop included."""
        return self.with_self_loops.in_degree if self._in_degree is None else self._in_degree

    def mean_weights(self, dtype: torch.dtype) -> Float[Tensor, " edge"]:
        """Return one over the in-degree of each edge's target, in the order of ``graph``."""
        if ("mean", dtype) not in self._weights:
            self._weights["mean", dtype] = self.graph.by_target.mean_weights(dtype)
        return self._weights["mean", dtype]

    def gcn_weights(self, dtype: torch.dtype) -> Float[Tensor, " edge_or_loop"]:
        """Return D^-1/2 (A + I) D^-1/2, in the order of ``with_self_loops``."""
        if ("gcn", dtype) not in self._weights:
            scale, edges = self.in_degree.double().rsqrt(), self.with_self_loops.by_target
            weights = scale.index_select(0, edges.row) * scale.index_select(0, edges.col)
            self._weights["gcn", dtype] = weights.to(dtype)
        return self._weights["gcn", dtype]

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
        if num_hops == 0:
            edges = self.edge_index[:, :0]
        else:
            edges = new_index[self.edge_index[:, inner[target]]]
        return Topology(edges, len(ids), self.in_degree[ids]), ids


def _without_sources(by_target: Csr) -> Graph:
    """Keep only what sums read; differentiating them fails with an error about a shape."""
    none = by_target.col[:0].clone()
    return Graph(by_target, Csr.from_sorted(none, none, 0), none, none)
