"""A virtual node for each class, linked with the nodes of known label (section 3.1).

Virtual nodes come after the real ones: with N nodes, that of class c is node N + c.
"""

from typing import no_type_check

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from sixfold.graphs.data.validate import Data
from sixfold.graphs.layers.features import without_autocast
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.models.forwardgnn.config import Direction, ForwardGNNConfig


def layer_sizes_with_labels(config: ForwardGNNConfig) -> list[tuple[int, int]]:
    """Return the sizes of layers that read label columns where ``append_label`` puts them."""
    columns = {"none": (0, 0), "input": (1, 0), "all": (1, 1)}[config.append_label]
    first, later = (count * config.classes for count in columns)
    return config.layer_sizes(first=first, later=later)


def links(
    y: Int[Tensor, " node"], known: Bool[Tensor, " node"], direction: Direction
) -> list[Int[Tensor, "2 known"]]:
    """Return the edges between nodes and the virtual nodes of their classes.

    First come all edges to the virtual nodes, then all edges back, in the order of the nodes.

    Args:
        y: Class labels.
        known: Mask of the nodes to link.
        direction: Direction of the edges; ``unidirection`` leaves out the edges back.
    """
    real = known.nonzero()[:, 0]
    to_virtual = torch.stack([real, len(y) + y[real]])
    return [to_virtual, to_virtual.flip(0)] if direction == "bidirection" else [to_virtual]


def linked_topology(
    data: Data,
    y: Int[Tensor, " node"],
    known: Bool[Tensor, " node"],
    classes: int,
    direction: Direction,
) -> Topology:
    """Return the graph with virtual nodes; their edges come last, and weigh one."""
    pieces, weight = links(y, known, direction), getattr(data, "edge_weight", None)
    if weight is not None:
        weight = torch.cat([weight, weight.new_ones(sum(piece.shape[1] for piece in pieces))])
    return Topology([data.edge_index, *pieces], len(y) + classes, weight)


def label_columns(
    y: Int[Tensor, " node"], known: Bool[Tensor, " node"], classes: int
) -> Float[Tensor, "node classes"]:
    """Return label columns for the features: one-hot where the label is known, else uniform."""
    columns = torch.full((len(y), classes), 1 / classes, device=y.device)
    columns[known] = functional.one_hot(y[known], classes).float()
    return columns


def label_columns_with_virtual(
    y: Int[Tensor, " node"], known: Bool[Tensor, " node"], classes: int
) -> Float[Tensor, "nodes classes"]:
    """Return `label_columns` followed by those of the virtual nodes: their own classes."""
    virtual = torch.eye(classes, device=y.device)
    return torch.cat([label_columns(y, known, classes), virtual])


def class_logits(
    h: Float[Tensor, "nodes feature"], classes: int, temperature: float
) -> Float[Tensor, "node classes"]:
    """Return dot products of nodes with the virtual nodes of all classes, the last rows."""
    return _ClassLogits.apply(h, classes) / temperature


@no_type_check  # a compiler cannot trace a checked setup_context
class _ClassLogits(Function):
    """The products, with a gradient written into one tensor, where slices would take three."""

    @staticmethod
    def forward(h, classes):
        with without_autocast(h):
            return h[:-classes] @ h[-classes:].T

    @staticmethod
    def setup_context(ctx, inputs, output):
        h, ctx.classes = inputs
        ctx.save_for_backward(h)

    @staticmethod
    def backward(ctx, grad):
        (h,), classes = ctx.saved_tensors, ctx.classes
        out = torch.empty_like(h)
        with without_autocast(h):
            torch.mm(grad, h[-classes:], out=out[:-classes])
            torch.mm(grad.T, h[:-classes], out=out[-classes:])
        return out, None


def wrong_classes(
    y: Int[Tensor, " node"], classes: int, generator: torch.Generator
) -> Int[Tensor, "node wrong"]:
    """Draw, for each node, a random order of its wrong classes."""
    order = torch.rand(len(y), classes, generator=generator).to(y.device)
    order[torch.arange(len(y), device=y.device), y.clamp(min=0)] = 2.0  # sorts last
    return order.argsort(1)[:, : classes - 1]
