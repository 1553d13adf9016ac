"""The adjacency matrix of an aggregation, divided into rows of chunks, and the mirrors it reads.

A table of a process holds the rows of its own ways and then its mirrors: one row for each distinct
neighbour in other ways, which these send. With a single process or way there are no mirrors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.models.gnnpipe.layers import MatrixName
from sixfold.graphs.models.gnnpipe.partition import Chunks
from sixfold.graphs.models.gnnpipe.process_grid import Grid
from sixfold.graphs.models.gnnpipe.transport import Communicator, Message
from sixfold.kernels.graph import Csr
from sixfold.kernels.spmm_sum import weighted_sum


class Ranges:
    """Chunks as ranges of rows, of the whole graph and of this process.

    Args:
        chunks: Chunks of the whole graph.
        grid: Place of this process.
    """

    def __init__(self, chunks: Chunks, grid: Grid) -> None:
        self.bounds, self.grid = chunks.bounds, grid
        self.per_way = (len(chunks.bounds) - 1) // grid.ways
        self.start = self.bounds[grid.own_ways.start * self.per_way]
        self.stop = self.bounds[grid.own_ways.stop * self.per_way]

    @property
    def nodes(self) -> int:
        """Number of nodes of the whole graph."""
        return self.bounds[-1]

    def own(self, step: Sequence[int]) -> list[int]:
        """Return this process's chunks of a step: those at the step's positions in its ways."""
        return [chunk for way in self.grid.own_ways for chunk in self.of(way, step)]

    def of(self, way: int, step: Sequence[int]) -> list[int]:
        """Return the chunks of a step in one way."""
        return [way * self.per_way + position for position in step]

    def rows(self, chunk: int) -> slice:
        """Return the rows of a chunk in this process's tables."""
        return slice(self.bounds[chunk] - self.start, self.bounds[chunk + 1] - self.start)

    def span(self, way: int) -> tuple[int, int]:
        """Return the first place of a way in the whole graph, and the place after its last."""
        return self.bounds[way * self.per_way], self.bounds[(way + 1) * self.per_way]


@dataclass(frozen=True)
class Rows:
    """Matrix rows of one chunk; their columns are rows of the process's table."""

    edges: Csr
    weight: Tensor

    def times(self, table: Float[Tensor, "row width"]) -> Float[Tensor, "node width"]:
        """Multiply with a table."""
        return weighted_sum(self.edges, table, self.weight)


