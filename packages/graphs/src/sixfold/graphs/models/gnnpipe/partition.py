"""Partition the nodes of a graph into chunks with few edges between them."""

import heapq
import importlib.util
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sixfold.core import UserError


@dataclass(frozen=True)
class Chunks:
    """Nodes renumbered so that each chunk is a range.

    Args:
        order: Index in the graph of the node at each place.
        bounds: First place of each chunk, followed by the number of nodes.
        method: Name of the partitioner.
    """

    order: Int[Tensor, " node"]
    bounds: tuple[int, ...]
    method: str

    @classmethod
    def from_parts(cls, part: Int[Tensor, " node"], chunks: int, method: str = "given") -> "Chunks":
        """Sort the nodes by their chunks; within a chunk they keep their order.

        Raises:
            UserError: the chunks are not 0 to chunks - 1, each with a node.
        """
        sizes = torch.bincount(part.clamp(min=0), minlength=chunks)
        if int(part.min()) < 0 or len(sizes) != chunks or int(sizes.min()) == 0:
            raise UserError(
                f"the partition should give each of the chunks 0 to {chunks - 1} a node, got "
                f"chunks of the sizes {sizes.tolist()}; set chunks to how many there are"
            )
        bounds = (0, *sizes.cumsum(0).tolist())
        return cls(part.argsort(stable=True), bounds, method)

    @property
    def place(self) -> Int[Tensor, " node"]:
        """Place of each node of the graph in ``order``."""
        return self.order.argsort()


def cut(
    edge_index: Int[Tensor, "2 edge"],
    nodes: int,
    chunks: int,
    method: Literal["auto", "metis", "greedy"] = "auto",
    seed: int = 0,
) -> Chunks:
    """Partition a graph into chunks of about equal size.

    Args:
        edge_index: Edges of the whole graph.
        nodes: Number of nodes.
        chunks: Number of chunks, at most one for each node.
        method: Partitioner: metis (the paper's; needs pymetis), greedy, or auto, which is metis
            where it is installed.
        seed: Seed of metis.

    Raises:
        UserError: there are fewer nodes than chunks, or metis is chosen and not installed.
    """
    if chunks > nodes:
        raise UserError(
            f"{nodes} nodes cannot be cut into {chunks} chunks; set chunks to {nodes} or less"
        )
    installed = importlib.util.find_spec("pymetis") is not None
    if method == "metis" and not installed:
        raise UserError(
            "partition is 'metis', but pymetis is not installed; pip install pymetis, or choose "
            "'greedy', which is built in"
        )
    rows, columns = _neighbours(edge_index, nodes)
    if installed and method != "greedy":
        part = _metis(rows, columns, chunks, seed)
        if len(np.unique(part)) == chunks:  # metis may leave a chunk of a tiny graph empty
            return Chunks.from_parts(torch.from_numpy(part), chunks, "metis")
    part = _greedy(rows, columns, chunks)
    return Chunks.from_parts(torch.from_numpy(part), chunks, "greedy")


def cut_edges(edge_index: Int[Tensor, "2 edge"], chunks: Chunks) -> int:
    """Count the edges between chunks."""
    bounds = torch.tensor(chunks.bounds[1:], device=edge_index.device)
    places = chunks.place.to(edge_index.device)[edge_index].contiguous()
    chunk = torch.bucketize(places, bounds, right=True)
    return int((chunk[0] != chunk[1]).sum())


def _neighbours(edge_index: Tensor, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a symmetric adjacency list without self loops: row offsets and neighbours."""
    source, target = edge_index.cpu().numpy()
    kept = source != target
    source, target = source[kept], target[kept]
    keys = np.unique(np.concatenate([source * nodes + target, target * nodes + source]))
    rows = np.zeros(nodes + 1, np.int64)
    np.cumsum(np.bincount(keys // nodes, minlength=nodes), out=rows[1:])
    return rows, keys % nodes


def _metis(rows: np.ndarray, columns: np.ndarray, chunks: int, seed: int) -> np.ndarray:
    import pymetis  # type: ignore[import-not-found]

    options = pymetis.Options(seed=seed % 2**31)  # metis takes an int32
    _, part = pymetis.part_graph(chunks, xadj=rows, adjncy=columns, options=options)
    return np.asarray(part, np.int64)


def _greedy(rows: np.ndarray, columns: np.ndarray, chunks: int) -> np.ndarray:
    """Grow one chunk after the other from a node of small degree.

    The next node is always the one with the most edges into the chunk; ties go to the node that was
    seen first.
    """
    nodes = len(rows) - 1
    starts, neighbours = rows.tolist(), columns.tolist()
    part = [-1] * nodes
    seeds = iter(np.argsort(np.diff(rows), kind="stable").tolist())
    for chunk in range(chunks):
        room = nodes * (chunk + 1) // chunks - nodes * chunk // chunks
        inside: dict[int, int] = {}  # number of edges into the chunk, for nodes at its border
        border: list[tuple[int, int, int]] = []
        seen = 0
        while room:
            node = _closest(border, inside, part)
            if node is None:  # the border is empty: continue in another component
                node = next(n for n in seeds if part[n] < 0)
            part[node], room = chunk, room - 1
            for other in neighbours[starts[node] : starts[node + 1]]:
                if part[other] < 0:
                    seen += 1
                    inside[other] = inside.get(other, 0) + 1
                    heapq.heappush(border, (-inside[other], seen, other))
    return np.asarray(part, np.int64)


def _closest(border: list[tuple[int, int, int]], inside: dict, part: list[int]) -> int | None:
    while border:
        edges, _, node = heapq.heappop(border)
        if part[node] < 0 and inside[node] == -edges:  # an outdated entry otherwise
            return node
    return None
