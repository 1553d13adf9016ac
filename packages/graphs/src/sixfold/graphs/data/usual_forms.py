"""Graphs in the other forms that PyTorch users have: brought to the one that is computed with.

Edges of int32, or transposed and sparse (``adj_t``); sparse features; masks of 0 and 1, or the
numbers of the nodes; one column of classes. The graph that was given is never changed.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.memory import check_memory
from sixfold.graphs.data.validate import Data, check_tensors

MASKS = ("train_mask", "val_mask", "test_mask")


def accepts_usual_forms(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of a model and a graph, or two graphs, take every form of `in_usual_form`."""

    @functools.wraps(method)
    def call(model: Any, data: Data, *arguments: Any, **options: Any) -> Any:
        others = [in_usual_form(value) for value in arguments]
        named = {name: in_usual_form(value) for name, value in options.items()}
        graph = in_usual_form(data)
        check_tensors(graph)
        return method(model, graph, *others, **named)

    return call


def in_usual_form(data: Data) -> Data:
    """Return a graph with ``edge_index`` of int64, dense ``x``, bool masks and flat classes.

    Args:
        data: Graph, returned as it is if it has this form already; so is what is no graph.

    Raises:
        UserError: a mask names a node that does not exist.
    """
    if not hasattr(data, "edge_index"):
        return data
    found = {}
    if isinstance(x := data.x, Tensor) and x.layout != torch.strided:
        check_memory("dense x", x.shape.numel() * x.element_size())
        found["x"] = x.to_dense()
    edges = data.edge_index
    if isinstance(edges, Tensor) and edges.dtype in (torch.int32, torch.int16, torch.uint8):
        found["edge_index"] = edges.long()
    elif edges is None and getattr(data, "adj_t", None) is not None:
        found |= _from_transposed(data.adj_t, getattr(data, "edge_weight", None))
    y = getattr(data, "y", None)
    if isinstance(y, Tensor) and not y.is_floating_point() and y.ndim == 2 and y.shape[1] == 1:
        found["y"] = y[:, 0]
    for name in MASKS:
        mask = getattr(data, name, None)
        if not isinstance(mask, Tensor) or not isinstance(x, Tensor):
            continue
        if mask.dtype != torch.bool and mask.ndim == 1:
            found[name] = _mask(name, mask, len(x))
    if not found:
        return data
    data = copy.copy(data)
    for name, value in found.items():
        setattr(data, name, value)
    return data


def _from_transposed(matrix: Any, weight: Tensor | None) -> dict[str, Tensor]:
    """Return the edges of a matrix (target, source), and its values where they are not all one."""
    if isinstance(matrix, Tensor):
        entries = matrix.to_sparse_coo().coalesce()
        (target, source), values = entries.indices(), entries.values()
    else:  # torch_sparse.SparseTensor
        target, source, values = matrix.coo()
    found = {"edge_index": torch.stack([source, target])}
    if weight is None and values is not None and bool((values != 1).any()):
        found["edge_weight"] = values
    return found


def _mask(name: str, given: Tensor, nodes: int) -> Tensor:
    if given.shape == (nodes,) and bool(((given == 0) | (given == 1)).all()):
        return given.bool()
    if given.is_floating_point() or given.is_complex():
        return given  # refused where it is read
    if given.numel() and not 0 <= int(given.min()) <= int(given.max()) < nodes:
        raise UserError(
            f"{name} names the nodes {int(given.min())} to {int(given.max())}, but x has {nodes} "
            f"rows; give a bool for every node, or numbers from 0 to {nodes - 1}"
        )
    return torch.zeros(nodes, dtype=torch.bool, device=given.device).index_fill(
        0, given.long(), True
    )
