"""Training: epochs, the optimiser, the best weights, and checkpoints of all stages together.

A checkpoint holds the whole model and the stale embeddings of the whole graph, gathered from all
processes, so that a run resumes with the same numbers on another number of stages.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.core import UserError
from sixfold.core.training.checkpoint import load_into, state_of
from sixfold.core.training.distributed import gather_objects
from sixfold.core.training.run import Position, Run
from sixfold.core.training.update import Best, EarlyStopping
from sixfold.graphs.losses import loss_weight
from sixfold.graphs.models.gnnpipe.stage import Pipeline
from sixfold.graphs.models.gnnpipe.traffic import Traffic
from sixfold.graphs.models.gnnpipe.transport import naming_lost_ranks
from sixfold.graphs.models.seeding import resolve_seed
from sixfold.graphs.models.stages import Row

KINDS = ("layer", "graph", "weight")


class Training:
    """The state of a training, and its epochs.

    Args:
        pipeline: Stage of this process.
        val_mask: Mask of the validation nodes, in the chunks' order; if None, the last weights are
            kept.
    """

    def __init__(self, pipeline: Pipeline, val_mask: Tensor | None) -> None:
        self.pipeline, self.config = pipeline, pipeline.config
        own = slice(pipeline.ranges.start, pipeline.ranges.stop)
        self._val_mask = None if val_mask is None else val_mask[own]
        self.order = torch.arange(pipeline.ranges.per_way)
        self.generator = torch.Generator().manual_seed(resolve_seed(self.config.seed))
        self.optimizer = torch.optim.Adam(
            pipeline.parameters(),
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
        )
        classes = self.config.target == "multiclass"
        self.monitor = "accuracy" if classes else "loss"
        self.best = Best(EarlyStopping(monitor=self.monitor, mode="max" if classes else "min"))
        self.sent = dict.fromkeys(KINDS, 0)  # by this process in the last epoch

    def run_epoch(self, epoch: int) -> float:
        """Draw an order of the chunks and take one optimiser step; return the loss before it.

        Raises:
            UserError: the loss is not finite.
            RankFailedError: another process died.
        """
        if self.config.shuffle:  # shuffles the order of the epoch before
            drawn = torch.randperm(len(self.order), generator=self.generator)
            self.order = self.order[drawn]
        sent = self.pipeline.communicator.sent
        before = dict(sent)
        self.optimizer.zero_grad()
        self.pipeline.layers.train()
        loss, _ = self.pipeline.train_epoch(epoch, self.order.tolist())
        self.sent = {kind: sent[kind] - before[kind] for kind in KINDS}
        total = float(self._all_reduce_sum(loss))
        if not math.isfinite(total):  # all processes see it, before any of them takes the step
            raise UserError(
                f"the loss became {total} in epoch {epoch + 1} (learning rate "
                f"{self.config.learning_rate:.3g}); lower learning_rate"
            )
        self.optimizer.step()
        return total

    def validate(self) -> float:
        """Return the exact validation score; keep the weights if it is the best.

        It is the accuracy in per cent, or the loss for other targets than classes.
        """
        assert self._val_mask is not None
        self.pipeline.layers.eval()
        logits, y = self.pipeline.infer(), self.pipeline.y[self._val_mask]
        sums = torch.zeros(2, dtype=torch.float64)
        if logits is not None and self.monitor == "accuracy":
            sums[0], sums[1] = (logits[self._val_mask].argmax(1) == y).sum(), len(y)
        elif logits is not None:
            sums[0] = self.pipeline.summed_loss(logits[self._val_mask], y)
            sums[1] = loss_weight(y)
        total, count = self._all_reduce_sum(sums).tolist()
        score = (100 if self.monitor == "accuracy" else 1) * total / count
        return self.best.update({self.monitor: score}, self.pipeline.layers)

    @property
    def validates(self) -> bool:
        """Whether there are validation nodes."""
        return self._val_mask is not None

    def traffic(self) -> Traffic:
        """Return the bytes that all processes sent in the last epoch, by kind."""
        sent = torch.tensor([self.sent[kind] for kind in KINDS], dtype=torch.float64)
        return dict(zip(KINDS, map(int, self._all_reduce_sum(sent).tolist()), strict=True))

    def broadcast_weights(self) -> None:
        """Copy the weights of every stage to every process."""
        for stage, numbers in enumerate(self.pipeline.cuts):
            for number in numbers:
                for value in self.pipeline.layers[number].state_dict().values():
                    self.pipeline.communicator.broadcast(value, stage)

    def state_dict(self) -> dict[str, Any]:
        """Gather the state of all processes in process 0; return an empty state in the others."""
        own = self.pipeline.own_layers
        mine = {
            "optimizer": state_of(self.optimizer, self._names())["slots"],
            "best": {
                name: value
                for name, value in self.best.weights.items()
                if name.partition(".")[0] in own
            },
            "history": {str(n): e.state() for n, e in self.pipeline.stale_embeddings.items()},
        }
        ranks = gather_objects(_on_cpu(mine))
        if not ranks:
            return {}
        merged: dict[str, Any] = {key: {} for key in mine}
        for part in ranks:  # way after way, the order of the nodes
            merged["optimizer"] |= part["optimizer"]
            merged["best"] |= part["best"]
            for number, state in part["history"].items():
                known = merged["history"].setdefault(number, {name: [] for name in state})
                for name, rows in state.items():
                    known[name].append(rows)
        merged["history"] = {
            number: {name: torch.cat(rows) for name, rows in state.items()}
            for number, state in merged["history"].items()
        }
        seen = {"value": self.best.value, "evaluations": self.best.evaluations}
        drawn = {"order": self.order, "generator": self.generator.get_state()}
        return merged | drawn | {"seen": seen | {"bad_evaluations": self.best.bad_evaluations}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore this process's part of a state."""
        own, names = self.pipeline.own_layers, self._names()
        held = state_of(self.optimizer, names)
        slots = {k: v for k, v in state["optimizer"].items() if k.partition(".")[0] in own}
        load_into(self.optimizer, held | {"slots": slots}, names)
        self.best.load_state_dict(state["seen"] | {"weights": {}})
        if state["best"]:
            device = self.pipeline.x.device
            self.best.weights = {name: value.to(device) for name, value in state["best"].items()}
        for number, stale in self.pipeline.stale_embeddings.items():
            stale.load(state["history"][str(number)])
        self.order = state["order"]
        self.generator.set_state(state["generator"])

    def _names(self) -> dict[int, str]:
        return {
            id(parameter): f"{number}.{name}"
            for number, layer in self.pipeline.own_layers.items()
            for name, parameter in layer.named_parameters()
        }

    def _all_reduce_sum(self, values: Tensor) -> Tensor:
        values = values.to(self.pipeline.x.device)
        self.pipeline.communicator.all_reduce_sum("control", values)
        return values


