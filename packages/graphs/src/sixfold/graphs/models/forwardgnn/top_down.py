"""ForwardGNN with top-down signals (section 3.3, Algorithm 3; Eq. 7 and 8).

In every time step each layer is trained once. State l is the input of layer l and state l + 1 its
output; between the updates of two layers a state is a tensor without gradient, so that no autograd
graph crosses layers.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sixfold.graphs.data.validate import Data
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.models.forwardgnn.config import ForwardGNNConfig
from sixfold.graphs.models.forwardgnn.frozen_input import activate
from sixfold.graphs.models.forwardgnn.link_prediction import LinkPrediction
from sixfold.graphs.models.forwardgnn.objective import Evaluation, Network, Streams
from sixfold.graphs.models.forwardgnn.single_forward import SingleForward
from sixfold.graphs.models.forwardgnn.top_down_training import TopDownTraining
from sixfold.graphs.models.forwardgnn.virtual_nodes import label_columns_with_virtual
from sixfold.graphs.models.stages import StepResult, take_step

TEST_STEPS = 10  # time steps without learning, before a prediction
STORED_STEPS = range(2, 10)  # the time steps among these whose scores count

States = list[Tensor]
Top = Float[Tensor, "node classes"] | None  # the state above the last layer: labels, or nothing


class TopToLoss:
    """Eq. (8): a layer's loss is that of the mean of its output and the states above it.

    Args:
        base: Mode with the same objective that trains layer by layer.
    """

    layer_by_layer = False
    averages_last_heads = False

    def __init__(self, base: SingleForward) -> None:
        self.base = base
        self.needs_virtual_nodes, self.reads_labels = base.needs_virtual_nodes, base.reads_labels

    def layer_sizes(self, config: ForwardGNNConfig) -> list[tuple[int, int]]:
        """Return the numbers of input and output features of every layer."""
        return self.base.layer_sizes(config)

    def training(
        self,
        network: Network,
        data: Data,
        validation: Data | None,
        generator: torch.Generator,
    ) -> TopDownTraining:
        """Return the training, see `sixfold.graphs.models.forwardgnn.modes.Procedure`."""
        objective = self.base.objective(network, data, validation, generator)
        return TopDownTraining(self, network, objective, None, max_norm=1.0)

    def class_scores(
        self, network: Network, data: Data, nodes: Bool[Tensor, " node"] | None
    ) -> Tensor:
        """Return the sum of all layers' scores of the selected nodes."""
        return self.summed_scores(network, self.base.evaluation(network, data, nodes), None)

    def probabilities(self, scores: Tensor, config: ForwardGNNConfig) -> Tensor:
        """Average the layers' probabilities."""
        return scores / config.layers

    @torch.no_grad()
    def initial_states(
        self, network: Network, x: Float[Tensor, "node feature"], topology: Topology, top: Top
    ) -> States:
        """Fill the states from below, normalised.

        A layer here reads the output below it as it is, although the layers are trained on
        normalised states: so the official code does it.
        """
        states = [row_norm(x)]
        for conv in network.layers:
            x = activate(conv, x, topology)
            states.append(row_norm(x))
        return states

    def time_step(self, training: TopDownTraining) -> Iterator[StepResult]:
        """Update every layer once, each on the states of the step before."""
        objective, old = training.objective, training.states
        new, rows = [old[0]], objective.train.rows
        for number, conv in enumerate(training.network.layers):
            output = activate(conv, old[number], training.topology)
            mean = _mean_with_above(output[rows], old, number, rows)
            new.append(row_norm(output.detach()))
            yield take_step(training.updates[number], objective.loss_fn([mean]))
        training.states = new

    @torch.no_grad()
    def embed(self, network: Network, data: Data) -> Tensor:
        """Return the outputs of the last layer, after filling the states from below."""
        streams = self.base.inputs(network, data)
        x, topology = streams.inputs[0].dense(), streams.topologies[0]
        below = self.initial_states(network, x, topology, None)[-2]
        return activate(network.layers[-1], below, topology)[: len(data.x)]

    @torch.no_grad()
    def summed_scores(self, network: Network, evaluation: Evaluation, top: Top) -> Tensor:
        """Sum the scores of all layers, after filling the states from below."""
        x, topology = evaluation.streams.inputs[0].dense(), evaluation.streams.topologies[0]
        rows, scores = evaluation.streams.rows, []
        states = self.initial_states(network, x, topology, top)
        for number, conv in enumerate(network.layers):
            output = activate(conv, states[number], topology)[rows]
            mean = _mean_with_above(output, states, number, rows)
            scores.append(evaluation.score_fn([mean]))
        return torch.stack(scores).sum(0)


