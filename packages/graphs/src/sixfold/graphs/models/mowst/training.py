"""Training of Mowst: experts alone, then all jointly (Mowst*) or in turns (Algorithm 2).

In turn i expert i and its gate are trained; the other experts get no gradient, but are in training
mode: their dropout and batch statistics are active, as in the official code. A turn that brings no
improvement is undone, its weights but not the moments of its optimiser. Joint training has an
optimiser of its own.
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
from sixfold.graphs.losses import class_weights
from sixfold.graphs.metrics import accuracy
from sixfold.graphs.models.mowst.config import MowstConfig
from sixfold.graphs.models.mowst.experts import set_dropout
from sixfold.graphs.models.mowst.gates import ExpertOutputs
from sixfold.graphs.models.stages import Stage, StepResult, take_step

Monitor = Literal["loss", "accuracy"]
Weights = dict[str, Tensor]


class MowstTraining:
    """The stages of a training; see `sixfold.graphs.models.stages.Method`.

    Args:
        model: `sixfold.graphs.models.mowst.model.Mowst`.
        data: Graph with ``y``, ``train_mask`` and ``val_mask``.
    """

    def __init__(self, model: Any, data: Data) -> None:
        self.model, self.data = model, data
        self.config: MowstConfig = model.config
        self.x = Features(data.x) if is_sparse(data.x) else data.x
        self.topology = Topology.of(data)
        config, experts, gates = self.config, model.experts, model.gates
        rate, decay = config.learning_rate, config.weight_decay
        parts = [[expert, *gates[i : i + 1]] for i, expert in enumerate(experts)]
        y, setting = data.y[data.train_mask], config.class_weight
        self.class_weight = class_weights(setting, y, config.classes, data.x)
        # One for each expert, in pretraining and all of its turns: their moments carry over.
        self.updates = [_adamw(part, rate, decay) for part in parts]
        self.joint = _adamw([experts, gates], config.learning_rate_gate, decay)
        # State of the turns: weights before the current one, best score, best of all rounds.
        self.memory: dict[str, Any] = {
            "turn": -1,
            "before": {},
            "score": -1.0,
            "round_score": -1.0,
            "round_best": {},
            "failures": 0,
        }

    def objects(self) -> dict[str, Any]:
        """Return the optimisers and the state of the turns by name."""
        updates = {f"expert-{i}": update for i, update in enumerate(self.updates)}
        updates["joint"] = self.joint
        optimizers = {f"optim-{name}": update.optimizer for name, update in updates.items()}
        return optimizers | updates | {"memory": self}

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the turns."""
        return self.memory

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of the turns."""
        self.memory = dict(state)

    def begin_stage(self, number: int) -> Stage | None:
        """Prepare the pretraining of an expert, then joint training or a turn."""
        pretrained, model = self._pretrained(), self.model
        if number < len(pretrained):
            set_dropout(model.experts, self.config.dropout)
            return self._alone(pretrained[number])
        number -= len(pretrained)
        set_dropout(model.experts, self.config.dropout_gate)
        if len(model.experts) == 1:
            return None
        if self.config.method == "mowst_star":
            if number > 0:
                return None
            stage = self._stage(model, self.joint_step, self._joint_loss, "loss")
            # the official code does not stop joint training early
            return replace(stage, patience=None) if self.config.official_behaviour else stage
        if self.memory["failures"] > self.config.big_patience:
            return None
        turn = number % len(model.experts)
        restored = self._restored()
        if self.memory["turn"] != number:
            self.memory |= {"turn": number, "before": _copy(restored)}
        return self._stage(restored, lambda: self.turn_step(turn), self._accuracy, "accuracy")

    def end_stage(self, number: int, best: Best) -> None:
        """Undo a turn without improvement; after a round of turns keep the best weights."""
        number -= len(self._pretrained())
        if number < 0 or self.config.method == "mowst_star":
            return
        memory, model = self.memory, self.model
        if best.value is not None and best.value > memory["score"]:
            memory["score"] = best.value
        else:
            self._restored().load_state_dict(memory["before"])
        if number % len(model.experts) < len(model.experts) - 1:
            return
        if (score := self._accuracy()) > memory["round_score"]:
            memory |= {"round_score": score, "round_best": _copy(model), "failures": 0}
        else:
            memory["failures"] += 1
        if memory["failures"] > self.config.big_patience:  # that was the last round
            model.load_state_dict(memory["round_best"])

    def joint_step(self) -> Iterator[StepResult]:
        """Train all experts and gates for one epoch."""
        outputs = self.model.train().expert_outputs(self.x, self.topology)
        yield take_step(self.joint, self.loss(outputs, self.data.train_mask))

    def turn_step(self, turn: int) -> Iterator[StepResult]:
        """Train one expert and its gate for one epoch."""
        model = self.model.train()
        outputs = model.expert_outputs(self.x, self.topology, trained_expert=turn)
        yield take_step(self.updates[turn], self.loss(outputs, self.data.train_mask))

    def loss(self, outputs: ExpertOutputs, nodes: Bool[Tensor, " node"]) -> Float[Tensor, ""]:
        """Return the loss of the mixed logits (Mowst*), or the weighted loss of the experts."""
        y, weight = self.data.y[nodes], self.class_weight
        if self.config.method == "mowst_star":
            return functional.nll_loss(self.model.log_probabilities(outputs)[nodes], y, weight)
        losses = [
            functional.cross_entropy(z[nodes], y, weight, reduction="none") for z in outputs.logits
        ]
        mixed = (outputs.mixture_weights[nodes] * torch.stack(losses, 1)).sum(1)
        return mixed.mean() if weight is None else mixed.sum() / weight[y].sum()

    def _alone(self, number: int) -> Stage:
        expert, update, data = self.model.experts[number], self.updates[number], self.data
        signal = self.config.early_signal
        # What the official code calls the validation loss is the loss of the training nodes.
        on_training_nodes = self.config.official_behaviour and signal == "loss"
        nodes = data.train_mask if on_training_nodes else data.val_mask

        def run_epoch() -> Iterator[StepResult]:
            logits = expert.train()(self.x, self.topology)[data.train_mask]
            y = data.y[data.train_mask]
            yield take_step(update, functional.cross_entropy(logits, y, self.class_weight))

        @torch.no_grad()
        def validate() -> float:
            logits, y = expert.eval()(self.x, self.topology)[nodes], data.y[nodes]
            if signal == "accuracy":
                return accuracy(logits, y)
            return float(functional.cross_entropy(logits, y, self.class_weight))

        return self._stage(expert, run_epoch, validate, signal)

    def _stage(
        self,
        module: nn.Module,
        run_epoch: Callable[[], Iterator[StepResult]],
        validate: Callable[[], float],
        monitor: Monitor,
    ) -> Stage:
        patience = self.config.patience + 1  # `patience` epochs without improvement are tolerated
        return Stage(module, run_epoch, validate, monitor, self.config.epochs, patience=patience)

    @torch.no_grad()
    def _joint_loss(self) -> float:
        outputs = self.model.eval().expert_outputs(self.x, self.topology)
        return float(self.loss(outputs, self.data.val_mask))

    @torch.no_grad()
    def _accuracy(self) -> float:
        outputs = self.model.eval().expert_outputs(self.x, self.topology)
        return self.model.turn_accuracy(outputs, self.data.y, self.data.val_mask)

    def _restored(self) -> nn.Module:
        """Return the module whose weights a turn keeps or undoes; officially without the gates."""
        return self.model.experts if self.config.official_behaviour else self.model

    def _pretrained(self) -> tuple[int, ...]:
        """Return the experts to pretrain; a single expert is pretrained in any case."""
        return (0,) if len(self.model.experts) == 1 else self.config.pretrain


def _adamw(modules: list[nn.Module], rate: float, weight_decay: float) -> OptimizerStep:
    parameters = [p for module in modules for p in module.parameters()]
    return OptimizerStep(torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay))


def _copy(module: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