class MergedModel:
    """The model of a checkpoint, with the trained weights of every stage.

    Args:
        model: Model whose ``layers`` are those of the training.
        training: Training of this process.
    """

    def __init__(self, model: nn.Module, training: Training) -> None:
        self.model, self.training = model, training

    def state_dict(self) -> dict[str, Tensor]:
        """Broadcast the weights and return those of the whole model; all processes must call."""
        self.training.broadcast_weights()
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the weights of the whole model."""
        self.model.load_state_dict(state)


def train(training: Training, model: nn.Module, run: Run, every: int | None) -> list[Row]:
    """Train from the latest position of the run, and copy the best weights to every process.

    Args:
        training: Training of this process.
        model: Model that contains the layers.
        run: Run from `sixfold.graphs.models.stages.open_run`.
        every: Number of epochs between checkpoints, besides those that the run saves in time.

    Returns:
        A row for every epoch trained by this call: epoch, loss, and if it was validated
        valid_accuracy, or valid_loss for other targets than classes.
    """
    merged, config = MergedModel(model, training), training.config
    for value in model.state_dict().values():
        training.pipeline.communicator.broadcast(value, 0)
    run.register("model", merged)
    run.register("training", training)
    position, history = run.restore() or Position(), []
    for epoch in range(position.epoch + 1, config.epochs + 1):
        row: Row = {"epoch": epoch, "loss": training.run_epoch(epoch - 1)}
        due = epoch % config.evaluate_every == 0 or epoch == config.epochs
        if training.validates and due:
            row[f"valid_{training.monitor}"] = training.validate()
        run.log(epoch, **row)
        history.append(row)
        position = Position(epoch=epoch, step=epoch)
        with naming_lost_ranks("another rank, at a checkpoint"):
            if every and epoch % every == 0:
                run.save(position)
            run.checkpoint(position)
    training.best.copy_to(training.pipeline.layers)
    training.broadcast_weights()
    run.save(Position(phase=1, epoch=config.epochs, step=config.epochs))
    return history


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    return {key: _on_cpu(part) for key, part in value.items()}
