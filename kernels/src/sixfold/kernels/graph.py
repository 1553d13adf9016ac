"""A graph whose edges are sorted once, for the aggregations of `sixfold.kernels.spmm`."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

SEGMENT = 256  # edges; a longer row is cut into pieces, so that no program has much more to do


@dataclass(frozen=True, eq=False)
class Csr:
    """Edges sorted by row, then by column; row i owns the edges rowptr[i] to rowptr[i + 1].

    Args:
        rowptr: Index of each row's first edge.
        row: Row of each edge.
        col: Column of each edge.
        segments: Pieces of a row, of at most `SEGMENT` edges: the row, the first edge, and the
            index of the segment's partial result, or -1 if it is the row's only segment. Empty
            rows have a segment too.
        long_rows: Rows of several segments: the row, and the start and end of its partial results.
        partials: Number of partial results.
    """

    rowptr: Int[Tensor, " pointer"]
    row: Int[Tensor, " edge"]
    col: Int[Tensor, " edge"]
    segments: Int[Tensor, "segment 3"]
    long_rows: Int[Tensor, "long 3"]
    partials: int

    @classmethod
    def from_sorted(cls, row: Int[Tensor, " edge"], col: Int[Tensor, " edge"], size: int) -> "Csr":
        """Index sorted edges of a matrix with ``size`` rows."""
        degree = torch.bincount(row, minlength=size)
        rowptr = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
        pieces = degree.add(SEGMENT - 1).div(SEGMENT, rounding_mode="floor").clamp(min=1)
        owner = torch.repeat_interleave(torch.arange(size, device=row.device), pieces)
        piece = torch.arange(len(owner), device=row.device) - (pieces.cumsum(0) - pieces)[owner]
        partial = (pieces > 1)[owner]
        number = torch.where(partial, partial.cumsum(0) - 1, -1)
        long = (pieces > 1).nonzero()[:, 0]
        past = pieces[long].cumsum(0)
        dtype = torch.int32 if max(size, len(row)) < 2**31 else torch.int64
        segments = torch.stack([owner, rowptr[owner] + piece * SEGMENT, number], 1)
        long_rows = torch.stack([long, past - pieces[long], past], 1)
        return cls(
            rowptr=rowptr.to(dtype),
            row=row.to(dtype),
            col=col.to(dtype),
            segments=segments.to(dtype),
            long_rows=long_rows.to(dtype),
            partials=int(partial.sum()),
        )

    @property
    def degree(self) -> Int[Tensor, " row"]:
        """Number of edges of each row."""
        return self.rowptr.diff()

    def mean_weights(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, " edge"]:
        """Return one over the number of edges in each edge's row."""
        return self.degree.double().reciprocal().to(dtype).index_select(0, self.row)

    def symmetric_weights(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, " edge"]:
        """Return D^-1/2 A D^-1/2 of a square matrix with the degrees D of its rows."""
        degree = self.degree.double()
        scale = torch.where(degree > 0, degree.rsqrt(), 0.0)
        return (scale.index_select(0, self.row) * scale.index_select(0, self.col)).to(dtype)

    def to(self, device: torch.device | str) -> "Csr":
        """Copy to a device."""
        moved = {name: v.to(device) for name, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class Graph:
    """A directed graph, sorted by target for aggregation and by source for its gradient.

    Values of edges that its methods return, and that `sixfold.kernels.spmm` takes, are in the order
    of the edge list; ``values[graph.perm]`` are in that of ``by_target``. Edges that occur several
    times stay apart. Indices are int32 as long as they fit.

    Args:
        by_target: Edges with row = target, column = source.
        by_source: Edges with row = source, column = target.
        perm: Index in the edge list of each edge.
        order: Index in ``by_target`` of each edge of ``by_source``.
    """

    by_target: Csr
    by_source: Csr
    perm: Int[Tensor, " edge"]
    order: Int[Tensor, " edge"]

    @classmethod
    def from_edge_index(cls, edge_index: Int[Tensor, "2 edge"], num_nodes: int) -> "Graph":
        """Sort an edge list: row 0 the sources, row 1 the targets, which receive.

        Raises:
            TypeError: the edge list does not hold integers.
            ValueError: the edge list has another shape, or names a node that does not exist.
        """
        if edge_index.dtype not in (torch.int64, torch.int32):
            raise TypeError(
                f"Graph: edge_index should be int64 or int32, got {edge_index.dtype}; "
                "pass edge_index.long()"
            )
        if edge_index.ndim != 2 or edge_index.shape[0] != 2:
            shape = tuple(edge_index.shape)
            raise ValueError(
                f"Graph: edge_index should be (2, edges), got {shape}"
                + ("; pass edge_index.t()" if shape[1:] == (2,) else "")
            )
        if edge_index.numel():
            least, most = (int(value) for value in edge_index.aminmax())
            if least < 0 or most >= num_nodes:
                mend = "mend the list" if least < 0 else f"pass num_nodes={most + 1}"
                raise ValueError(
                    f"Graph: edge_index names the nodes {least} to {most}, but {num_nodes} nodes "
                    f"are 0 to {num_nodes - 1}; {mend}"
                )
        source, target = edge_index.long()
        return cls._sorted(source, target, num_nodes, None)

    @classmethod
    def _sorted(cls, source: Tensor, target: Tensor, size: int, place: Tensor | None) -> "Graph":
        perm = (target * size + source).argsort(stable=True)
        row, col = target[perm], source[perm]
        order = col.argsort(stable=True)
        by_target = Csr.from_sorted(row, col, size)
        by_source = Csr.from_sorted(col[order], row[order], size)
        perm = perm if place is None else place[perm]
        dtype = by_target.rowptr.dtype
        return cls(by_target, by_source, perm.to(dtype), order.to(dtype))

    @property
    def num_nodes(self) -> int:
        """Number of nodes, isolated ones included."""
        return self.by_target.rowptr.shape[0] - 1

    @property
    def num_edges(self) -> int:
        """Number of edges; repeated edges count each time."""
        return self.by_target.col.shape[0]

    @property
    def in_degree(self) -> Int[Tensor, " node"]:
        """Number of edges that end at each node."""
        return self.by_target.degree

    def mean_weights(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, " edge"]:
        """Return 1 / in-degree of each edge's target."""
        return self._in_list_order(self.by_target.mean_weights(dtype))

    def symmetric_weights(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, " edge"]:
        """Return D^-1/2 A D^-1/2 with the in-degrees D, the weights of a GCN; not cached.

        For the usual D^-1/2 (A + I) D^-1/2 call this on `with_self_loops()`. An edge from a
        node that receives nothing has weight zero.
        """
        return self._in_list_order(self.by_target.symmetric_weights(dtype))

    def _in_list_order(self, values: Float[Tensor, " edge"]) -> Float[Tensor, " edge"]:
        return torch.empty_like(values).index_copy_(0, self.perm.long(), values)

    def with_self_loops(self) -> "Graph":
        """Return the graph with exactly one self-loop per node; existing self-loops are replaced.

        Its edge list is that of PyG's ``add_remaining_self_loops``: the edges that are no loops, in
        their order, then the loops of all nodes.
        """
        row, col = self.by_target.row.long(), self.by_target.col.long()
        kept, nodes = row != col, torch.arange(self.num_nodes, device=row.device)
        source, target = torch.cat([col[kept], nodes]), torch.cat([row[kept], nodes])
        place = self.perm[kept].argsort().argsort()  # among the edges that are no loops
        place = torch.cat([place, nodes + len(place)])
        return Graph._sorted(source, target, self.num_nodes, place)

    def flipped(self) -> "Graph":
        """Return the graph with every edge reversed."""
        perm, order = self.perm[self.order], self.order.argsort().to(self.order.dtype)
        return Graph(self.by_source, self.by_target, perm, order)

    def to(self, device: torch.device | str) -> "Graph":
        """Copy to a device."""
        by_target, by_source = self.by_target.to(device), self.by_source.to(device)
        return Graph(by_target, by_source, self.perm.to(device), self.order.to(device))
