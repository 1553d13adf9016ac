"""Checks of graphs and configs before a training, with errors that say how to repair the input."""

import hashlib
import math
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from sixfold.core import Config, UserError

C = TypeVar("C", bound=Config)

# A torch_geometric.data.Data: that class is not imported here, because it takes seconds, which
# listing the systems should not cost.
Data = Any


def check_graph(data: Data, *, undirected: bool = False) -> None:
    """Check features and edges; isolated nodes and several connected components are fine.

    Args:
        data: Graph with ``x`` (nodes, features) and ``edge_index`` (2, edges).
        undirected: Whether every edge must exist in both directions.

    Raises:
        UserError: features, edges, or weights or attributes of edges are missing, not finite, of a
            wrong shape or dtype, there are no nodes, an edge names a node that does not exist, or
            a direction is missing.
    """
    check_tensors(data)
    x, edge_index = data.x, data.edge_index
    if x.ndim != 2 or not x.is_floating_point():
        mend = "x[:, None] is one feature a node" if x.ndim == 1 else "try x.float()"
        raise UserError(
            f"x should be floating-point numbers shaped (nodes, features), got {x.dtype} "
            f"{tuple(x.shape)}; {mend}"
        )
    if x.shape[0] == 0:
        raise UserError("the graph has no nodes: x has no rows")
    if x.shape[1] == 0:
        raise UserError(f"x has no features, it is shaped {tuple(x.shape)}; give every node some")
    if x.numel() and not all(math.isfinite(value) for value in x.aminmax()):  # makes no copy
        row = int((~x.isfinite()).any(1).nonzero()[0])
        raise UserError(f"x holds NaN or infinity, first at node {row}; fill in or drop that node")
    _check_edges(edge_index, x.shape[0])
    for name in ("edge_weight", "edge_attr"):
        if (value := getattr(data, name, None)) is not None:
            _check_edge_values(name, value, data)
    if undirected and not is_undirected(edge_index, x.shape[0]):
        raise UserError(
            "the graph is directed, but both directions of every edge are needed here; "
            "pass torch_geometric.utils.to_undirected(edge_index)"
        )


def check_tensors(data: Data) -> None:
    """Check that a graph has features and edges.

    Raises:
        UserError: it is none, or holds no tensors, or such without numbers.
    """
    for name in ("x", "edge_index"):
        value = getattr(data, name, None)
        if not isinstance(value, Tensor) or value.is_meta:
            raise UserError(f"the graph has no {name}; give a torch_geometric Data with a tensor")


def _check_edges(edge_index: Tensor, nodes: int) -> None:
    if edge_index.ndim != 2 or edge_index.shape[0] != 2 or edge_index.dtype != torch.int64:
        raise UserError(
            "edge_index should be int64 shaped (2, edges), sources above targets, got "
            f"{edge_index.dtype} {tuple(edge_index.shape)}"
        )
    if edge_index.numel() == 0:
        return
    least, most = (int(value) for value in edge_index.aminmax())
    if least < 0 or most >= nodes:
        raise UserError(
            f"edge_index names the nodes {least} to {most}, but x has {nodes} rows, "
            f"nodes 0 to {nodes - 1}; repair the edges, or give x a row for every node"
        )


def _check_edge_values(name: str, value: Any, data: Data) -> None:
    edges, dtype = data.edge_index.shape[1], data.x.dtype
    shapes = {"edge_weight": f"({edges},)", "edge_attr": f"({edges}, attributes)"}
    fits = isinstance(value, Tensor) and value.ndim in ((1,) if name == "edge_weight" else (1, 2))
    if not fits or len(value) != edges or value.dtype != dtype:
        got = (
            f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.80}"
        )
        raise UserError(
            f"{name} should be {dtype} shaped {shapes[name]}, a row for each edge, got {got}; "
            f"mend it (.flatten(), .to(x.dtype)), or leave it out: del data.{name}"
        )
    if value.numel() and not bool(value.isfinite().all()):
        edge = int((~value.isfinite()).reshape(edges, -1).any(1).nonzero()[0])
        raise UserError(f"{name} holds NaN or infinity, first at edge {edge}; drop that edge")


def is_undirected(edge_index: Int[Tensor, "2 edge"], nodes: int) -> bool:
    """Return whether every edge occurs as often in one direction as in the other."""
    source, target = edge_index
    forward, backward = (source * nodes + target).sort()[0], (target * nodes + source).sort()[0]
    return torch.equal(forward, backward)


def check_dtype_and_device(x: Tensor, module: nn.Module) -> None:
    """Check that features have the dtype and the device of a model.

    Raises:
        UserError: dtype or device differ.
    """
    like = next(module.parameters(), x)
    if (like.dtype, like.device) != (x.dtype, x.device):
        raise UserError(
            f"x is {x.dtype} on {x.device}, the model {like.dtype} on {like.device}; "
            "bring one to the other with .to()"
        )


def resolve_config(kind: type[C], config: C | None, settings: dict[str, Any], model: str) -> C:
    """Return a config that was given as such or by its fields.

    Args:
        kind: Class of the config.
        config: Config; the defaults and ``settings`` if not given.
        settings: Fields by name.
        model: Name of the model for error messages.

    Raises:
        UserError: both were given, or a setting is unknown or invalid.
    """
    if config is not None and settings:
        raise UserError(f"give {model} a config or its fields ({', '.join(settings)}), not both")
    return config or kind.parse(settings, model)


def check_sizes(config: Config, found: dict[str, int], model: str) -> None:
    """Check that a model was built for the sizes of the data.

    Args:
        config: Config of the model.
        found: Sizes of the data, by the names of the config's fields.
        model: Name of the model for the error message.

    Raises:
        UserError: a size differs.
    """
    for name, size in found.items():
        if (built := getattr(config, name)) != size:
            raise UserError(
                f"this {model} was built for {built} {name}, the graph has {size}; "
                f"build it with {name}={size}, or without {name} to let fit choose"
            )


def resolve_sizes(config: C, found: dict[str, int], model: str) -> C | None:
    """Check the sizes that a config sets, and fill in the others from the data.

    Args:
        config: Config of the model.
        found: Sizes of the data, by the names of the config's fields.
        model: Name of the model for the error message.

    Returns:
        The config to rebuild the model with; None if the config sets every size.

    Raises:
        UserError: a size that the config sets is not that of the data.
    """
    unset = found.keys() - config.model_fields_set
    check_sizes(config, {name: found[name] for name in found if name not in unset}, model)
    return config.model_copy(update=found) if unset else None


def edge_sizes(data: Data, config: Config) -> dict[str, int]:
    """Return the width of edge_attr as a size of attention; none if neither graph nor config do."""
    value = getattr(data, "edge_attr", None)
    if value is None and "edge_dim" not in config.model_fields_set:
        return {}
    return {"edge_dim": 0 if value is None else value.shape[1] if value.ndim == 2 else 1}


def fingerprint(*graphs: Data) -> str:
    """Hash all tensors of graphs."""
    digest = hashlib.sha256()
    for data in graphs:
        for name, value in sorted(data.to_dict().items()):
            if isinstance(value, Tensor):
                digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
