"""A graph of one's own from a file: a PyG ``Data`` (.pt), arrays (.npz), or tables (.csv).

    my.pt   torch.save(Data(x=..., edge_index=..., y=...), "my.pt")
    my.npz  numpy.savez("my.npz", x=..., edge_index=..., y=...)
    folder  nodes.csv: id, label, split and a column for each feature
            edges.csv: source, target, weight and a column for each attribute of an edge

y, masks, weights and attributes are optional, under PyG's names. Whatever classes are called, they
become numbers, and their names are kept.
"""

import itertools
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.data.arrays import read_npz
from sixfold.core.data.tensors import as_tensor
from sixfold.core.memory import check_memory
from sixfold.core.messages import shorten, some
from sixfold.core.training.sampling import derive_seed
from sixfold.graphs.data.labels import Target, labels_of
from sixfold.graphs.data.tables import read_tables
from sixfold.graphs.data.validate import Data, check_graph

MASKS = ("train_mask", "val_mask", "test_mask")
READ = ("x", "edge_index", "y", *MASKS, "edge_weight", "edge_attr")
Arrays = dict[str, Any]  # tensors; y may be a list of names


@dataclass(frozen=True)
class GraphFile:
    """A graph that was read from a file.

    Args:
        data: Graph with masks.
        classes: Names of the classes, empty for other targets.
        notes: What was decided on reading, a line each.
    """

    data: Data
    classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_graph_file(
    path: str | Path,
    *,
    target: Target = "multiclass",
    split: tuple[float, float, float] = (0.6, 0.2, 0.2),
    undirected: bool = False,
    seed: int = 0,
) -> GraphFile:
    """Read a graph, and split its labelled nodes where masks are missing.

    Args:
        path: A .pt or .npz file, or a folder with nodes.csv and edges.csv.
        target: Kind of labels.
        split: Shares of training, validation and test nodes.
        undirected: Whether each edge of the file is one in both directions.
        seed: Seed of the split.

    Raises:
        UserError: there is no such file, or it is no graph that can be trained on; the message says
            what is wrong and how to mend it.
    """
    from torch_geometric.data import Data as Graph

    path, notes = Path(path), []
    arrays = _read(path)
    if others := sorted(map(str, arrays.keys() - set(READ))):
        notes.append(f"not read: {some(others)}")
    for name in ("x", "edge_index", "y"):
        if arrays.get(name) is None:
            held = shorten(some(sorted(map(str, arrays))), 120)
            tables = path.is_dir()  # which hold the others whenever they can be read
            where = f"{path / 'nodes.csv'}, without a column label," if tables else path
            raise UserError(f"{where} holds no {name}; it holds: {held}")
    classes: list[str] = []
    try:
        found = {name: _tensor(name, arrays[name]) for name in READ if arrays.get(name) is not None}
        if target == "multiclass":
            found["y"], classes = _classes(arrays["y"])
        else:
            found["y"] = _numbers(found["y"], target)
        data = Graph(**found)
        check_graph(data)
        if undirected:
            _add_reverse_edges(data)
        _split(data, labels_of(data, target), split, seed, notes)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return GraphFile(data, classes, notes)


def _read(path: Path) -> Arrays:
    if path.is_dir() or path.suffix == ".csv":
        return read_tables(path if path.is_dir() else path.parent)
    if not path.is_file():
        raise UserError(f"there is no {path}; give a .pt or .npz file, or a folder of tables")
    if path.suffix == ".pt":
        return _read_pt(path)
    if path.suffix == ".npz":
        return read_npz(path)
    raise UserError(
        f"{path} is neither a .pt file (torch.save of a PyG Data), nor .npz, nor a folder with "
        "nodes.csv and edges.csv"
    )


def _read_pt(path: Path) -> Arrays:
    from torch_geometric.data import Data as Graph
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import GlobalStorage

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if part := archive.testzip():  # torch compares no checksums
                    raise ValueError(f"{part} is damaged")
        with torch.serialization.safe_globals([Graph, DataEdgeAttr, DataTensorAttr, GlobalStorage]):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        foreign = re.search(r"GLOBAL (\S{1,80})", str(error))
        reason = f" ({foreign[1]})" if foreign else ""
        raise UserError(
            f"{path} is damaged, or holds more than a torch_geometric.data.Data of tensors, which "
            f"is not loaded because that can run code{reason}; save it again"
        ) from None
    if isinstance(found, Graph):
        return {name: found[name] for name in found.keys()}  # noqa: SIM118 (no dict)
    if isinstance(found, Mapping):
        return dict(found)
    raise UserError(
        f"{path} holds {type(found).__name__}, not a torch_geometric.data.Data; of a dataset save "
        "one graph: torch.save(dataset[0], ...)"
    )


