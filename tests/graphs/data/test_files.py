"""Graphs of one's own: all formats give the same graph, and mistakes are named."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Data, HeteroData

from sixfold.core import UserError
from sixfold.graphs.data.files import MASKS, read_graph_file

NAMES = ["cat", "dog", "emu"]


def write_tables(folder: Path, data: Any, **columns: list) -> Path:
    """Write nodes.csv, the last node first, and edges.csv."""
    folder.mkdir(exist_ok=True)
    nodes: list[list[Any]] = [[f"f{i}" for i in range(data.x.shape[1])] + [*columns, "id"]]
    for node in reversed(range(len(data.x))):
        values = [repr(value) for value in data.x[node].tolist()]
        nodes.append([*values, *(column[node] for column in columns.values()), str(node)])
    weight = data.get("edge_weight")
    edges: list[list[Any]] = [["source", "target", *(["weight"] if weight is not None else [])]]
    for number, pair in enumerate(data.edge_index.T.tolist()):
        edges.append([*pair, *([float(weight[number])] if weight is not None else [])])
    for name, rows in (("nodes", nodes), ("edges", edges)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


def write(kind: str, folder: Path, data: Any) -> Path:
    """Write features, edges, their weights, and names of classes or numbers of them."""
    if kind == "tables":
        return write_tables(folder / "tables", data, label=[NAMES[i] for i in data.y])
    if kind == "npz":
        arrays = {name: data[name].numpy() for name in ("x", "edge_index", "edge_weight")}
        np.savez(folder / "my.npz", y=np.array(NAMES)[data.y], **arrays)
    else:
        torch.save(
            Data(x=data.x, edge_index=data.edge_index, y=data.y, edge_weight=data.edge_weight),
            folder / "my.pt",
        )
    return folder / f"my.{kind}"


@pytest.fixture
def weighted(graph) -> Any:
    graph.edge_weight = torch.rand(graph.edge_index.shape[1])
    return graph


@pytest.mark.parametrize("kind", ["pt", "npz", "tables"])
def test_every_format_gives_the_same_graph(kind, weighted, tmp_path):
    path = write(kind, tmp_path, weighted)
    found = read_graph_file(path)
    for name in ("x", "edge_index", "y", "edge_weight"):
        torch.testing.assert_close(found.data[name], weighted[name])
    assert found.classes == (["0", "1", "2"] if kind == "pt" else NAMES)
    again = read_graph_file(path if kind != "tables" else path / "edges.csv")
    assert all(torch.equal(again.data[mask], found.data[mask]) for mask in MASKS)


def test_missing_masks_are_drawn_from_the_labelled_nodes_and_said(graph, tmp_path):
    graph.y[:10] = -1
    torch.save({"x": graph.x, "edge_index": graph.edge_index, "y": graph.y}, tmp_path / "my.pt")
    found = read_graph_file(tmp_path / "my.pt", split=(0.5, 0.3, 0.2), seed=4)
    assert found.notes == [
        "drawn with seed 4 from 50 labelled nodes: train_mask 25, val_mask 15, test_mask 10"
    ]
    masks = torch.stack([found.data[mask] for mask in MASKS])
    assert masks.sum(0).tolist() == [0] * 10 + [1] * 50
    other = read_graph_file(tmp_path / "my.pt", split=(0.5, 0.3, 0.2), seed=5)
    assert not torch.equal(other.data.train_mask, found.data.train_mask)


def test_masks_of_the_file_stay(graph, tmp_path):
    del graph.test_mask
    graph.train_mask = torch.stack([graph.train_mask, ~graph.train_mask], 1)
    graph.kept_elsewhere = torch.zeros(3)
    torch.save(graph, tmp_path / "my.pt")
    found = read_graph_file(tmp_path / "my.pt")
    assert torch.equal(found.data.train_mask, graph.train_mask[:, 0])
    assert found.data.val_mask.tolist() == graph.val_mask.tolist()
    rest: Any = ~(found.data.train_mask | found.data.val_mask)
    assert torch.equal(found.data.test_mask, rest)
    assert found.notes[:2] == [
        "not read: kept_elsewhere",
        "train_mask has 2 columns, of which the first is used",
    ]


def test_splits_of_tables(graph, tmp_path):
    split = ["train", "valid", "test", ""] * 15
    labels = [NAMES[i] if node % 5 else "" for node, i in enumerate(graph.y.tolist())]
    found = read_graph_file(write_tables(tmp_path, graph, y=labels, split=split)).data
    assert found.val_mask.nonzero()[:, 0].tolist() == list(range(1, 60, 4))
    assert found.y[::5].tolist() == [-1] * 12


@pytest.mark.parametrize(
    ("y", "names", "expected"),
    [
        (torch.tensor([3, 7, -1, 7]), ["3", "7"], [0, 1, -1, 1]),
        (torch.tensor([[1], [0], [1], [-100]]), ["0", "1"], [1, 0, 1, -1]),
        (torch.tensor([1.0, torch.nan, 0.0, 2.0]), ["0", "1", "2"], [1, -1, 0, 2]),
        (np.array(["b", "a", "", "b"]), ["a", "b"], [1, 0, -1, 1]),
        (np.array(["10", "9", "", "10"]), ["9", "10"], [1, 0, -1, 1]),
    ],
    ids=str,
)
def test_classes_become_numbers_and_keep_their_names(y, names, expected, tmp_path):
    np.savez(tmp_path / "my.npz", x=np.eye(4), edge_index=[[0, 1], [1, 0]], y=y)
    found = read_graph_file(tmp_path / "my.npz")
    assert found.classes == names
    assert found.data.y.tolist() == expected
    assert found.data.x.dtype == torch.float32


def test_numbers_and_several_labels(graph, tmp_path):
    numbers = [str(value) if value else "" for value in graph.y.tolist()]
    found = read_graph_file(write_tables(tmp_path, graph, y=numbers), target="regression")
    assert found.data.y.isnan().tolist() == (graph.y == 0).tolist()
    assert not found.classes
    assert int(found.data.train_mask.sum()) == round(0.6 * int((graph.y > 0).sum()))
    labels = np.eye(3)[graph.y]
    np.savez(tmp_path / "my.npz", x=graph.x, edge_index=graph.edge_index, y=labels)
    found = read_graph_file(tmp_path / "my.npz", target="multilabel")
    assert found.data.y.shape == (60, 3)
    np.savez(tmp_path / "my.npz", x=graph.x * 1j, edge_index=graph.edge_index, y=labels)
    with pytest.raises(UserError, match="x holds complex numbers"):
        read_graph_file(tmp_path / "my.npz")


def test_edges_in_both_directions(tmp_path):
    arrays = {"x": np.eye(3), "y": [0, 1, 1], "edge_index": [[0, 1, 2, 2], [1, 2, 1, 2]]}
    np.savez(tmp_path / "my.npz", edge_weight=[1.0, 2.0, 3.0, 4.0], **arrays)
    found = read_graph_file(tmp_path / "my.npz", undirected=True).data
    assert found.edge_index.T.tolist() == [[0, 1], [1, 0], [1, 2], [2, 1], [2, 2]]
    assert found.edge_weight.tolist() == [1, 1, 3, 3, 4]
    np.savez(tmp_path / "my.npz", **arrays)
    assert read_graph_file(tmp_path / "my.npz", undirected=True).data.edge_index.shape == (2, 5)


def test_code_in_a_file_is_not_run(tmp_path):
    class Danger:
        def __reduce__(self):
            return print, ("this must not be printed",)

    torch.save(Data(x=torch.eye(2), harm=Danger()), tmp_path / "my.pt")
    with pytest.raises(UserError, match=r"damaged, or holds more than .* can run code"):
        read_graph_file(tmp_path / "my.pt")
    np.savez(tmp_path / "my.npz", x=np.array([Danger()], dtype=object))
    with pytest.raises(UserError, match=r"no \.npz file of numbers and text"):
        read_graph_file(tmp_path / "my.npz")


def test_other_files_are_refused(graph, tmp_path):
    hetero = HeteroData()
    hetero["a"].x = torch.eye(2)
    torch.save(hetero, tmp_path / "hetero.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK")
    (tmp_path / "a.txt").write_text("")
    torch.save(torch.eye(2), tmp_path / "tensor.pt")
    torch.save({"x": graph.x}, tmp_path / "few.pt")
    for name, message in {
        "none.pt": "there is no .*none.pt; give a",
        "cut.pt": "damaged, or holds more",
        "a.txt": "neither a .pt file",
        "tensor.pt": "holds Tensor, not a",
        "hetero.pt": "holds more than a torch_geometric.data.Data",
        "few.pt": "holds no edge_index; it holds: x",
    }.items():
        with pytest.raises(UserError, match=message):
            read_graph_file(tmp_path / name)


@pytest.mark.parametrize("split", [(0.5, 0.5, 0.5), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1)])
def test_shares_that_are_none_are_refused(split, graph, tmp_path):
    with pytest.raises(UserError, match="three shares that add up to one"):
        read_graph_file(write_tables(tmp_path, graph, y=graph.y.tolist()), split=split)


WRONG = {
    "an id twice": ("nodes", 3, "id", "59", "line 3: id is '59', but the ids of 60 nodes should"),
    "an id too large": ("nodes", 3, "id", "60", "should be 0 to 59"),
    "an id of text": ("nodes", 3, "id", "n3", "id is 'n3'"),
    "a hole": ("nodes", 4, "f1", "", "nodes.csv, line 4: f1 is '', which is no finite number"),
    "text": ("nodes", 5, "f0", "red", "line 5: f0 is 'red'"),
    "infinity": ("nodes", 5, "f0", "inf", "line 5: f0 is 'inf'"),
    "a split": ("nodes", 2, "split", "both", "line 2: split is 'both'; write train, val"),
    "a node": ("edges", 2, "target", "60", "edges.csv, line 2: target is '60', but .* 0 to 59"),
    "minus": ("edges", 2, "source", "-1", "source is '-1'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_cell_is_named(what, graph, tmp_path):
    table, line, column, value, message = WRONG[what]
    write_tables(tmp_path, graph, y=graph.y.tolist(), split=["train", "val", "test"] * 20)
    path = tmp_path / f"{table}.csv"
    rows = list(csv.reader(path.open()))
    rows[line - 1][rows[0].index(column)] = value
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(UserError, match=message):
        read_graph_file(tmp_path)


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        (None, None, "there is no .*nodes.csv"),
        ("id,f\n0,1\n", None, "there is no .*edges.csv"),
        ("name,f\na,1\n", "source,target\n", "no column id; it has: name, f"),
        ("id,label\n0,1\n", "source,target\n", "no column of features"),
        ("id,f\n0,1\n", "from,to\n", "no column source; it has: from, to"),
        ("id,f\n0,1,2\n", "source,target\n", "line 2: not as many values as the 2 columns"),
        ("id,f\n0,1\n", "source,target\n", "nodes.csv, without a column label, holds no y"),
        ("id,f\n²,1\n", "source,target\n", "id is '²'"),
        ("id,f,y\n0,1,a\n", "source,target\n٠,²\n", "target is '²'"),
        ("\0" * 90, "source,target\n", "no column id"),
        ("id,f,f\n0,1,2\n", "source,target\n", "nodes.csv has columns of one name: f;"),
        ("id,f\n0,1\n", "source,target,target\n0,0,0\n", "edges.csv has columns of one name"),
        ("id,,f\n0,1,2\n", "source,target\n", "column 2 has no name"),
        ("id,f\n", "source,target\n", "nodes.csv has no rows"),
    ],
)
def test_a_missing_part_is_named(nodes, edges, message, tmp_path):
    for name, text in (("nodes", nodes), ("edges", edges)):
        if text is not None:
            (tmp_path / f"{name}.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_graph_file(tmp_path)


def test_more_columns_of_edges_are_attributes(tmp_path):
    (tmp_path / "nodes.csv").write_text("id,label,f\n0,a,1\n1,b,2\n")
    (tmp_path / "edges.csv").write_text("source,target,weight,length,kind\n0,1,2,3,1\n1,0,4,5,0\n")
    data = read_graph_file(tmp_path).data
    assert data.edge_weight.tolist() == [2, 4]
    assert data.edge_attr.tolist() == [[3, 1], [5, 0]]


@pytest.mark.parametrize(
    ("y", "target", "message"),
    [
        ([0.5, 1.0], "multiclass", "holds fractions, .* target=regression"),
        ([[0, 1], [1, 1]], "multiclass", "has 2 columns, which are no classes"),
        (["a", "b"], "regression", "y holds text, not numbers"),
        (["0", "1"], "multilabel", "several labels a node are read from .pt or .npz"),
    ],
)
def test_labels_of_another_kind_are_refused(y, target, message, tmp_path):
    np.savez(tmp_path / "my.npz", x=np.eye(2), edge_index=[[0], [1]], y=np.array(y))
    with pytest.raises(UserError, match=message):
        read_graph_file(tmp_path / "my.npz", target=target)


@pytest.mark.parametrize("name", ["graph.pt", "graph.npz"])
def test_a_flipped_bit_of_the_numbers_is_not_trained_on(tmp_path, name):
    x, edges, y = torch.randn(5, 3), torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 1, 0, 1, 1])
    path = tmp_path / name
    if path.suffix == ".pt":
        torch.save({"x": x, "edge_index": edges, "y": y}, path)
    else:
        np.savez(path, x=x.numpy(), edge_index=edges.numpy(), y=y.numpy())
    content = bytearray(path.read_bytes())
    content[content.index(x.numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is damaged"):
        read_graph_file(path)


def test_tables_that_are_not_utf8_are_named(tmp_path):
    (tmp_path / "nodes.csv").write_bytes(b"id,a\n0,\xff\n")
    with pytest.raises(UserError, match=r"nodes\.csv is no table in UTF-8"):
        read_graph_file(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("y", np.array(1), "y should hold numbers"),
        ("y", np.zeros(2, complex), "y holds complex numbers"),
        ("y", np.array("ab"), "y should be a tensor or an array of numbers, got <U2"),
        ("x", np.eye(2).astype(complex), "x holds complex numbers"),
        ("x", np.array([["a", "b"]] * 2), "x should be a tensor or an array of numbers"),
        ("train_mask", np.array([0, 5]), "train_mask should hold a bool, or 0 or 1"),
        ("train_mask", np.array([np.nan, 1]), "train_mask should hold a bool, or 0 or 1"),
        ("train_mask", np.array(["a", "b"]), "train_mask should be a tensor or an array"),
        ("train_mask", np.ones((2, 0), bool), r"train_mask should be shaped \(2,\)"),
    ],
)
def test_arrays_of_another_kind_are_named_with_their_file(name, value, message, tmp_path):
    arrays = {"x": np.eye(2), "edge_index": [[0], [1]], "y": [0, 1]}
    np.savez(tmp_path / "my.npz", **(arrays | {name: value}))
    with pytest.raises(UserError, match=rf"my\.npz: {message}"):
        read_graph_file(tmp_path / "my.npz")


def test_a_tensor_expanded_beyond_memory_is_refused(tmp_path):
    x = torch.zeros(1).expand(10**12, 3)
    torch.save({"x": x, "edge_index": torch.eye(2), "y": torch.ones(2)}, tmp_path / "my.pt")
    with pytest.raises(UserError, match=r"x takes 1\.2e\+13 bytes"):
        read_graph_file(tmp_path / "my.pt")


def test_nodes_in_two_masks_are_said(tmp_path):
    masks: Any = {"train_mask": [1, 1, 0, 0], "test_mask": [0, 1, 1, 1], "val_mask": [0, 0, 1, 0]}
    arrays: Any = {"x": np.eye(4), "edge_index": [[0], [1]], "y": [0, 1, 0, 1]}
    np.savez(tmp_path / "my.npz", **arrays, **masks)
    assert read_graph_file(tmp_path / "my.npz").notes == [
        "train_mask and test_mask share 1 nodes",
        "val_mask and test_mask share 1 nodes",
    ]
