"""The modes of ForwardGNN: one procedure for each mode of each task."""

from collections.abc import Mapping
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from sixfold.graphs.data.validate import Data
from sixfold.graphs.models.forwardgnn.backprop import LinkBackprop, NodeBackprop
from sixfold.graphs.models.forwardgnn.config import ForwardGNNConfig, Mode, Task
from sixfold.graphs.models.forwardgnn.forward_forward import (
    ForwardForwardLabels,
    ForwardForwardVirtual,
)
from sixfold.graphs.models.forwardgnn.link_prediction import (
    CROSS_ENTROPY,
    GOODNESS,
    EdgeLoss,
    LinkPrediction,
)
from sixfold.graphs.models.forwardgnn.objective import Network
from sixfold.graphs.models.forwardgnn.single_forward import SingleForward
from sixfold.graphs.models.forwardgnn.top_down import TopToInput, TopToLoss
from sixfold.graphs.models.stages import Method


@runtime_checkable
class Procedure(Protocol):
    """Training and prediction of a mode.

    Attributes:
        needs_virtual_nodes: Whether there is a virtual node for each class.
        reads_labels: Whether labels of training nodes are input of a prediction.
        layer_by_layer: Whether each layer is trained in a stage of its own.
        averages_last_heads: Whether the last GAT layer averages its heads.
    """

    needs_virtual_nodes: bool
    reads_labels: bool
    layer_by_layer: bool
    averages_last_heads: bool

    def layer_sizes(self, config: ForwardGNNConfig) -> list[tuple[int, int]]:
        """Return the numbers of input and output features of every layer."""
        ...

    def training(
        self,
        network: Network,
        data: Data,
        validation: Data | None,
        generator: torch.Generator,
    ) -> Method:
        """Return the training of a network.

        Args:
            network: Network to train.
            data: Graph to train on.
            validation: Graph to validate on; for classes ``data`` again, or None.
            generator: Generator of the wrong labels of forward-forward.
        """
        ...

    def class_scores(
        self, network: Network, data: Data, nodes: Bool[Tensor, " node"] | None
    ) -> Tensor:
        """Compute class scores (node, class) of the selected nodes, or scores of labelled edges.

        They are probabilities summed over layers (and time steps), goodness summed over layers, or
        logits.
        """
        ...

    def probabilities(self, scores: Tensor, config: ForwardGNNConfig) -> Tensor:
        """Convert class scores to probabilities."""
        ...

    def embed(self, network: Network, data: Data) -> Tensor:
        """Return embeddings (node, width) of every node: outputs of the last layer.

        Where these are the logits of a supervised network, its input is returned instead.
        """
        ...


@runtime_checkable
class LinkProcedure(Procedure, Protocol):
    """Training and prediction of links.

    Attributes:
        edge_loss: Logits of pairs, of which the outputs' probabilities are averaged.
    """

    edge_loss: EdgeLoss

    def outputs(self, network: Network, data: Data) -> list[Tensor]:
        """Return outputs (node, width) whose probabilities of a link are averaged."""
        ...


_SINGLE_FORWARD = SingleForward()
_LINKS = LinkPrediction(CROSS_ENTROPY)

MODES: Mapping[Task, Mapping[Mode, Procedure]] = {
    "node": {
        "single_forward": _SINGLE_FORWARD,
        "top_to_loss": TopToLoss(_SINGLE_FORWARD),
        "top_to_input": TopToInput(_SINGLE_FORWARD),
        "forward_forward_labels": ForwardForwardLabels(),
        "forward_forward_virtual": ForwardForwardVirtual(),
        "backprop": NodeBackprop(),
    },
    "link": {
        "single_forward": _LINKS,
        "top_to_input": TopToInput(_LINKS),
        "forward_forward": LinkPrediction(GOODNESS),
        "backprop": LinkBackprop(),
    },
}


def procedure_of(config: ForwardGNNConfig) -> Procedure:
    """Return the procedure of a config's task and mode."""
    return MODES[config.task][config.mode]


def link_procedure_of(config: ForwardGNNConfig) -> LinkProcedure:
    """Return the procedure of a mode that learns links."""
    return cast(LinkProcedure, MODES["link"][config.mode])
