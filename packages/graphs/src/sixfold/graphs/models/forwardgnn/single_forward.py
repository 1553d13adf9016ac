"""ForwardGNN's single forward (section 3.2, Algorithm 2): each layer learns to tell the classes.

The logits of a node are its products with the virtual nodes, whose outputs the same layer makes.
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from sixfold.graphs.data.validate import Data
from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.metrics import accuracy
from sixfold.graphs.models.forwardgnn.layerwise import Evaluation, Outputs, Problem, Streams
from sixfold.graphs.models.forwardgnn.virtual_nodes import (
    class_logits,
    label_columns_with_virtual,
    linked_topology,
)


def augment(
    data: Data, virtual: Float[Tensor, "classes feature"], config: Any
) -> tuple[Features, Topology, Float[Tensor, "nodes classes"]]:
    """Add the virtual nodes to features and edges; the labels of the training nodes go in.

    Returns:
        The features, with label columns if ``append_label`` asks for them; the graph; the columns.
    """
    columns = label_columns_with_virtual(data.y, data.train_mask, config.classes)
    x = Features(data.x, virtual, columns if config.append_label != "none" else None)
    topology = linked_topology(
        data.edge_index, data.y, data.train_mask, config.classes, config.direction
    )
    return x, topology, columns


def with_virtual(mask: Bool[Tensor, " node"], classes: int) -> Tensor:
    """Return the numbers of some nodes, and then of the virtual nodes."""
    virtual = torch.arange(len(mask), len(mask) + classes, device=mask.device)
    return torch.cat([mask.nonzero()[:, 0], virtual])


def single_forward_evaluation(
    data: Data,
    virtual: Float[Tensor, "classes feature"],
    config: Any,
    nodes: Bool[Tensor, " node"],
) -> Evaluation:
    """Ask for the classes of some nodes: softmax probabilities of each layer."""
    x, topology, columns = augment(data, virtual, config)
    appended = columns if config.append_label == "all" else None
    streams = Streams([x], [topology], with_virtual(nodes, config.classes), appended)
    return Evaluation(streams, partial(_probabilities, config=config))


def single_forward_problem(
    data: Data,
    virtual: Float[Tensor, "classes feature"],
    config: Any,
    valid: Bool[Tensor, " node"] | None,
) -> Problem:
    """Learn to classify the training nodes; validate on other nodes of the same graph."""
    asked = single_forward_evaluation(data, virtual, config, data.train_mask)
    target = data.y[data.train_mask]

    def loss(outputs: Outputs) -> Tensor:
        return functional.cross_entropy(_logits(outputs, config), target)

    evaluation = None
    if valid is not None:
        rows = with_virtual(valid, config.classes)
        streams = Streams(
            asked.streams.inputs, asked.streams.topologies, rows, asked.streams.appended
        )
        evaluation = Evaluation(streams, asked.evidence)
    return Problem(
        train=asked.streams,
        loss=loss,
        valid=evaluation,
        score=lambda evidence: accuracy(evidence, data.y[valid]),
        monitor="accuracy",
        shares=True,
    )


def _logits(outputs: Outputs, config: Any) -> Tensor:
    return class_logits(outputs[0], config.classes, config.temperature)


def _probabilities(outputs: Outputs, config: Any) -> Tensor:
    return _logits(outputs, config).softmax(1)
