"""How Mowst is trained: experts alone, then all jointly (Mowst*) or in turns (Algorithm 2).

In turn i expert i and its gate learn; the others answer without a gradient, but in training mode:
their dropout and batch statistics are live, as in the official code. What a turn did not improve is
undone.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core.training.update import Best, OptimizerStep
from sixfold.graphs.data.validate import Data
from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.layers.sparse_features import is_sparse
from sixfold.graphs.metrics import accuracy
from sixfold.graphs.models.mowst.experts import set_dropout
from sixfold.graphs.models.mowst.gates import Answers
from sixfold.graphs.models.stages import Loss, Stage, take_step

Monitor = Literal["loss", "accuracy"]
Weights = dict[str, Tensor]


class MowstTraining:
    """The stages of a training; see `sixfold.graphs.models.stages.Method`.

    Args:
        model: `sixfold.graphs.models.mowst.model.Mowst`.
        data: With ``y``, ``train_mask`` and ``val_mask``.
    """

    def __init__(self, model: Any, data: Data) -> None:
        self.model, self.config, self.data = model, model.config, data
        self.x = Features(data.x) if is_sparse(data.x) else data.x
        self.topology = Topology(data.edge_index, len(data.x))
        config, experts, gates = model.config, model.experts, model.gates
        self.alone = {i: _adamw([experts[i]], config.learning_rate, config) for i in self._first()}
        parts = [[expert, *gates[i : i + 1]] for i, expert in enumerate(experts)]
        self.turns = [_adamw(part, config.learning_rate, config) for part in parts]
        self.joint = _adamw([experts, gates], config.learning_rate_gate, config)
        # What turns remember: weights before the present one, best score, best of all rounds.
        self.memory: dict[str, Any] = {
            "turn": -1,
            "before": {},
            "score": -1.0,
            "round_score": -1.0,
            "round_best": {},
            "failures": 0,
        }

    def objects(self) -> dict[str, Any]:
        """Name the optimisers, and what turns remember."""
        updates = {f"alone-{i}": update for i, update in self.alone.items()}
        updates |= {f"turn-{i}": update for i, update in enumerate(self.turns)}
        updates["joint"] = self.joint
        optimizers = {f"optim-{name}": update.optimizer for name, update in updates.items()}
        return optimizers | updates | {"memory": self}

    def state_dict(self) -> dict[str, Any]:
        """Return what turns remember."""
        return self.memory

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.memory = dict(state)

    def open(self, number: int) -> Stage | None:
        """Prepare an expert's training alone, then the joint one or turn after turn."""
        first, model = self._first(), self.model
        if number < len(first):
            set_dropout(model.experts, self.config.dropout)
            return self._alone(first[number])
        number -= len(first)
        set_dropout(model.experts, self.config.dropout_gate)
        if len(model.experts) == 1:
            return None
        if self.config.method == "mowst_star":
            if number > 0:
                return None
            stage = self._stage(model, self.joint_step, self._joint_loss, "loss")
            return replace(stage, patience=None) if self.config.quirks else stage  # to the end
        if self.memory["failures"] > self.config.big_patience:
            return None
        turn = number % len(model.experts)
        kept = model.experts if self.config.quirks else model
        if self.memory["turn"] != number:
            self.memory |= {"turn": number, "before": _copy(kept)}
        return self._stage(kept, lambda: self.turn_step(turn), self._accuracy, "accuracy")

    def close(self, number: int, best: Best) -> None:
        """Undo a turn that brought nothing; after a round of turns remember the best."""
        number -= len(self._first())
        if number < 0 or self.config.method == "mowst_star":
            return
        memory, model = self.memory, self.model
        if best.value is not None and best.value > memory["score"]:
            memory["score"] = best.value
        else:
            (model.experts if self.config.quirks else model).load_state_dict(memory["before"])
        if number % len(model.experts) < len(model.experts) - 1:
            return
        if (score := self._accuracy()) > memory["round_score"]:
            memory |= {"round_score": score, "round_best": _copy(model), "failures": 0}
        else:
            memory["failures"] += 1
        if memory["failures"] > self.config.big_patience:  # that was the last round
            model.load_state_dict(memory["round_best"])

    def joint_step(self) -> Iterator[Loss]:
        """Train everything at once."""
        answers = self.model.train().answers(self.x, self.topology)
        yield take_step(self.joint, self.loss(answers, self.data.train_mask))

    def turn_step(self, turn: int) -> Iterator[Loss]:
        """Train one expert and its gate; the others only answer."""
        answers = self.model.train().answers(self.x, self.topology, learns=turn)
        yield take_step(self.turns[turn], self.loss(answers, self.data.train_mask))

    def loss(self, answers: Answers, nodes: Bool[Tensor, " node"]) -> Float[Tensor, ""]:
        """Return the loss of some nodes: of the mixed logits, or the mean loss of the experts."""
        y = self.data.y[nodes]
        if self.config.method == "mowst_star":
            return functional.nll_loss(self.model.mix(answers)[nodes], y)
        losses = [functional.cross_entropy(z[nodes], y, reduction="none") for z in answers.logits]
        return (answers.shares[nodes] * torch.stack(losses, 1)).sum(1).mean()

    def _alone(self, number: int) -> Stage:
        expert, update, data, signal = (
            self.model.experts[number],
            self.alone[number],
            self.data,
            self.config.early_signal,
        )
        # The official code watches the training nodes' loss, and calls it that of validation.
        fooled = self.config.quirks and signal == "loss"
        watched = data.train_mask if fooled else data.val_mask

        def step() -> Iterator[Loss]:
            logits = expert.train()(self.x, self.topology)[data.train_mask]
            yield take_step(update, functional.cross_entropy(logits, data.y[data.train_mask]))

        @torch.no_grad()
        def validate() -> float:
            logits, y = expert.eval()(self.x, self.topology)[watched], data.y[watched]
            return (
                accuracy(logits, y)
                if signal == "accuracy"
                else float(functional.cross_entropy(logits, y))
            )

        return self._stage(expert, step, validate, signal)

    def _stage(
        self,
        module: nn.Module,
        step: Callable[[], Iterator[Loss]],
        validate: Callable[[], float],
        monitor: Monitor,
    ) -> Stage:
        patience = self.config.patience + 1  # so many in a row are allowed
        return Stage(module, step, validate, monitor, self.config.epochs, patience=patience)

    @torch.no_grad()
    def _joint_loss(self) -> float:
        answers = self.model.eval().answers(self.x, self.topology)
        return float(self.loss(answers, self.data.val_mask))

    @torch.no_grad()
    def _accuracy(self) -> float:
        answers = self.model.eval().answers(self.x, self.topology)
        return self.model.accuracy(answers, self.data.y, self.data.val_mask)

    def _first(self) -> tuple[int, ...]:
        """Experts that are trained alone first; a single one is trained so in any case."""
        return (0,) if len(self.model.experts) == 1 else self.config.pretrain


def _adamw(modules: list[nn.Module], rate: float, config: Any) -> OptimizerStep:
    parameters = [p for module in modules for p in module.parameters()]
    return OptimizerStep(torch.optim.AdamW(parameters, lr=rate, weight_decay=config.weight_decay))


def _copy(module: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
