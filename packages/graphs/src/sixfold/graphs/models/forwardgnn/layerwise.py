"""Train a network layer by layer: what is below is frozen, computed once and kept.

A layer reads inputs that do not change while it is trained;
`sixfold.graphs.models.forwardgnn.frozen_input` says what of them is kept. No graph of autograd
crosses layers, whatever their number.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sixfold.core.training.update import Best, OptimizerStep
from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.models.forwardgnn.frozen_input import FrozenInput, Rows, activate, freeze
from sixfold.graphs.models.stages import Loss, Stage, take_step

Outputs = list[Tensor]  # of a layer, one for each stream, at the rows of the streams


@dataclass(frozen=True)
class Streams:
    """Inputs that go through a layer side by side, each on a graph of its own.

    Args:
        inputs: Of the present layer, before they are normalised.
        topologies: One for each.
        rows: The nodes that are looked at.
        appended: Columns that every layer's input ends with.
        shared: What the first stream brings forth is the next input of all.
    """

    inputs: list[Features]
    topologies: list[Topology]
    rows: Rows
    appended: Float[Tensor, "node column"] | None = None
    shared: bool = False

    @torch.no_grad()
    def through(self, conv: nn.Module) -> tuple["Streams", Outputs]:
        """Return the streams after a layer, and what it put out at every node."""
        pairs = zip(self.inputs, self.topologies, strict=True)
        outputs = [activate(conv, x.normed(), topology) for x, topology in pairs]
        return self.followed_by(outputs), outputs

    def followed_by(self, outputs: Outputs) -> "Streams":
        """Return what the next layer reads."""
        passed = outputs[:1] * len(self.topologies) if self.shared else outputs
        return replace(self, inputs=[Features(x, columns=self.appended) for x in passed])

    def at_rows(self, outputs: Outputs) -> Outputs:
        """Choose the nodes that are looked at."""
        return [x[self.rows] for x in outputs]

    def freeze(self, conv: nn.Module, *others: Rows) -> list[FrozenInput]:
        """Keep what a layer needs to be trained; the nodes that are looked at are learnt from."""
        pairs = zip(self.inputs, self.topologies, strict=True)
        return [freeze(conv, x, topology, [self.rows, *others]) for x, topology in pairs]


@dataclass(frozen=True)
class Evaluation:
    """How a network is asked: what goes in, and what each layer's output says of the answer."""

    streams: Streams
    evidence: Callable[[Outputs], Tensor]


@torch.no_grad()
def total_evidence(layers: Sequence[nn.Module], evaluation: Evaluation) -> Tensor:
    """Sum over the layers what they say."""
    streams, parts = evaluation.streams, []
    for conv in layers:
        streams, outputs = streams.through(conv)
        parts.append(evaluation.evidence(streams.at_rows(outputs)))
    return torch.stack(parts).sum(0)


@dataclass(frozen=True)
class Problem:
    """What a layer is trained for.

    Args:
        train: What goes in.
        loss: Of a layer's outputs.
        valid: How it is asked at a validation.
        score: Of the evidence summed over the layers so far.
        monitor: What the score is.
        shares: Whether ``valid`` has the inputs of ``train``, and only looks at other rows.
    """

    train: Streams
    loss: Callable[[Outputs], Tensor]
    valid: Evaluation | None
    score: Callable[[Tensor], float]
    monitor: Any
    shares: bool = False


class Greedy:
    """Train the layers one after the other (Algorithms 1, 2 and 4 of the ForwardGNN paper).

    Args:
        layers: Convolutions.
        problem: What each is trained for.
        config: `sixfold.graphs.models.forwardgnn.estimator.ForwardGNNConfig`.
    """

    def __init__(self, layers: Sequence[nn.Module], problem: Problem, config: Any) -> None:
        self.layers, self.problem, self.config = list(layers), problem, config
        self.updates = [OptimizerStep(adam(conv, config)) for conv in layers]
        self.depth = -1  # the layer whose input is frozen
        self.train = problem.train
        self.valid = None if problem.valid is None else problem.valid.streams
        self.learnt: list[FrozenInput] = []
        self.asked: list[FrozenInput] = []
        self.below: Tensor | float = 0.0  # what the frozen layers said at the validation nodes

    def objects(self) -> dict[str, Any]:
        """Name the optimisers of the layers."""
        named: dict[str, Any] = {}
        for number, update in enumerate(self.updates):
            named |= {f"optim-{number}": update.optimizer, f"update-{number}": update}
        return named

    def open(self, number: int) -> Stage | None:
        """Freeze the layers below one, and prepare to train it."""
        if number >= len(self.layers):
            return None
        while self.depth < number:
            if self.depth >= 0:
                self._pass_on()
            self.depth += 1
            self._freeze(self.layers[self.depth])
        problem, config, conv = self.problem, self.config, self.layers[number]
        update = self.updates[number]

        def step() -> Iterator[Loss]:
            conv.train()
            yield take_step(update, problem.loss([source.learnt() for source in self.learnt]))

        @torch.no_grad()
        def validate() -> float:
            assert problem.valid is not None
            conv.eval()
            return problem.score(self.below + problem.valid.evidence(self._answers()))

        return Stage(
            module=conv,
            step=step,
            validate=None if self.valid is None else validate,
            monitor=problem.monitor,
            epochs=config.epochs,
            validate_every=config.validate_every,
            patience=config.patience,
        )

    def close(self, number: int, best: Best) -> None:
        """Let go of the moments of a finished layer."""
        self.updates[number].optimizer.state.clear()

    def _freeze(self, conv: nn.Module) -> None:
        """Put the inputs into the form in which a layer is trained on them."""
        valid, shares = self.valid, self.problem.shares
        self.learnt = self.train.freeze(conv, *([valid.rows] if valid and shares else []))
        self.train = replace(self.train, inputs=[])  # what is needed of them is kept now
        if self.valid is not None and not shares:
            self.asked = self.valid.freeze(conv)
            self.valid = replace(self.valid, inputs=[])

    def _answers(self) -> Outputs:
        if self.problem.shares:
            return [source.asked() for source in self.learnt]
        return [source.learnt() for source in self.asked]

    @torch.no_grad()
    def _pass_on(self) -> None:
        """Compute, with a layer's best weights, what the next one reads."""
        if self.valid is not None and self.problem.valid is not None:
            self.below = self.below + self.problem.valid.evidence(self._answers())
        self.train = self.train.followed_by(_outputs(self.learnt, self.train.shared))
        if self.asked:
            self.valid = self.valid and self.valid.followed_by(_outputs(self.asked))
        self.learnt, self.asked = [], []


def _outputs(sources: list[FrozenInput], only_first: bool = False) -> Outputs:
    return [source.output().detach() for source in (sources[:1] if only_first else sources)]


def adam(module: nn.Module, config: Any) -> torch.optim.Optimizer:
    """Make the optimiser of one layer, with decay added to the gradient."""
    return torch.optim.Adam(
        module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
