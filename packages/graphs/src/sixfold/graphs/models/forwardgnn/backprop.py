"""The baseline of ForwardGNN: the same convolutions trained by backpropagation through all layers.

ReLU between the layers, none after the last; no virtual nodes, no normalisation inside.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core.training.update import Best, OptimizerStep
from sixfold.graphs.data.validate import Data
from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import Topology, convolve, is_whole
from sixfold.graphs.metrics import accuracy, roc_auc
from sixfold.graphs.models.forwardgnn.layerwise import adam
from sixfold.graphs.models.forwardgnn.link_prediction import edge_loss, edge_scores
from sixfold.graphs.models.stages import Loss, Stage, take_step


def forward_all(
    layers: Sequence[nn.Module],
    features: Float[Tensor, "node feature"] | Features,
    topology: Topology,
) -> Float[Tensor, "node out"]:
    """Apply all layers."""
    x: Any = features
    for conv in layers[:-1]:
        x = convolve(conv, x, topology)
        x = x.relu_() if is_whole(conv) else x.relu()
    return convolve(layers[-1], x, topology)


class Backprop:
    """Train all layers at once.

    Args:
        layers: Convolutions.
        config: `sixfold.graphs.models.forwardgnn.estimator.ForwardGNNConfig`.
        data: With a training mask, or with labelled edges.
        validation: For links, the graph with the edges to validate on; for classes, ``data`` again
            if it has a validation mask.
    """

    def __init__(
        self, layers: Sequence[nn.Module], config: Any, data: Data, validation: Data | None
    ) -> None:
        self.module, self.config = nn.ModuleList(layers), config
        self.update = OptimizerStep(adam(self.module, config))
        self.x = Features(data.x)
        self.data, self.topology = data, Topology(data.edge_index, len(data.x))
        self.validate = self._validation(validation)

    def objects(self) -> dict[str, Any]:
        """Name the optimiser."""
        return {"optim": self.update.optimizer, "update": self.update}

    def open(self, number: int) -> Stage | None:
        """Prepare the only stage."""
        if number > 0:
            return None
        return Stage(
            module=self.module,
            step=self._step,
            validate=self.validate,
            monitor="auc" if self.config.task == "link" else "accuracy",
            epochs=self.config.epochs,
            validate_every=self.config.validate_every,
            patience=self.config.patience,
        )

    def close(self, number: int, best: Best) -> None:
        """Nothing is left to do."""

    def _step(self) -> Iterator[Loss]:
        data = self.data
        out = forward_all(list(self.module), self.x, self.topology)
        if self.config.task == "link":
            scores = edge_scores(out, data.edge_label_index, "cross_entropy")
            loss = edge_loss(scores, data.edge_label.float(), "cross_entropy")
        else:
            loss = functional.cross_entropy(out[data.train_mask], data.y[data.train_mask])
        yield take_step(self.update, loss)

    def _validation(self, validation: Data | None) -> Callable[[], float] | None:
        if validation is None:
            return None
        same = torch.equal(validation.edge_index, self.data.edge_index)
        topology = self.topology if same else Topology(validation.edge_index, len(validation.x))
        x = self.x if validation.x is self.data.x else Features(validation.x)

        @torch.no_grad()
        def validate() -> float:
            out = forward_all(list(self.module), x, topology)
            if self.config.task == "link":
                scores = edge_scores(out, validation.edge_label_index, "cross_entropy")
                return roc_auc(scores, validation.edge_label)
            return accuracy(out[validation.val_mask], validation.y[validation.val_mask])

        return validate
