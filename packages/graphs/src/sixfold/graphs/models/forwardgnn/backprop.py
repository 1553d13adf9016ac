"""The baseline of ForwardGNN: the same convolutions trained by backpropagation through all layers.

ReLU between the layers, none after the last; no virtual nodes, no normalisation inside.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sixfold.core.training.update import Best, OptimizerStep
from sixfold.graphs.data.labels import labels_of
from sixfold.graphs.data.validate import Data
from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import Topology, convolve, has_fast_path
from sixfold.graphs.losses import class_weights, node_loss
from sixfold.graphs.metrics import accuracy, roc_auc
from sixfold.graphs.models.forwardgnn.config import ForwardGNNConfig
from sixfold.graphs.models.forwardgnn.layerwise import adam
from sixfold.graphs.models.forwardgnn.link_prediction import (
    CROSS_ENTROPY,
    cross_entropy,
    dot_product_logits,
)
from sixfold.graphs.models.forwardgnn.objective import Network
from sixfold.graphs.models.stages import Stage, StepResult, take_step
from sixfold.graphs.models.targets import probabilities


class NodeBackprop:
    """Train all layers on the training nodes; the last layer puts out the logits, or numbers.

    Classes are validated by their accuracy, other targets by their loss.
    """

    needs_virtual_nodes = False
    reads_labels = False
    layer_by_layer = False
    averages_last_heads = True

    def layer_sizes(self, config: ForwardGNNConfig) -> list[tuple[int, int]]:
        """Return the numbers of input and output features of every layer."""
        *sizes, (read, _) = config.layer_sizes()
        return [*sizes, (read, config.classes)]

    def training(
        self,
        network: Network,
        data: Data,
        validation: Data | None,
        generator: torch.Generator,
    ) -> "BackpropTraining":
        """Return the training, see `sixfold.graphs.models.forwardgnn.modes.Procedure`."""

        config, target = network.config, network.config.target
        y = labels_of(data, target)
        weight = class_weights(config.class_weight, y[data.train_mask], config.classes, data.x)

        def loss_fn(out: Tensor) -> Tensor:
            return node_loss(out[data.train_mask], y[data.train_mask], target, weight)

        def metric_fn(out: Tensor, valid: Data) -> float:
            out, known = out[valid.val_mask], y[valid.val_mask]
            return (
                accuracy(out, known)
                if target == "multiclass"
                else float(node_loss(out, known, target))
            )

        monitor = "accuracy" if target == "multiclass" else "loss"
        return BackpropTraining(network, data, validation, loss_fn, metric_fn, monitor)

    @torch.no_grad()
    def class_scores(
        self, network: Network, data: Data, nodes: Bool[Tensor, " node"] | None
    ) -> Tensor:
        """Return the logits of the selected nodes."""
        out = forward_all(network.layers, data.x, Topology.of(data))
        return out[nodes]

    @torch.no_grad()
    def embed(self, network: Network, data: Data) -> Tensor:
        """Return the input of the last layer, which puts out the logits."""
        return hidden(network.layers, data.x, Topology.of(data))

    def probabilities(self, scores: Tensor, config: ForwardGNNConfig) -> Tensor:
        """Return the softmax of the logits, or the sigmoid of each label's."""
        return probabilities(scores, config.target)


