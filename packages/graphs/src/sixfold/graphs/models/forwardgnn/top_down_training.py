"""Training with top-down signals: all layers at once, in time steps, in a single stage."""

from typing import Any

from torch import Tensor, nn

from sixfold.core.training.update import Best, OptimizerStep
from sixfold.graphs.models.forwardgnn.layerwise import adam, named_updates
from sixfold.graphs.models.forwardgnn.objective import Network, Objective
from sixfold.graphs.models.stages import Stage


class TopDownTraining:
    """Train all layers in time steps, in a single stage.

    Args:
        procedure: Time step, initial states and summed scores: a class of
            `sixfold.graphs.models.forwardgnn.top_down`.
        network: Network to train.
        objective: Objective of every layer.
        top: State above the last layer.
        max_norm: Maximum norm of the gradients; unlimited if None.
    """

    def __init__(
        self,
        procedure: Any,
        network: Network,
        objective: Objective,
        top: Tensor | None,
        max_norm: float | None,
    ) -> None:
        self.procedure, self.network, self.objective, self.top = procedure, network, objective, top
        self.updates = [
            OptimizerStep(adam(conv, network.config), max_norm) for conv in network.layers
        ]
        self.topology = objective.train.topologies[0]
        x = objective.train.inputs[0].dense()
        self.states = procedure.initial_states(network, x, self.topology, top)

    def objects(self) -> dict[str, Any]:
        """Return the optimisers and the states by name."""
        return {"states": self} | named_updates(self.updates)

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Return the states."""
        return {"states": self.states}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Restore the states."""
        self.states = state["states"]

    def begin_stage(self, number: int) -> Stage | None:
        """Prepare the only stage."""
        if number > 0:
            return None
        config, objective = self.network.config, self.objective

        def validate() -> float:
            assert objective.valid is not None
            scores = self.procedure.summed_scores(self.network, objective.valid, self.top)
            return objective.metric_fn(scores)

        return Stage(
            module=nn.ModuleList(self.network.layers),
            run_epoch=lambda: self.procedure.time_step(self),
            validate=None if objective.valid is None else validate,
            monitor=objective.monitor,
            epochs=config.epochs,
            validate_every=config.validate_every,
            patience=config.patience,
        )

    def end_stage(self, number: int, best: Best) -> None:
        """Do nothing: there is only one stage."""
