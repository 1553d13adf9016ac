"""Train a network layer by layer: the layers below are frozen, computed once and kept.

The input of a layer does not change while the layer is trained;
`sixfold.graphs.models.forwardgnn.frozen_input` decides which part of it is kept. No autograd graph
crosses layers.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from sixfold.core.training.update import Best, OptimizerStep
from sixfold.graphs.data.validate import Data
from sixfold.graphs.models.forwardgnn.config import ForwardGNNConfig
from sixfold.graphs.models.forwardgnn.frozen_input import FrozenInput
from sixfold.graphs.models.forwardgnn.objective import (
    Evaluation,
    Network,
    Objective,
    Outputs,
    Streams,
    summed_scores,
)
from sixfold.graphs.models.stages import Stage, StepResult, take_step


class Layerwise:
    """Base of the modes that train layer by layer: each has an objective and an evaluation."""

    layer_by_layer = True
    averages_last_heads = False

    def objective(
        self,
        network: Network,
        data: Data,
        validation: Data | None,
        generator: torch.Generator,
    ) -> Objective:
        """Return the objective of every layer."""
        raise NotImplementedError

    def evaluation(
        self, network: Network, data: Data, nodes: Bool[Tensor, " node"] | None
    ) -> Evaluation:
        """Return the evaluation of the selected nodes or labelled edges."""
        raise NotImplementedError

    def inputs(self, network: Network, data: Data) -> Streams:
        """Return the inputs of the network, with which no nodes are selected."""
        raise NotImplementedError

    def training(
        self,
        network: Network,
        data: Data,
        validation: Data | None,
        generator: torch.Generator,
    ) -> "LayerwiseTraining":
        """Return the training, see `sixfold.graphs.models.forwardgnn.modes.Procedure`."""
        return LayerwiseTraining(network, self.objective(network, data, validation, generator))

    def class_scores(
        self, network: Network, data: Data, nodes: Bool[Tensor, " node"] | None
    ) -> Tensor:
        """Return the sum of all layers' scores of the selected nodes or labelled edges."""
        return summed_scores(network.layers, self.evaluation(network, data, nodes))

    def outputs(self, network: Network, data: Data) -> list[Tensor]:
        """Return the outputs (node, width) of every layer at every node."""
        streams, found = self.inputs(network, data), []
        for conv in network.layers:
            streams, (output, *_) = streams.through(conv)
            found.append(output[: len(data.x)])
        return found

    def embed(self, network: Network, data: Data) -> Tensor:
        """Return the outputs of the last layer at every node."""
        return self.outputs(network, data)[-1]


class LayerwiseTraining:
    """Train the layers one after the other (Algorithms 1, 2 and 4).

    Args:
        network: Network to train.
        objective: Objective of every layer.
    """

    def __init__(self, network: Network, objective: Objective) -> None:
        self.layers, self.config, self.objective = network.layers, network.config, objective
        self.updates = [OptimizerStep(adam(conv, network.config)) for conv in network.layers]
        self.depth = -1  # the layer whose input is frozen
        self.train = objective.train
        self.valid = None if objective.valid is None else objective.valid.streams
        self.train_inputs: list[FrozenInput] = []
        self.valid_inputs: list[FrozenInput] = []  # empty if validation shares the training inputs
        self.scores_below: Tensor | float = 0.0  # of the frozen layers, at the validation nodes

    def objects(self) -> dict[str, Any]:
        """Return the optimisers of the layers by name."""
        return named_updates(self.updates)

    def begin_stage(self, number: int) -> Stage | None:
        """Freeze the layers below one layer, and prepare to train it."""
        if number >= len(self.layers):
            return None
        while self.depth < number:
            if self.depth >= 0:
                self._pass_on()
            self.depth += 1
            self._freeze(self.layers[self.depth])
        objective, config, conv = self.objective, self.config, self.layers[number]
        update = self.updates[number]

        def run_epoch() -> Iterator[StepResult]:
            conv.train()
            # the outputs are not named: they must be gone when the backward pass runs
            loss = objective.loss_fn([source.train_output() for source in self.train_inputs])
            yield take_step(update, loss)

        @torch.no_grad()
        def validate() -> float:
            assert objective.valid is not None
            conv.eval()
            scores = objective.valid.score_fn(self._valid_outputs())
            return objective.metric_fn(self.scores_below + scores)

        return Stage(
            module=conv,
            run_epoch=run_epoch,
            validate=None if self.valid is None else validate,
            monitor=objective.monitor,
            epochs=config.epochs,
            validate_every=config.validate_every,
            patience=config.patience,
        )

    def end_stage(self, number: int, best: Best) -> None:
        """Free the optimiser state of a finished layer."""
        self.updates[number].optimizer.state.clear()

    def _freeze(self, conv: nn.Module) -> None:
        """Convert the inputs to the form in which a layer is trained on them."""
        valid, shared = self.valid, self.objective.shares_inputs
        self.train_inputs = self.train.freeze(conv, *([valid.rows] if valid and shared else []))
        self.train = replace(self.train, inputs=[])  # the frozen inputs replace them
        if self.valid is not None and not shared:
            self.valid_inputs = self.valid.freeze(conv)
            self.valid = replace(self.valid, inputs=[])

    def _valid_outputs(self) -> Outputs:
        if self.objective.shares_inputs:
            return [source.valid_output() for source in self.train_inputs]
        return [source.train_output() for source in self.valid_inputs]

    @torch.no_grad()
    def _pass_on(self) -> None:
        """Compute the inputs of the next layer with the best weights of this one."""
        if self.valid is not None and self.objective.valid is not None:
            scores = self.objective.valid.score_fn(self._valid_outputs())
            self.scores_below = self.scores_below + scores
        sources = self.train_inputs[:1] if self.train.shared else self.train_inputs
        self.train = self.train.followed_by(_full_outputs(sources))
        if self.valid_inputs:
            self.valid = self.valid and self.valid.followed_by(_full_outputs(self.valid_inputs))
        self.train_inputs, self.valid_inputs = [], []


def _full_outputs(sources: list[FrozenInput]) -> Outputs:
    return [source.full_output().detach() for source in sources]


def named_updates(updates: list[OptimizerStep]) -> dict[str, Any]:
    """Return optimisers and updates of the layers by name."""
    named: dict[str, Any] = {}
    for number, update in enumerate(updates):
        named |= {f"optim-{number}": update.optimizer, f"update-{number}": update}
    return named


def adam(module: nn.Module, config: ForwardGNNConfig) -> torch.optim.Optimizer:
    """Make the optimiser of a module."""
    return torch.optim.Adam(
        module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