class Side:
    """A sparse matrix that is multiplied with a table chunk by chunk.

    Args:
        row: Row of each entry, as a place in the whole graph. The entries are sorted by row, and
            within a row alike on every process, so that sums do not depend on the ways.
        col: Column of each entry.
        weight: Value of each entry.
        ranges: Chunks.
    """

    def __init__(
        self,
        row: Int[Tensor, " edge"],
        col: Int[Tensor, " edge"],
        weight: Float[Tensor, " edge"],
        ranges: Ranges,
    ) -> None:
        self.ranges, grid = ranges, ranges.grid
        start, stop = ranges.start, ranges.stop
        self.mirrors = remote(row, col, start, stop)
        mine = (row >= start) & (row < stop)
        own_row, own_col, weight = row[mine], col[mine], weight[mine]
        inside = (own_col >= start) & (own_col < stop)
        mirror_row = stop - start + torch.searchsorted(self.mirrors, own_col)
        local = torch.where(inside, own_col - start, mirror_row)
        self.chunks: dict[int, Rows] = {}
        for chunk in ranges.own(range(ranges.per_way)):
            low, high = ranges.bounds[chunk], ranges.bounds[chunk + 1]
            here = (own_row >= low) & (own_row < high)
            edges = Csr.from_sorted(own_row[here] - low, local[here], high - low)
            self.chunks[chunk] = Rows(edges, weight[here])
        self._others = [w for w in range(grid.ways) if w not in grid.own_ways]
        # By way and own chunk: the chunk's rows that the way mirrors.
        self._mirrored: dict[tuple[int, int], Tensor] = {}
        self._mirror: dict[int, slice] = {}  # table rows of a chunk of another way
        for way in self._others:
            needed = remote(row, col, *ranges.span(way))
            for chunk in self.chunks:
                self._mirrored[way, chunk] = needed[_between(needed, ranges, chunk)] - start
            for chunk in ranges.of(way, range(ranges.per_way)):
                place = _between(self.mirrors, ranges, chunk)
                self._mirror[chunk] = slice(stop - start + place.start, stop - start + place.stop)

    @property
    def size(self) -> int:
        """Number of rows of a table, mirrors included."""
        return self.ranges.stop - self.ranges.start + len(self.mirrors)

    def table(self, like: Float[Tensor, "_ width"]) -> Float[Tensor, "row width"]:
        """Make a table of zeros with the width and dtype of a tensor."""
        return like.new_zeros(self.size, like.shape[1])

    def write(
        self,
        table: Float[Tensor, "row width"],
        step: Sequence[int],
        values: Sequence[Float[Tensor, "_ width"]],
        communicator: Communicator,
    ) -> None:
        """Write the values of a step's chunks into a table, and receive those of other ways."""
        for chunk, value in zip(self.ranges.own(step), values, strict=True):
            table[self.ranges.rows(chunk)] = value
        self._exchange(table, step, communicator)

    def times(
        self, table: Float[Tensor, "row width"], step: Sequence[int]
    ) -> list[Float[Tensor, "_ width"]]:
        """Multiply the matrix rows of this process's chunks of a step with a table."""
        return [self.chunks[chunk].times(table) for chunk in self.ranges.own(step)]

    def places(self, step: Sequence[int]) -> list[slice]:
        """Return the table rows of a step's chunks, mirrors included."""
        own = [self.ranges.rows(chunk) for chunk in self.ranges.own(step)]
        return own + [
            self._mirror[chunk] for w in self._others for chunk in self.ranges.of(w, step)
        ]

    def complete(self, rows: Float[Tensor, "node width"]) -> Float[Tensor, "row width"]:
        """Make a table from rows of the whole graph."""
        return torch.cat([rows[self.ranges.start : self.ranges.stop], rows[self.mirrors]])

    def _exchange(self, table: Tensor, step: Sequence[int], communicator: Communicator) -> None:
        out, into, places = [], [], []
        for way in self._others:
            rank = self.ranges.grid.peers[way]
            mirrored = [self._mirrored[way, chunk] for chunk in self.ranges.own(step)]
            out.append(Message(rank, table[torch.cat(mirrored)]))
            places.append([self._mirror[chunk] for chunk in self.ranges.of(way, step)])
            rows = sum(place.stop - place.start for place in places[-1])
            into.append(Message(rank, table.new_empty(rows, table.shape[1])))
        communicator.exchange("graph", out, into)
        for (_, received), where in zip(into, places, strict=True):
            sizes = [place.stop - place.start for place in where]
            for place, part in zip(where, received.split(sizes), strict=True):
                table[place] = part


class Adjacency:
    """The matrix of an aggregation, and its transpose for the backward pass.

    Args:
        name: Kind of matrix.
        topology: Edges, with nodes as places in the chunks' order.
        ranges: Chunks.
        dtype: Type of the values.
    """

    def __init__(
        self, name: MatrixName, topology: Topology, ranges: Ranges, dtype: torch.dtype
    ) -> None:
        row, col, weight = entries(name, topology, dtype)
        self.forward = Side(row, col, weight, ranges)
        back = (col * ranges.nodes + row).argsort(stable=True)
        self.backward = Side(col[back], row[back], weight[back], ranges)


def entries(
    name: MatrixName, topology: Topology, dtype: torch.dtype
) -> tuple[Int[Tensor, " entry"], Int[Tensor, " entry"], Float[Tensor, " entry"]]:
    """Return rows (targets), columns (sources) and values of a matrix, sorted by row and column."""
    graph = topology.with_self_loops if name == "gcn" else topology.graph
    if name == "gcn":
        weight = topology.gcn_weights(dtype)
    elif name == "mean":
        weight = topology.mean_weights(dtype)
    else:
        weight = topology.sum_weights(dtype)
    if weight is None:
        weight = torch.ones(graph.num_edges, dtype=dtype, device=graph.perm.device)
    return graph.by_target.row.long(), graph.by_target.col.long(), weight


def remote(
    row: Int[Tensor, " entry"], col: Int[Tensor, " entry"], start: int, stop: int
) -> Int[Tensor, " mirror"]:
    """Return the distinct columns outside a range that rows inside the range read, sorted."""
    needed = col[(row >= start) & (row < stop)]
    return needed[(needed < start) | (needed >= stop)].unique()


def _between(places: Int[Tensor, " place"], ranges: Ranges, chunk: int) -> slice:
    """Return the slice of sorted places that are in a chunk."""
    bounds = torch.tensor(ranges.bounds[chunk : chunk + 2], device=places.device)
    low, high = torch.searchsorted(places, bounds).tolist()
    return slice(low, high)
