"""Hinton's forward-forward on graphs, the baselines of ForwardGNN (section 3.1, Eq. 3 to 5).

A layer learns to answer true labels with large outputs and false ones with small ones. FF-LA
appends the label to the features; FF-VN links the node with its class's virtual node. A prediction
takes one pass for every candidate class.
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from sixfold.graphs.data.validate import Data
from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.metrics import accuracy
from sixfold.graphs.models.forwardgnn.layerwise import Evaluation, Outputs, Problem, Streams
from sixfold.graphs.models.forwardgnn.virtual_nodes import (
    label_columns,
    label_columns_with_virtual,
    linked_topology,
)

THETA = 2.0  # of the goodness, Eq. (3)
NEGATIVES = 100  # wrong classes of a node that are learnt from, at most

Labels = Int[Tensor, " node"]
Mask = Bool[Tensor, " node"]


def goodness_loss(outputs: Outputs) -> Tensor:
    """Eq. (3): the first stream is positive, the others negative, averaged."""
    logits = torch.stack([(x**2).sum(1) - THETA for x in outputs])
    positive = functional.softplus(-logits[0]).mean()  # cross entropy against 1
    return positive + functional.softplus(logits[1:]).mean()  # against 0


def _goodness(outputs: Outputs) -> Tensor:
    """Return (node, class): the mean of the squares, one stream for each candidate class."""
    return torch.stack([(x**2).mean(1) - THETA for x in outputs], 1)


def forward_forward_evaluation(
    data: Data,
    virtual: Float[Tensor, "classes feature"] | None,
    config: Any,
    nodes: Mask,
    known: Mask,
) -> Evaluation:
    """Ask for the classes of some nodes.

    Args:
        data: The graph.
        virtual: Features of the virtual nodes; None for FF-LA.
        config: `sixfold.graphs.models.forwardgnn.estimator.ForwardGNNConfig`.
        nodes: What is asked for; each candidate class is tried on all of them at once.
        known: Nodes that keep their true label.
    """
    candidates = [
        (torch.where(nodes, label, data.y), known | nodes) for label in range(config.classes)
    ]
    streams = _streams(data, virtual, config, candidates, nodes)
    return Evaluation(streams, _goodness)


def forward_forward_problem(
    data: Data,
    virtual: Float[Tensor, "classes feature"] | None,
    config: Any,
    valid: Mask | None,
    wrong: Int[Tensor, "node wrong"],
) -> Problem:
    """Learn to tell true labels of the training nodes from wrong ones.

    Args:
        data: The graph.
        virtual: Features of the virtual nodes; None for FF-LA.
        config: `sixfold.graphs.models.forwardgnn.estimator.ForwardGNNConfig`.
        valid: Nodes to validate on.
        wrong: Of each node the classes that it is not of, in the order of their use.
    """
    labels = [data.y, *wrong[:, :NEGATIVES].unbind(1)]
    labelled = [(label, data.train_mask) for label in labels]
    train = _streams(data, virtual, config, labelled, data.train_mask, shared=virtual is not None)
    evaluation = None
    if valid is not None:
        evaluation = forward_forward_evaluation(data, virtual, config, valid, data.train_mask)
    return Problem(
        train=train,
        loss=goodness_loss,
        valid=evaluation,
        score=lambda evidence: accuracy(evidence, data.y[valid]),
        monitor="accuracy",
    )


def _streams(
    data: Data,
    virtual: Tensor | None,
    config: Any,
    labelled: list[tuple[Labels, Mask]],
    nodes: Mask,
    shared: bool = False,
) -> Streams:
    """Return a stream for each way of labelling the nodes."""
    rows = nodes.nonzero()[:, 0]
    if virtual is None:
        topology = Topology(data.edge_index, len(data.y))
        appended = [label_columns(y, known, config.classes) for y, known in labelled]
        inputs = [Features(data.x, columns=columns) for columns in appended]
        return Streams(inputs, [topology] * len(inputs), rows)
    link = partial(linked_topology, classes=config.classes, direction=config.direction)
    topologies = [link(data.edge_index, y, known) for y, known in labelled]
    columns = None
    if config.append_label != "none":  # of the nodes whose label is known for sure
        sure = labelled[0][1] if shared else labelled[0][1] & ~nodes
        columns = label_columns_with_virtual(data.y, sure, config.classes)
    x = Features(data.x, virtual, columns)
    appended = columns if config.append_label == "all" else None
    return Streams([x] * len(labelled), topologies, rows, appended, shared)