class LinkBackprop:
    """Train all layers to recognise edges by the dot product of their nodes."""

    edge_loss = CROSS_ENTROPY
    needs_virtual_nodes = False
    reads_labels = False
    layer_by_layer = False
    averages_last_heads = True

    def layer_sizes(self, config: ForwardGNNConfig) -> list[tuple[int, int]]:
        """Return the numbers of input and output features of every layer."""
        return config.layer_sizes()

    def training(
        self,
        network: Network,
        data: Data,
        validation: Data | None,
        generator: torch.Generator,
    ) -> "BackpropTraining":
        """Return the training, see `sixfold.graphs.models.forwardgnn.modes.Procedure`."""
        labels = data.edge_label.float()

        def loss_fn(out: Tensor) -> Tensor:
            return cross_entropy(dot_product_logits(out, data.edge_label_index), labels)

        def metric_fn(out: Tensor, valid: Data) -> float:
            return roc_auc(dot_product_logits(out, valid.edge_label_index), valid.edge_label)

        return BackpropTraining(network, data, validation, loss_fn, metric_fn, "auc")

    @torch.no_grad()
    def class_scores(
        self, network: Network, data: Data, nodes: Bool[Tensor, " node"] | None
    ) -> Tensor:
        """Return the logits of the labelled edges; ``nodes`` is not used."""
        out = forward_all(network.layers, data.x, Topology.of(data))
        return dot_product_logits(out, data.edge_label_index)

    @torch.no_grad()
    def outputs(self, network: Network, data: Data) -> list[Tensor]:
        """Return the output of the last layer at every node."""
        return [forward_all(network.layers, data.x, Topology.of(data))]

    def embed(self, network: Network, data: Data) -> Tensor:
        """Return the output of the last layer at every node."""
        return self.outputs(network, data)[0]

    def probabilities(self, scores: Tensor, config: ForwardGNNConfig) -> Tensor:
        """Return the sigmoid of the logits."""
        return scores.sigmoid()


def forward_all(
    layers: Sequence[nn.Module],
    features: Float[Tensor, "node feature"] | Features,
    topology: Topology,
) -> Float[Tensor, "node out"]:
    """Apply all layers."""
    return convolve(layers[-1], hidden(layers, features, topology), topology)


def hidden(layers: Sequence[nn.Module], features: Any, topology: Topology) -> Any:
    """Apply all layers but the last one."""
    x = features
    for conv in layers[:-1]:
        x = convolve(conv, x, topology)
        x = x.relu_() if has_fast_path(conv) else x.relu()
    return x


class BackpropTraining:
    """Train all layers at once, in a single stage.

    Args:
        network: Network to train.
        data: Training graph.
        validation: Validation graph, which may be the training graph; None without validation.
        loss_fn: Loss of the last layer's output.
        metric_fn: Metric of the last layer's output on the validation graph.
        monitor: Name of the metric.
    """

    def __init__(
        self,
        network: Network,
        data: Data,
        validation: Data | None,
        loss_fn: Callable[[Tensor], Tensor],
        metric_fn: Callable[[Tensor, Data], float],
        monitor: Literal["accuracy", "auc", "loss"],
    ) -> None:
        self.module, self.config = nn.ModuleList(network.layers), network.config
        self.update = OptimizerStep(adam(self.module, network.config))
        self.data, self.x = data, Features(data.x)
        self.topology = Topology.of(data)
        self.loss_fn, self.metric_fn = loss_fn, metric_fn
        self.monitor: Literal["accuracy", "auc", "loss"] = monitor
        self.validate = self._validation(validation)

    def objects(self) -> dict[str, Any]:
        """Return the optimiser by name."""
        return {"optim": self.update.optimizer, "update": self.update}

    def begin_stage(self, number: int) -> Stage | None:
        """Prepare the only stage."""
        if number > 0:
            return None
        return Stage(
            module=self.module,
            run_epoch=self._run_epoch,
            validate=self.validate,
            monitor=self.monitor,
            epochs=self.config.epochs,
            validate_every=self.config.validate_every,
            patience=self.config.patience,
        )

    def end_stage(self, number: int, best: Best) -> None:
        """Do nothing: there is only one stage."""

    def _run_epoch(self) -> Iterator[StepResult]:
        out = forward_all(list(self.module), self.x, self.topology)
        yield take_step(self.update, self.loss_fn(out))

    def _validation(self, validation: Data | None) -> Callable[[], float] | None:
        if validation is None:
            return None
        same = _has_same_edges(validation, self.data)
        topology = self.topology if same else Topology.of(validation)
        x = self.x if validation.x is self.data.x else Features(validation.x)

        @torch.no_grad()
        def validate() -> float:
            return self.metric_fn(forward_all(list(self.module), x, topology), validation)

        return validate


def _has_same_edges(one: Data, other: Data) -> bool:
    names = ("edge_index", "edge_weight", "edge_attr")
    pairs = [(getattr(one, name, None), getattr(other, name, None)) for name in names]
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)
