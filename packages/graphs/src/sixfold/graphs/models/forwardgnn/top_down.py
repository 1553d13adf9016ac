"""ForwardGNN with signals from above (section 3.3, Algorithm 3; Eq. 7 and 8).

All layers are trained in turn, again and again. State l is the input of layer l and state l + 1 its
output; between the turns of two layers a state is a plain tensor, so no graph crosses layers.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sixfold.core.training.update import Best, OptimizerStep
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.models.forwardgnn.frozen_input import activate
from sixfold.graphs.models.forwardgnn.layerwise import Evaluation, Problem, adam
from sixfold.graphs.models.stages import Loss, Stage, take_step

TEST_STEPS = 10  # without learning, before a prediction
STORED_STEPS = range(2, 10)  # of these, the ones whose answers count

States = list[Tensor]
Top = Float[Tensor, "node classes"] | None  # the state above the last layer: labels, or nothing


class TopDown:
    """Train all layers in time steps, each with what it is told from above.

    Args:
        layers: Convolutions.
        problem: What each is trained for.
        config: `sixfold.graphs.models.forwardgnn.estimator.ForwardGNNConfig`; its mode is
            top_to_input or top_to_loss.
        top: Label columns of the nodes for top_to_input on classes.
    """

    def __init__(
        self, layers: Sequence[nn.Module], problem: Problem, config: Any, top: Top = None
    ) -> None:
        self.layers, self.problem, self.config, self.top = list(layers), problem, config, top
        to_loss = config.mode == "top_to_loss"
        self.updates = [
            OptimizerStep(adam(conv, config), 1.0 if to_loss else None) for conv in layers
        ]
        self.time_step = self._to_loss if to_loss else self._to_input
        self.x, self.topology = problem.train.inputs[0].dense(), problem.train.topologies[0]
        if to_loss:
            self.states = loss_states(self.layers, self.x, self.topology)
        else:
            self.states = input_states(self.layers, config, self.x, self.topology, top)

    def objects(self) -> dict[str, Any]:
        """Name the optimisers and the states."""
        named: dict[str, Any] = {"states": self}
        for number, update in enumerate(self.updates):
            named |= {f"optim-{number}": update.optimizer, f"update-{number}": update}
        return named

    def state_dict(self) -> dict[str, States]:
        """Return the states."""
        return {"states": self.states}

    def load_state_dict(self, state: dict[str, States]) -> None:
        """Take them back."""
        self.states = state["states"]

    def open(self, number: int) -> Stage | None:
        """Prepare the only stage."""
        if number > 0:
            return None
        config, problem = self.config, self.problem

        def validate() -> float:
            assert problem.valid is not None
            evidence = top_down_evidence(self.layers, problem.valid, config, self.top)
            return problem.score(evidence)

        return Stage(
            module=nn.ModuleList(self.layers),
            step=self.time_step,
            validate=None if problem.valid is None else validate,
            monitor=problem.monitor,
            epochs=config.epochs,
            validate_every=config.validate_every,
            patience=config.patience,
        )

    def close(self, number: int, best: Best) -> None:
        """Nothing is left to do."""

    def _to_loss(self) -> Iterator[Loss]:
        """Eq. (8): a layer's loss is that of the mean of its output and those above it."""
        rows, old, new = self.problem.train.rows, self.states, [self.states[0]]
        for number, conv in enumerate(self.layers):
            output = activate(conv, old[number], self.topology)
            mean = _mean_with_above(output[rows], old, number, rows)
            new.append(row_norm(output.detach()))
            yield take_step(self.updates[number], self.problem.loss([mean]))
        self.states = new

    def _to_input(self) -> Iterator[Loss]:
        """Eq. (7): a layer reads the state above its output too."""
        states, alternating = list(self.states), self.config.alternating
        for number in _order(len(self.layers), alternating):
            seen = states if alternating else self.states
            output = activate(self.layers[number], _seen(seen, number), self.topology)
            states[number + 1] = output.detach()
            loss = self.problem.loss([output[self.problem.train.rows]])
            yield take_step(self.updates[number], loss)
        self.states = states


@torch.no_grad()
def input_states(
    layers: Sequence[nn.Module],
    config: Any,
    x: Float[Tensor, "node feature"],
    topology: Topology,
    top: Top,
) -> States:
    """Fill the states from below, with zeros for what is above, not normalised."""
    states = [x]
    for conv, (width, _) in zip(layers, config.sizes(), strict=True):
        below = row_norm(states[-1])
        above = below.new_zeros(len(below), width - below.shape[1])
        states.append(activate(conv, torch.cat([below, above], 1), topology))
    return states if top is None else [*states, top]


@torch.no_grad()
def loss_states(
    layers: Sequence[nn.Module], x: Float[Tensor, "node feature"], topology: Topology
) -> States:
    """Fill the states from below, normalised.

    What is passed upward here is not normalised, although the layers are trained on what is: so the
    official code does it.
    """
    states = [row_norm(x)]
    for conv in layers:
        x = activate(conv, x, topology)
        states.append(row_norm(x))
    return states


@torch.no_grad()
def top_down_evidence(
    layers: Sequence[nn.Module], evaluation: Evaluation, config: Any, top: Top = None
) -> Tensor:
    """Sum what the layers say, after filling the states from below."""
    x, topology = evaluation.streams.inputs[0].dense(), evaluation.streams.topologies[0]
    rows, parts = evaluation.streams.rows, []
    if config.mode == "top_to_loss":
        states = loss_states(layers, x, topology)
        for number, conv in enumerate(layers):
            output = activate(conv, states[number], topology)[rows]
            mean = _mean_with_above(output, states, number, rows)
            parts.append(evaluation.evidence([mean]))
        return torch.stack(parts).sum(0)
    states = input_states(layers, config, x, topology, top)
    for time in range(TEST_STEPS):
        old = list(states)
        for number in _order(len(layers), config.alternating):
            seen = _seen(states if config.alternating else old, number)
            states[number + 1] = activate(layers[number], seen, topology)
            if time in STORED_STEPS:
                parts.append(evaluation.evidence([states[number + 1][rows]]))
    return torch.stack(parts).sum(0)


def row_norm(x: Float[Tensor, "node feature"]) -> Float[Tensor, "node feature"]:
    """Divide each row by its length; zeros stay zeros."""
    return x / (x.norm(dim=1, keepdim=True) + 1e-8)


def answers(config: Any) -> int:
    """Return of how many answers `top_down_evidence` is the sum."""
    return config.layers * (1 if config.mode == "top_to_loss" else len(STORED_STEPS))


def _order(layers: int, alternating: bool) -> list[int]:
    """Even layers, then odd ones, which then see what the even ones have just put out."""
    numbers = list(range(layers))
    return numbers[::2] + numbers[1::2] if alternating else numbers


def _seen(states: States, number: int) -> Tensor:
    return torch.cat([row_norm(state) for state in states[number : number + 3 : 2]], 1)


def _mean_with_above(output: Tensor, states: States, number: int, rows: Tensor) -> Tensor:
    return torch.stack([output, *(state[rows] for state in states[number + 2 :])]).mean(0)
