"""A graph from two tables, nodes.csv and edges.csv; `sixfold.graphs.data.files` shows them."""

import csv
import math
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from sixfold.core import UserError
from sixfold.core.messages import shorten, some

SPLITS = {"train": "train_mask", "val": "val_mask", "valid": "val_mask", "test": "test_mask"}
Row = tuple[int, dict[str, str]]  # line in the file, and values by column


def read_tables(folder: Path) -> dict[str, Any]:
    """Read a graph from nodes.csv and edges.csv.

    Args:
        folder: Folder with both files.

    Returns:
        Tensors by PyG's names; y is a list of texts.

    Raises:
        UserError: a file or a column is missing, a number is none, or ids are not 0 to n - 1.
    """
    nodes, columns = _read(folder / "nodes.csv", ["id"])
    label = next((name for name in ("label", "y") if name in columns), None)
    features = [name for name in columns if name not in {"id", "split", label}]
    if not features:
        raise UserError(f"{folder / 'nodes.csv'} has no column of features besides id and label")
    order = _order(folder / "nodes.csv", nodes)
    nodes = [nodes[place] for place in order]
    found: dict[str, Any] = {"x": _numbers(folder / "nodes.csv", nodes, features)}
    if label is not None:
        found["y"] = [row[label] for _, row in nodes]
    if "split" in columns:
        found |= _masks(folder / "nodes.csv", nodes)
    return found | _edges(folder / "edges.csv", len(nodes))


def _edges(path: Path, nodes: int) -> dict[str, Any]:
    rows, columns = _read(path, ["source", "target"])
    ends = []
    for line, row in rows:
        for name in ("source", "target"):
            if not 0 <= _number(row[name]) < nodes:
                raise UserError(
                    f"{path}, line {line}: {name} is {row[name]!r:.40}, but nodes.csv has the ids "
                    f"0 to {nodes - 1}"
                )
        ends.append((int(row["source"]), int(row["target"])))
    edge_index = torch.tensor(ends, dtype=torch.int64).reshape(-1, 2).T.contiguous()
    found: dict[str, Any] = {"edge_index": edge_index}
    if "weight" in columns:
        found["edge_weight"] = _numbers(path, rows, ["weight"])[:, 0]
    if others := [name for name in columns if name not in {"source", "target", "weight"}]:
        found["edge_attr"] = _numbers(path, rows, others)
    return found


def _read(path: Path, needed: list[str]) -> tuple[list[Row], list[str]]:
    if not path.is_file():
        raise UserError(f"there is no {path}; a graph of tables is nodes.csv and edges.csv")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no table in UTF-8 ({error}); save it as one") from None
    for name in needed:
        if name not in columns:
            raise UserError(f"{path} has no column {name}; it has: {_listed(columns)}")
    if "" in columns:
        raise UserError(f"{path}: column {columns.index('') + 1} has no name; name it, or drop it")
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise UserError(f"{path} has columns of one name: {_listed(twice)}; rename or drop one")
    if not rows and "id" in needed:
        raise UserError(f"{path} has no rows; write one for each node")
    for line, row in rows:
        if None in row or None in row.values():
            raise UserError(
                f"{path}, line {line}: not as many values as the {len(columns)} columns"
            )
    return [(line, {n: v.strip() for n, v in row.items()}) for line, row in rows], columns


def _number(text: str) -> int:
    """Return a whole number from 0 with at most 18 digits; -1 for any other text."""
    return int(text) if text.isdecimal() and len(text) <= 18 else -1


def _listed(columns: list[str]) -> str:
    return shorten(some(columns), 120) or "none"


def _order(path: Path, nodes: list[Row]) -> list[int]:
    """Return the rows by id."""
    place: dict[int, int] = {}
    for number, (line, row) in enumerate(nodes):
        given = row["id"]
        if not 0 <= _number(given) < len(nodes) or _number(given) in place:
            raise UserError(
                f"{path}, line {line}: id is {given!r:.40}, but the ids of {len(nodes)} nodes "
                f"should be 0 to {len(nodes) - 1}, each once"
            )
        place[int(given)] = number
    return [place[node] for node in range(len(nodes))]


def _numbers(path: Path, rows: list[Row], columns: list[str]) -> torch.Tensor:
    """Return columns of finite numbers (row, column)."""
    values = []
    for line, row in rows:
        for name in columns:
            try:
                number = float(row[name])
            except ValueError:
                number = math.nan
            if not math.isfinite(number):
                raise UserError(
                    f"{path}, line {line}: {name} is {row[name]!r:.40}, which is no finite number; "
                    "fill it in, or leave the column out"
                )
            values.append(number)
    return torch.tensor(values, dtype=torch.float32).reshape(len(rows), len(columns))


def _masks(path: Path, nodes: list[Row]) -> dict[str, Any]:
    masks = {name: torch.zeros(len(nodes), dtype=torch.bool) for name in SPLITS.values()}
    for node, (line, row) in enumerate(nodes):
        if not (split := row["split"].lower()):
            continue
        if split not in SPLITS:
            raise UserError(
                f"{path}, line {line}: split is {row['split']!r:.40}; write train, val, test or "
                "nothing"
            )
        masks[SPLITS[split]][node] = True
    return {name: mask for name, mask in masks.items() if mask.any()}
