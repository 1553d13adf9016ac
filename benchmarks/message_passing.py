"""An epoch of GCN, SAGE, GAT and GIN against gather-scatter and torch.sparse.

    python benchmarks/message_passing.py [--rounds N] [--only GRAPH]

An epoch is a forward pass of two layers, cross entropy on all nodes, a backward pass, and a step of
Adam. Gather-scatter are PyG's convolutions on edge_index; torch.sparse the same ones on a sparse
CSR matrix, for which PyG has no GAT. All compute on the same weights; outputs are checked first.
Photo and Physics are found or downloaded by `sixfold.graphs.data.load.load_graph`.
"""

import argparse
import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timing import compare, write_benchmark
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv

from sixfold.graphs.data.load import load_graph
from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.models.forwardgnn.backprop import forward_all

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python benchmarks/message_passing.py"
HIDDEN, CLASSES, FEATURES = 128, 8, 128
MAKE: dict[str, Callable[[int, int], nn.Module]] = {
    "GCN": GCNConv,
    "SAGE": SAGEConv,
    "GAT, 4 heads": lambda i, o: GATConv(i, o // 4, heads=4),
    "GIN": lambda i, o: GINConv(nn.Sequential(nn.Linear(i, o), nn.ReLU(), nn.Linear(o, o))),
}


@dataclass(frozen=True)
class Case:
    """A graph with features."""

    name: str
    x: Tensor
    edge_index: Tensor


def photo() -> Case:
    """Load Photo, with random features."""
    data = load_graph("photo", 0)
    return Case("Photo", random_features(len(data.y)), data.edge_index)


def physics() -> Case:
    """Load Physics, with random features: its own 8415 would dominate gather-scatter's time."""
    data = load_graph("physics", 0)
    return Case("Physics", random_features(len(data.y)), data.edge_index)


def power_law() -> Case:
    """Draw a graph of 40,000 nodes and 480,000 edges, most of them into few nodes.

    Without self-loops: PyG's GCN replaces self-loops of an edge_index, but doubles those of a
    sparse matrix.
    """
    nodes, edges = 40_000, 480_000
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(nodes, (edges,), generator=generator)
    target = (torch.rand(edges, generator=generator) ** 3 * nodes).long()
    edge_index = torch.stack([source, target])[:, source != target].unique(dim=1)
    return Case("power law", random_features(nodes), edge_index)


GRAPHS = {graph.__name__: graph for graph in (photo, physics, power_law)}


def random_features(nodes: int) -> Tensor:
    """Draw dense features of every node."""
    return torch.randn(nodes, FEATURES, generator=torch.Generator().manual_seed(1))


def measure(case: Case, name: str, rounds: int) -> dict:
    """Time one network on one graph in all ways; return a row of the table."""
    torch.manual_seed(0)
    make = MAKE[name]
    first = nn.ModuleList([make(case.x.shape[1], HIDDEN), make(HIDDEN, CLASSES)])
    y = torch.randint(CLASSES, (len(case.x),))
    x, topology = Features(case.x), Topology(case.edge_index, len(case.x))
    forwards: dict[str, Callable[[nn.ModuleList], Tensor]] = {
        "sixfold": lambda layers: forward_all(list(layers), x, topology),  # ratios are to the first
        "gather": lambda layers: plain(layers, case.x, case.edge_index),
    }
    if not name.startswith("GAT"):
        matrix = transposed(case.edge_index, len(case.x))
        forwards["sparse"] = lambda layers: plain(layers, case.x, matrix)
    with torch.no_grad():
        outputs = {way: forward(first) for way, forward in forwards.items()}
    for out in outputs.values():
        torch.testing.assert_close(out, outputs["gather"], rtol=1e-3, atol=1e-3)
    epochs = {way: epoch(forward, copy.deepcopy(first), y) for way, forward in forwards.items()}
    found = {row.name: row for row in compare(epochs, rounds, warmup=1)}
    gather, sparse = found["gather"], found.get("sparse")
    return {
        "graph": case.name,
        "network": name,
        "gather-scatter, ms": f"{1000 * gather.median_s:.0f}",
        "torch.sparse, ms": "-" if sparse is None else f"{1000 * sparse.median_s:.0f}",
        "sixfold, ms": f"{1000 * found['sixfold'].median_s:.0f}",
        "over gather-scatter": f"{1 / gather.speedup:.1f}x",
        "over torch.sparse": "-" if sparse is None else f"{1 / sparse.speedup:.1f}x",
    }


def plain(layers: nn.ModuleList, x: Tensor, edges: Tensor) -> Tensor:
    """Apply PyG's convolutions as they are."""
    return layers[1](layers[0](x, edges).relu(), edges)


def transposed(edge_index: Tensor, nodes: int) -> Tensor:
    """Return the matrix whose row i has a one for each edge into node i."""
    from torch_geometric.utils import to_torch_csr_tensor

    return to_torch_csr_tensor(edge_index.flip(0), size=(nodes, nodes))


def epoch(forward: Callable[[Any], Tensor], layers: nn.ModuleList, y: Tensor) -> Callable:
    """Return a call that trains for one epoch."""
    optimizer = torch.optim.Adam(layers.parameters(), lr=1e-3)

    def run() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(forward(layers), y).backward()
        optimizer.step()

    return run


def main() -> None:
    """Measure all graphs, or one, and write the table."""
    parser = argparse.ArgumentParser(description="Time epochs of graph networks.")
    parser.add_argument("--only", choices=GRAPHS, help="print one graph, write nothing")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each comparison, odd")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", ".*[Ss]parse (CSR|invariant).*")
    rows = []
    for graph in [GRAPHS[given.only]] if given.only else GRAPHS.values():
        case = graph()
        for name in MAKE:
            rows.append(measure(case, name, given.rounds))
            print(*rows[-1].values(), sep=" | ", flush=True)
    if given.only:
        return
    note = (
        f"{FEATURES} features, drawn; two layers, hidden width {HIDDEN}, {CLASSES} classes; "
        "forward, backward and a step of Adam. Medians; the ways take turns in one process, ratios "
        "are medians over the turns. PyG normalises a GCN's edges anew in each pass, as is its "
        "default; it has no GAT for torch.sparse."
    )
    path = ROOT / "benchmarks" / "results" / "message_passing.md"
    write_benchmark(path, "Message passing against gather-scatter", COMMAND, rows, note)


if __name__ == "__main__":
    main()
