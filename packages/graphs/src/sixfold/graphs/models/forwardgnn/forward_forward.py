"""Hinton's forward-forward on graphs, the baselines of ForwardGNN (section 3.1, Eq. 3 to 5).

A layer learns to put out large values for true labels and small values for false ones. FF-LA
appends the label to the features; FF-VN links the node with the virtual node of its class. A
prediction takes one forward pass for every candidate class.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional

from sixfold.graphs.data.validate import Data
from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.metrics import accuracy
from sixfold.graphs.models.forwardgnn.config import ForwardGNNConfig
from sixfold.graphs.models.forwardgnn.layerwise import Layerwise
from sixfold.graphs.models.forwardgnn.objective import (
    Evaluation,
    Network,
    Objective,
    Outputs,
    Streams,
)
from sixfold.graphs.models.forwardgnn.virtual_nodes import (
    label_columns,
    label_columns_with_virtual,
    layer_sizes_with_labels,
    linked_topology,
    wrong_classes,
)

THETA = 2.0  # threshold of the goodness, Eq. (3)
MAX_NEGATIVES = 100  # wrong classes of a node that are learned from, at most

Labels = Int[Tensor, " node"]
Mask = Bool[Tensor, " node"]
Labelling = tuple[Labels, Mask]  # labels, and the nodes whose label a layer sees


class ForwardForward(Layerwise):
    """Base of FF-LA and FF-VN: the goodness of each class is its score."""

    reads_labels = True

    def streams(
        self, network: Network, data: Data, labellings: list[Labelling], nodes: Mask, *, train: bool
    ) -> Streams:
        """Return a stream for each labelling of the nodes."""
        raise NotImplementedError

    def objective(
        self,
        network: Network,
        data: Data,
        validation: Data | None,
        generator: torch.Generator,
    ) -> Objective:
        """Return the goodness loss of true and wrong labels of the training nodes."""
        wrong = wrong_classes(data.y, network.config.classes, generator)
        labels = [data.y, *wrong[:, :MAX_NEGATIVES].unbind(1)]
        labellings = [(label, data.train_mask) for label in labels]
        train = self.streams(network, data, labellings, data.train_mask, train=True)
        valid = None
        if validation is not None:
            valid = self._evaluation(network, data, data.val_mask, data.train_mask)
        return Objective(
            train=train,
            loss_fn=goodness_loss,
            valid=valid,
            metric_fn=lambda scores: accuracy(scores, data.y[data.val_mask]),
            monitor="accuracy",
        )

    def evaluation(self, network: Network, data: Data, nodes: Mask | None) -> Evaluation:
        """Return the evaluation of nodes, given the labels of training and validation nodes."""
        assert nodes is not None
        return self._evaluation(network, data, nodes, _known(data) & ~nodes)

    def inputs(self, network: Network, data: Data) -> Streams:
        """Return the nodes with the labels of training and validation nodes, one stream."""
        known = _known(data)
        return self.streams(network, data, [(data.y, known)], known & False, train=False)

    def probabilities(self, scores: Tensor, config: ForwardGNNConfig) -> Tensor:
        """Return the softmax of the goodness."""
        return scores.softmax(1)

    def _evaluation(self, network: Network, data: Data, nodes: Mask, known: Mask) -> Evaluation:
        """Return an evaluation in which each candidate class is tried on all nodes at once.

        Args:
            network: Network.
            data: Graph.
            nodes: Mask of the nodes to classify.
            known: Mask of the nodes that keep their true label.
        """
        labellings = [
            (torch.where(nodes, label, data.y), known | nodes)
            for label in range(network.config.classes)
        ]
        streams = self.streams(network, data, labellings, nodes, train=False)
        return Evaluation(streams, class_goodness)


class ForwardForwardLabels(ForwardForward):
    """FF-LA: the label is appended to the features."""

    needs_virtual_nodes = False

    def layer_sizes(self, config: ForwardGNNConfig) -> list[tuple[int, int]]:
        """Return the numbers of input and output features of every layer."""
        return config.layer_sizes(first=config.classes)

    def streams(
        self, network: Network, data: Data, labellings: list[Labelling], nodes: Mask, *, train: bool
    ) -> Streams:
        """Return a stream for each labelling: same graph, different label columns."""
        topology = Topology.of(data)
        columns = [label_columns(y, known, network.config.classes) for y, known in labellings]
        inputs = [Features(data.x, columns=part) for part in columns]
        return Streams(inputs, [topology] * len(inputs), nodes.nonzero()[:, 0])


class ForwardForwardVirtual(ForwardForward):
    """FF-VN: the node is linked with the virtual node of its class."""

    needs_virtual_nodes = True

    def layer_sizes(self, config: ForwardGNNConfig) -> list[tuple[int, int]]:
        """Return the numbers of input and output features of every layer."""
        return layer_sizes_with_labels(config)

    def streams(
        self, network: Network, data: Data, labellings: list[Labelling], nodes: Mask, *, train: bool
    ) -> Streams:
        """Return a stream for each labelling: same features, different edges of virtual nodes."""
        config = network.config
        topologies = [
            linked_topology(data, y, known, config.classes, config.direction)
            for y, known in labellings
        ]
        columns = None
        if config.append_label != "none":  # true labels only, not those of candidate classes
            true_labels = labellings[0][1] if train else labellings[0][1] & ~nodes
            columns = label_columns_with_virtual(data.y, true_labels, config.classes)
        x = Features(data.x, network.virtual_nodes, columns)
        appended = columns if config.append_label == "all" else None
        rows = nodes.nonzero()[:, 0]
        return Streams([x] * len(labellings), topologies, rows, appended, shared=train)


def _known(data: Data) -> Mask:
    """Return the training and validation nodes that have a label."""
    valid = getattr(data, "val_mask", None)
    known = data.train_mask if valid is None else data.train_mask | valid
    return known & (data.y >= 0)


def goodness_loss(outputs: Outputs) -> Tensor:
    """Compute Eq. (3): the first stream is positive, the others negative, averaged."""
    logits = torch.stack([(x**2).sum(1) - THETA for x in outputs])
    positive = functional.softplus(-logits[0]).mean()  # cross entropy against 1
    return positive + functional.softplus(logits[1:]).mean()  # against 0


def class_goodness(outputs: Outputs) -> Tensor:
    """Return (node, class): the mean of the squares, from one stream for each candidate class."""
    return torch.stack([(x**2).mean(1) - THETA for x in outputs], 1)