class TopToInput:
    """Eq. (7): a layer reads the state above its output too.

    Args:
        base: Mode with the same objective that trains layer by layer.
    """

    layer_by_layer = False
    averages_last_heads = False

    def __init__(self, base: SingleForward | LinkPrediction) -> None:
        self.base, self.edge_loss = base, getattr(base, "edge_loss", None)
        self.needs_virtual_nodes, self.reads_labels = base.needs_virtual_nodes, base.reads_labels

    def layer_sizes(self, config: ForwardGNNConfig) -> list[tuple[int, int]]:
        """Return the numbers of input and output features of every layer."""
        above_last = config.classes if self.reads_labels else 0
        above = [config.hidden] * (config.layers - 1) + [above_last]
        sizes = self.base.layer_sizes(config)
        return [(read + top, put) for (read, put), top in zip(sizes, above, strict=True)]

    def training(
        self,
        network: Network,
        data: Data,
        validation: Data | None,
        generator: torch.Generator,
    ) -> TopDownTraining:
        """Return the training, see `sixfold.graphs.models.forwardgnn.modes.Procedure`."""
        objective = self.base.objective(network, data, validation, generator)
        return TopDownTraining(self, network, objective, self._top(network, data), max_norm=None)

    def class_scores(
        self, network: Network, data: Data, nodes: Bool[Tensor, " node"] | None
    ) -> Tensor:
        """Return the sum of all layers' and time steps' scores of the selected nodes or edges."""
        evaluation = self.base.evaluation(network, data, nodes)
        return self.summed_scores(network, evaluation, self._top(network, data))

    def probabilities(self, scores: Tensor, config: ForwardGNNConfig) -> Tensor:
        """Average the probabilities of layers and time steps."""
        return scores / (config.layers * len(STORED_STEPS))

    @torch.no_grad()
    def initial_states(
        self, network: Network, x: Float[Tensor, "node feature"], topology: Topology, top: Top
    ) -> States:
        """Fill the states from below, not normalised, with zeros for the states above."""
        states = [x]
        sizes = self.layer_sizes(network.config)
        for conv, (width, _) in zip(network.layers, sizes, strict=True):
            below = row_norm(states[-1])
            above = below.new_zeros(len(below), width - below.shape[1])
            states.append(activate(conv, torch.cat([below, above], 1), topology))
        return states if top is None else [*states, top]

    def time_step(self, training: TopDownTraining) -> Iterator[StepResult]:
        """Update every layer once, each on the newest states, or all on those of the step before.

        Only alternating updates, even layers before odd ones, read the newest states.
        """
        objective, network = training.objective, training.network
        states, alternating = list(training.states), network.config.alternating
        for number in _order(len(network.layers), alternating):
            visible = states if alternating else training.states
            layer_input = _with_above(visible, number)
            output = activate(network.layers[number], layer_input, training.topology)
            states[number + 1] = output.detach()
            loss = objective.loss_fn([output[objective.train.rows]])
            yield take_step(training.updates[number], loss)
        training.states = states

    @torch.no_grad()
    def summed_scores(self, network: Network, evaluation: Evaluation, top: Top) -> Tensor:
        """Sum the scores of all layers in the stored time steps."""
        rows, outputs = evaluation.streams.rows, self._outputs(network, evaluation.streams, top)
        scores = [evaluation.score_fn([output[rows]]) for _, output in outputs]
        return torch.stack(scores).sum(0)

    @torch.no_grad()
    def outputs(self, network: Network, data: Data) -> list[Tensor]:
        """Return the outputs (node, width) of all layers in the stored time steps."""
        streams, top = self.base.inputs(network, data), self._top(network, data)
        return [output[: len(data.x)] for _, output in self._outputs(network, streams, top)]

    @torch.no_grad()
    def embed(self, network: Network, data: Data) -> Tensor:
        """Return the outputs of the last layer in the last time step."""
        streams, top = self.base.inputs(network, data), self._top(network, data)
        last = len(network.layers) - 1
        found = [out for number, out in self._outputs(network, streams, top) if number == last]
        return found[-1][: len(data.x)]

    def _outputs(
        self, network: Network, streams: Streams, top: Top
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield the number of a layer and its output, for all layers in the stored time steps."""
        x, topology = streams.inputs[0].dense(), streams.topologies[0]
        layers, alternating = network.layers, network.config.alternating
        states = self.initial_states(network, x, topology, top)
        for time in range(TEST_STEPS):
            old = list(states)
            for number in _order(len(layers), alternating):
                layer_input = _with_above(states if alternating else old, number)
                states[number + 1] = activate(layers[number], layer_input, topology)
                if time in STORED_STEPS:
                    yield number, states[number + 1]

    def _top(self, network: Network, data: Data) -> Top:
        """Return the state above the last layer: label columns, for node classification only."""
        if not self.reads_labels:
            return None
        return label_columns_with_virtual(data.y, data.train_mask, network.config.classes)


def row_norm(x: Float[Tensor, "node feature"]) -> Float[Tensor, "node feature"]:
    """Divide each row by its L2 norm; zeros stay zeros."""
    return x / (x.norm(dim=1, keepdim=True) + 1e-8)


def _order(layers: int, alternating: bool) -> list[int]:
    """Return the order of updates; if alternating, even layers first and then odd ones."""
    numbers = list(range(layers))
    return numbers[::2] + numbers[1::2] if alternating else numbers


def _with_above(states: States, number: int) -> Tensor:
    """Return the input of a layer: the states below and above it, normalised."""
    return torch.cat([row_norm(state) for state in states[number : number + 3 : 2]], 1)


def _mean_with_above(output: Tensor, states: States, number: int, rows: Tensor) -> Tensor:
    return torch.stack([output, *(state[rows] for state in states[number + 2 :])]).mean(0)