def _tensor(name: str, value: Any) -> Any:
    """Return a tensor of the type that a graph has: float32, int64 or bool."""
    text = isinstance(value, np.ndarray) and value.dtype.kind in "US" and value.ndim
    if name == "y" and (text or isinstance(value, list)):
        return value  # names of classes
    tensor = as_tensor(value, name)
    check_memory(name, tensor.numel() * tensor.element_size())  # a few bytes may be expanded to it
    if tensor.is_complex():
        raise UserError(f"{name} holds complex numbers; give their parts as columns of their own")
    if tensor.ndim == 0:
        raise UserError(f"{name} should hold numbers, one or more a node or an edge")
    if name in MASKS:
        if not bool(((tensor == 0) | (tensor == 1)).all()):
            raise UserError(f"{name} should hold a bool, or 0 or 1, for every node")
        return tensor.bool()
    if name == "edge_index":
        return tensor if tensor.is_floating_point() else tensor.long()
    return tensor.float() if name != "y" or tensor.is_floating_point() else tensor.long()


def _classes(y: Any) -> tuple[Tensor, list[str]]:
    """Return a number for each class, -1 where there is none, and the names of the classes."""
    values = y.tolist() if isinstance(y, Tensor | np.ndarray) else list(y)
    if values and isinstance(values[0], list) and all(len(row) == 1 for row in values):
        values = [row[0] for row in values]
    if values and isinstance(values[0], list):
        raise UserError(
            f"y has {len(values[0])} columns, which are no classes; for several labels or numbers "
            "a node set target=multilabel or target=regression"
        )
    if any(isinstance(value, float) and value == value and value % 1 for value in values):
        raise UserError("y holds fractions, which are no classes; set target=regression")
    text = [_name(value) for value in values]
    numeric = all(re.fullmatch(r"-?[0-9]{1,18}", name) for name in text if name)
    names = sorted({name for name in text if name}, key=int if numeric else str)
    names = [name for name in names if not (numeric and int(name) < 0)]
    numbers = {name: number for number, name in enumerate(names)}
    return torch.tensor([numbers.get(name, -1) for name in text]), names


def _name(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else str(int(value))
    return str(int(value)) if isinstance(value, bool) else str(value).strip()


def _numbers(y: Any, target: Target) -> Tensor:
    """Return numbers from a column of text, where nothing means not known."""
    if isinstance(y, Tensor):
        return y
    if target == "multilabel":
        raise UserError("y has one column of text; several labels a node are read from .pt or .npz")
    try:
        return torch.tensor([float(text) if str(text).strip() else torch.nan for text in y])
    except (ValueError, TypeError) as error:
        raise UserError(f"y holds text, not numbers, for target regression: {error}") from None


def _add_reverse_edges(data: Data) -> None:
    """Make the edges undirected; of repeated edges the largest values stay."""
    from torch_geometric.utils import to_undirected

    names = [n for n in ("edge_weight", "edge_attr") if getattr(data, n, None) is not None]
    values = [data[name] for name in names]
    found = to_undirected(data.edge_index, values, num_nodes=len(data.x), reduce="max")
    data.edge_index, merged = found if names else (found[0], [])
    for name, value in zip(names, merged, strict=True):
        data[name] = value


def _split(
    data: Data, y: Tensor, split: tuple[float, float, float], seed: int, notes: list[str]
) -> None:
    """Draw the masks that are missing from the labelled nodes that are in no mask."""
    if min(split) < 0 or not 0.999 < sum(split) < 1.001 or split[0] == 0:
        raise UserError(f"split should be three shares that add up to one, got {split}")
    free = (~y.isnan()).any(1) if y.is_floating_point() else y >= 0
    missing = []
    for name in MASKS:
        if (mask := getattr(data, name, None)) is None:
            missing.append(name)
            continue
        if mask.ndim == 2 and len(mask) == len(data.x) and mask.shape[1]:
            notes.append(f"{name} has {mask.shape[1]} columns, of which the first is used")
            data[name] = mask = mask[:, 0]
        if mask.shape != free.shape:
            raise UserError(f"{name} should be shaped {tuple(free.shape)}, got {tuple(mask.shape)}")
        free = free & ~mask
    _note_overlaps(data, notes)
    if not missing:
        return
    nodes = free.nonzero()[:, 0]
    generator = torch.Generator().manual_seed(derive_seed(seed, "split"))
    nodes = nodes[torch.randperm(len(nodes), generator=generator)]
    shares = torch.tensor([split[MASKS.index(name)] for name in missing], dtype=torch.float64)
    bounds = (shares.cumsum(0) / shares.sum().clamp(min=1e-9) * len(nodes)).round().long().tolist()
    for name, start, end in zip(missing, [0, *bounds], bounds, strict=False):
        data[name] = torch.zeros(len(free), dtype=torch.bool).index_fill(0, nodes[start:end], True)
    counts = ", ".join(f"{name} {int(data[name].sum())}" for name in missing)
    notes.append(f"drawn with seed {seed} from {len(nodes)} labelled nodes: {counts}")


def _note_overlaps(data: Data, notes: list[str]) -> None:
    for first, second in itertools.combinations([name for name in MASKS if name in data], 2):
        if shared := int((data[first] & data[second]).sum()):
            notes.append(f"{first} and {second} share {shared} nodes")
