"""Single forward (section 3.2, Algorithm 2): each layer learns to classify nodes by itself.

The logits of a node are the dot products of its output with the outputs of the virtual nodes, which
the same layer computes.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sixfold.graphs.data.validate import Data
from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.losses import class_weights, node_loss
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
    class_logits,
    label_columns_with_virtual,
    layer_sizes_with_labels,
    linked_topology,
)


class SingleForward(Layerwise):
    """Train each layer to classify the training nodes; softmax probabilities are its scores."""

    needs_virtual_nodes = True
    reads_labels = True

    def layer_sizes(self, config: ForwardGNNConfig) -> list[tuple[int, int]]:
        """Return the numbers of input and output features of every layer."""
        return layer_sizes_with_labels(config)

    def objective(
        self,
        network: Network,
        data: Data,
        validation: Data | None,
        generator: torch.Generator,
    ) -> Objective:
        """Return the cross entropy of the training nodes."""
        config, target = network.config, data.y[data.train_mask]
        weight = class_weights(config.class_weight, target, config.classes, data.x)
        evaluation = self.evaluation(network, data, data.train_mask)

        def loss_fn(outputs: Outputs) -> Tensor:
            logits = class_logits(outputs[0], config.classes, config.temperature)
            return node_loss(logits, target, class_weight=weight)

        valid, train = None, evaluation.streams
        if validation is not None:
            rows = _with_virtual_rows(data.val_mask, config.classes)
            streams = Streams(train.inputs, train.topologies, rows, train.appended)
            valid = Evaluation(streams, evaluation.score_fn)
        return Objective(
            train=train,
            loss_fn=loss_fn,
            valid=valid,
            metric_fn=lambda scores: accuracy(scores, data.y[data.val_mask]),
            monitor="accuracy",
            shares_inputs=True,
        )

    def evaluation(
        self, network: Network, data: Data, nodes: Bool[Tensor, " node"] | None
    ) -> Evaluation:
        """Return the evaluation of the selected nodes."""
        config = network.config
        assert nodes is not None

        def probabilities(outputs: Outputs) -> Tensor:
            return class_logits(outputs[0], config.classes, config.temperature).softmax(1)

        rows = _with_virtual_rows(nodes, config.classes)
        return Evaluation(replace(self.inputs(network, data), rows=rows), probabilities)

    def inputs(self, network: Network, data: Data) -> Streams:
        """Return nodes and virtual nodes, linked by the labels of the training nodes."""
        assert network.virtual_nodes is not None
        x, topology, columns = augment(data, network.virtual_nodes, network.config)
        appended = columns if network.config.append_label == "all" else None
        return Streams([x], [topology], appended=appended)

    def probabilities(self, scores: Tensor, config: ForwardGNNConfig) -> Tensor:
        """Average the layers' probabilities."""
        return scores / config.layers


def augment(
    data: Data, virtual_nodes: Float[Tensor, "classes feature"], config: ForwardGNNConfig
) -> tuple[Features, Topology, Float[Tensor, "nodes classes"]]:
    """Add the virtual nodes to features and edges, with the labels of the training nodes.

    Returns:
        The features, with label columns if ``append_label`` is set; the graph; the label columns.
    """
    columns = label_columns_with_virtual(data.y, data.train_mask, config.classes)
    x = Features(data.x, virtual_nodes, columns if config.append_label != "none" else None)
    topology = linked_topology(data, data.y, data.train_mask, config.classes, config.direction)
    return x, topology, columns


def _with_virtual_rows(mask: Bool[Tensor, " node"], classes: int) -> Tensor:
    """Return the row numbers of masked nodes, followed by those of the virtual nodes."""
    virtual = torch.arange(len(mask), len(mask) + classes, device=mask.device)
    return torch.cat([mask.nonzero()[:, 0], virtual])
