"""Objectives of layers: inputs, loss, and validation of the network so far."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.models.forwardgnn.config import ForwardGNNConfig
from sixfold.graphs.models.forwardgnn.frozen_input import FrozenInput, Rows, activate, freeze

Outputs = list[Tensor]  # of a layer, one for each stream, at the rows of the streams


class Network(NamedTuple):
    """A network to train: layers, and features of the virtual nodes in modes that have them."""

    config: ForwardGNNConfig
    layers: list[nn.Module]
    virtual_nodes: Float[Tensor, "classes feature"] | None


@dataclass(frozen=True)
class Streams:
    """Inputs that go through a layer in parallel, each with its own labels or graph.

    Args:
        inputs: Inputs of the current layer, before normalisation.
        topologies: Graph of each stream.
        rows: Indices of the nodes whose outputs are read; none by default.
        appended: Label columns at the end of every layer's input.
        shared: Whether the output of the first stream is the next input of all streams.
    """

    inputs: list[Features]
    topologies: list[Topology]
    rows: Rows = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    appended: Float[Tensor, "node column"] | None = None
    shared: bool = False

    @torch.no_grad()
    def through(self, conv: nn.Module) -> tuple["Streams", Outputs]:
        """Return the streams after a layer, and the layer's outputs at every node."""
        pairs = zip(self.inputs, self.topologies, strict=True)
        outputs = [activate(conv, x.normalized(), topology) for x, topology in pairs]
        return self.followed_by(outputs), outputs

    def followed_by(self, outputs: Outputs) -> "Streams":
        """Return the streams that enter the next layer, from the outputs of this one."""
        passed = outputs[:1] * len(self.topologies) if self.shared else outputs
        return replace(self, inputs=[Features(x, columns=self.appended) for x in passed])

    def at_rows(self, outputs: Outputs) -> Outputs:
        """Select the nodes whose outputs are read."""
        return [x[self.rows] for x in outputs]

    def freeze(self, conv: nn.Module, *valid_rows: Rows) -> list[FrozenInput]:
        """Prepare the inputs for training a layer on ``rows`` and validating it on others."""
        pairs = zip(self.inputs, self.topologies, strict=True)
        return [freeze(conv, x, topology, [self.rows, *valid_rows]) for x, topology in pairs]


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of a network: its inputs, and the function from a layer's outputs to scores."""

    streams: Streams
    score_fn: Callable[[Outputs], Tensor]


@torch.no_grad()
def summed_scores(layers: Sequence[nn.Module], evaluation: Evaluation) -> Tensor:
    """Sum the scores of all layers."""
    streams, scores = evaluation.streams, []
    for conv in layers:
        streams, outputs = streams.through(conv)
        scores.append(evaluation.score_fn(streams.at_rows(outputs)))
    return torch.stack(scores).sum(0)


@dataclass(frozen=True)
class Objective:
    """The objective of a layer.

    Args:
        train: Training inputs.
        loss_fn: Loss of a layer's outputs.
        valid: Evaluation at a validation; None without validation.
        metric_fn: Metric of the scores summed over the layers so far.
        monitor: Name of the metric.
        shares_inputs: Whether ``valid`` has the inputs of ``train`` and reads other rows.
    """

    train: Streams
    loss_fn: Callable[[Outputs], Tensor]
    valid: Evaluation | None
    metric_fn: Callable[[Tensor], float]
    monitor: Literal["accuracy", "auc"]
    shares_inputs: bool = False
