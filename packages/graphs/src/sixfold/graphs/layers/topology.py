"""The edges of a fixed graph, sorted for sums over them, and the weights that convolutions use."""

from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sixfold.kernels import Graph
from sixfold.kernels.graph import Csr


class Topology:
    """The edges of a graph that stays as it is; what is derived of them is kept from its first use.

    Args:
        edge_index: Sources above targets; in pieces, if they are to be put together when they are
            needed, and not be kept.
        nodes: How many there are, isolated ones included.
        in_degree: Edges into each node with one loop at every node, if the edges given are only a
            part of a larger graph's.
    """

    def __init__(
        self,
        edge_index: Int[Tensor, "2 edge"] | list[Int[Tensor, "2 _"]],
        nodes: int,
        in_degree: Int[Tensor, " node"] | None = None,
    ) -> None:
        self._pieces = [edge_index] if isinstance(edge_index, Tensor) else edge_index
        self.nodes, self._in_degree = nodes, in_degree
        self._learns = True
        self._weights: dict[tuple[str, torch.dtype], Tensor] = {}

    def expect(self, *, gradients: bool) -> None:
        """Say whether sums over the edges will have gradients.

        Only these read the edges sorted by source, more than half of what is kept.
        """
        if gradients == self._learns:
            return
        self._learns = gradients
        for name in ("graph", "looped"):
            found = vars(self).pop(name, None)
            if found is not None and not gradients:
                vars(self)[name] = _without_sources(found.by_target)

    @property
    def edge_index(self) -> Int[Tensor, "2 edge"]:
        """Sources above targets."""
        return self._pieces[0] if len(self._pieces) == 1 else torch.cat(self._pieces, 1)

    @cached_property
    def graph(self) -> Graph:
        """The edges as they are."""
        return self._sorted([self._keys(piece) for piece in self._pieces])

    @cached_property
    def looped(self) -> Graph:
        """The edges with exactly one loop at every node."""
        loops = torch.arange(self.nodes, device=self._pieces[0].device) * (self.nodes + 1)
        return self._sorted([*(self._keys(piece, loops=False) for piece in self._pieces), loops])

    def _keys(self, edges: Tensor, *, loops: bool = True) -> Int[Tensor, " edge"]:
        """Return a number for each edge, by which edges are sorted by target and then by source."""
        if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < self.nodes:
            raise ValueError(
                f"edge_index names the nodes {int(edges.min())} to {int(edges.max())}, but "
                f"{self.nodes} nodes are 0 to {self.nodes - 1}"
            )
        keys = torch.add(edges[0].long(), edges[1].long(), alpha=self.nodes)
        return keys if loops else keys[keys % (self.nodes + 1) != 0]

    def _sorted(self, keys: list[Int[Tensor, " _"]]) -> Graph:
        """Sort edges; never held are the 64-bit numbers of both their nodes in two orders at once.

        `Graph.from_edge_index` does the same with three times the memory.
        """
        joined = torch.cat(keys)
        keys.clear()
        joined, perm = joined.sort()
        row, col = (joined // self.nodes).int(), (joined % self.nodes).int()
        perm = perm.int()
        del joined
        by_target = Csr.from_sorted(row, col, self.nodes)
        if not self._learns:
            return _without_sources(by_target)
        order = col.argsort(stable=True).int()
        return Graph(by_target, Csr.from_sorted(col[order], row[order], self.nodes), perm, order)

    @property
    def in_degree(self) -> Int[Tensor, " node"]:
        """Edges into each node, with one loop at every node."""
        return self.looped.in_degree if self._in_degree is None else self._in_degree

    def mean_weights(self, dtype: torch.dtype) -> Float[Tensor, " edge"]:
        """Return one over the number of edges into each edge's target, as ``graph`` sorts them."""
        if ("mean", dtype) not in self._weights:
            self._weights["mean", dtype] = self.graph.mean_weights(dtype)
        return self._weights["mean", dtype]

    def gcn_weights(self, dtype: torch.dtype) -> Float[Tensor, " looped_edge"]:
        """Return D^-1/2 (A + I) D^-1/2, in the order of ``looped``."""
        if ("gcn", dtype) not in self._weights:
            scale, edges = self.in_degree.double().rsqrt(), self.looped.by_target
            weights = scale.index_select(0, edges.row) * scale.index_select(0, edges.col)
            self._weights["gcn", dtype] = weights.to(dtype)
        return self._weights["gcn", dtype]

    def around(
        self, nodes: Bool[Tensor, " node"], hops: int
    ) -> tuple["Topology", Int[Tensor, " part"]]:
        """Return the part that some nodes' outputs depend on after so many layers, and its nodes.

        Edges into its outermost nodes are left out: what these receive is never read.
        """
        source, target = self.edge_index
        inner = outer = nodes
        for _ in range(hops):
            inner, outer = outer, outer.clone()
            outer[source[inner[target]]] = True
        ids = outer.nonzero()[:, 0]
        place = torch.full((self.nodes,), -1, device=ids.device)
        place[ids] = torch.arange(len(ids), device=ids.device)
        edges = place[self.edge_index[:, inner[target]]] if hops else self.edge_index[:, :0]
        return Topology(edges, len(ids), self.in_degree[ids]), ids


def _without_sources(by_target: Csr) -> Graph:
    """Keep only what sums read; a gradient would be of the wrong shape, which is an error."""
    none = by_target.col[:0].clone()
    return Graph(by_target, Csr.from_sorted(none, none, 0), none, none)
