"""Prepared graphs of the pipeline: written once with their splits, read by every training."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from sixfold.core.config import UserError
from sixfold.core.data.atomic import atomic_folder
from sixfold.graphs.data.load import MASKS, load_graph
from sixfold.graphs.data.synthetic import block_model, digits_graph, two_kinds_model
from sixfold.graphs.data.validate import Data

SPLITS = range(5)
SYNTHETIC = {
    "digits": digits_graph,
    "homophilous": lambda split: block_model(homophily=0.8, split=split),
    "heterophilous": lambda split: block_model(homophily=0.1, split=split),
    "two_kinds": lambda split: two_kinds_model(split=split),
}


def write_graphs(names: Sequence[str], source: str, folder: Path) -> None:
    """Write graphs, undirected, with five splits each, and manifest.json; all or nothing.

    Args:
        names: Keys of `sixfold.graphs.data.catalog.GRAPHS`, or of ``SYNTHETIC``.
        source: Source of the data for the manifest.
        folder: Output folder, which is replaced if it exists.

    Raises:
        UserError: a graph is not available, or the folder cannot be written.
    """
    described = {}
    with atomic_folder(folder) as partial:
        for name in names:
            tensors = _tensors(name)
            described[name] = _describe(tensors)
            (partial / f"{name}.safetensors").write_bytes(save(tensors))
        text = json.dumps({"source": source, "graphs": described}, indent=1, sort_keys=True)
        (partial / "manifest.json").write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of `write_graphs`: nodes, edges, features, classes, homophily.

    Raises:
        UserError: nothing was prepared.
    """
    return json.loads(_file(folder, "manifest.json").read_text(encoding="utf-8"))


def read_graph(folder: Path, name: str, split: int, *, normalised: bool = False) -> Data:
    """Read a prepared graph with one of its splits.

    Args:
        folder: Folder written by `write_graphs`.
        name: Name of a graph in the manifest.
        split: Number of the split, 0 to 4.
        normalised: Whether each node's features are divided by their sum (NormalizeFeatures).

    Raises:
        UserError: the graph was not prepared, or has no such split.
    """
    from torch_geometric.data import Data as Graph
    from torch_geometric.transforms import NormalizeFeatures

    tensors = load_file(_file(folder, f"{name}.safetensors"))
    if split not in SPLITS:
        raise UserError(f"prepared graphs have the splits 0 to 4, not {split}; see seeds")
    masks = {mask: tensors.pop(mask)[split] for mask in MASKS}
    graph = Graph(**(tensors | masks | {"x": tensors["x"].float()}))
    return NormalizeFeatures()(graph) if normalised else graph


def _tensors(name: str) -> dict[str, Tensor]:
    from torch_geometric.utils import to_undirected

    make = SYNTHETIC.get(name, lambda split: load_graph(name, split))
    splits = [make(split=split) for split in SPLITS]
    graph = splits[0]
    small = graph.x.to(
        torch.uint8
    )  # most published features are 0 or 1; uint8 takes a quarter of the space
    return {
        "x": small if torch.equal(small.to(graph.x.dtype), graph.x) else graph.x,
        "edge_index": to_undirected(graph.edge_index, num_nodes=len(graph.x)),
        **{name: graph[name] for name in ("y", "kind") if name in graph},
        **{mask: torch.stack([split[mask] for split in splits]) for mask in MASKS},
    }


def _describe(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    source, target = tensors["edge_index"]
    y = tensors["y"]
    return {
        "nodes": len(y),
        "edges": len(source) // 2,
        "features": tensors["x"].shape[1],
        "classes": int(y.max()) + 1,
        "homophily": round(float((y[source] == y[target]).double().mean()), 3),
        "nodes to learn": int(tensors["train_mask"][0].sum()),
    }


def _file(folder: Path, name: str) -> Path:
    path = Path(folder) / name
    if not path.is_file():
        raise UserError(f"there is no {path}; make it with: sixfold prepare graphs")
    return path
