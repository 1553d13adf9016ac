"""Training: epochs, the optimiser, the best weights, and the state of all stages put together.

A checkpoint holds the whole model and the history of the whole graph, whichever process has them,
so that a run goes on with the same numbers on another number of stages.
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
from sixfold.graphs.models.gnnpipe.stage import Pipeline
from sixfold.graphs.models.gnnpipe.traffic import Traffic
from sixfold.graphs.models.gnnpipe.transport import alive
from sixfold.graphs.models.stages import Row

KINDS = ("layer", "graph", "weight")


class Training:
    """The state of a training, and what moves it on by an epoch.

    Args:
        pipeline: The stage.
        valid: Mask of the nodes to validate on, in the chunks' order; None keeps the last weights.
    """

    def __init__(self, pipeline: Pipeline, valid: Tensor | None) -> None:
        self.pipeline, self.config = pipeline, pipeline.config
        own = slice(pipeline.ranges.start, pipeline.ranges.stop)
        self._valid = None if valid is None else valid[own]
        self._valid_in_all = 0 if valid is None else int(valid.sum())
        self.order = torch.arange(pipeline.ranges.per_way)
        self.generator = torch.Generator().manual_seed(self.config.seed)
        self.optimizer = torch.optim.Adam(
            pipeline.parameters(),
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
        )
        self.best = Best(EarlyStopping(monitor="accuracy", mode="max"))
        self.sent = dict.fromkeys(KINDS, 0)  # by this process in the last epoch

    def epoch(self, epoch: int) -> float:
        """Draw an order, take one step of the optimiser; return the loss before it.

        Raises:
            UserError: the loss is not finite.
            RankFailedError: another process died.
        """
        if self.config.shuffle:  # of the order before
            drawn = torch.randperm(len(self.order), generator=self.generator)
            self.order = self.order[drawn]
        before, sent = dict(self.pipeline.transport.sent), self.pipeline.transport.sent
        self.optimizer.zero_grad()
        self.pipeline.layers.train()
        loss, _ = self.pipeline.train_epoch(epoch, self.order.tolist())
        self.sent = {kind: sent[kind] - before[kind] for kind in KINDS}
        total = float(self._total(loss))
        if not math.isfinite(total):  # known to all processes alike, before any takes the step
            raise UserError(
                f"the loss became {total} in epoch {epoch + 1} (learning rate "
                f"{self.config.learning_rate:.3g}); lower learning_rate"
            )
        self.optimizer.step()
        return total

    def accuracy(self, valid: Tensor, count: int) -> float:
        """Return the exact accuracy in per cent on own nodes of a mask, over all processes."""
        self.pipeline.layers.eval()
        logits = self.pipeline.infer()
        right = 0 if logits is None else (logits.argmax(1) == self.pipeline.y)[valid].sum()
        return 100 * float(self._total(torch.as_tensor(right, dtype=torch.float64))) / count

    def validate(self) -> float:
        """Score the weights, and keep them if they are the best so far."""
        assert self._valid is not None
        score = self.accuracy(self._valid, self._valid_in_all)
        return self.best.update({"accuracy": score}, self.pipeline.layers)

    @property
    def validates(self) -> bool:
        """Whether there is something to validate on."""
        return self._valid is not None

    def traffic(self) -> Traffic:
        """Return the bytes of the last epoch by kind, over all processes."""
        sent = torch.tensor([self.sent[kind] for kind in KINDS], dtype=torch.float64)
        return dict(zip(KINDS, map(int, self._total(sent).tolist()), strict=True))

    def share_weights(self) -> None:
        """Give every process the weights of every stage."""
        for stage, numbers in enumerate(self.pipeline.cuts):
            for number in numbers:
                for value in self.pipeline.layers[number].state_dict().values():
                    self.pipeline.transport.share(value, stage)

    def state_dict(self) -> dict[str, Any]:
        """Put together, in process 0, what all of them have; empty in others."""
        own = self.pipeline.own_layers
        mine = {
            "optimizer": state_of(self.optimizer, self._names())["slots"],
            "best": {
                name: value
                for name, value in self.best.weights.items()
                if name.partition(".")[0] in own
            },
            "history": {str(n): h.state() for n, h in self.pipeline.histories.items()},
        }
        ranks = gather_objects(_on_cpu(mine))
        if not ranks:
            return {}
        merged: dict[str, Any] = {key: {} for key in mine}
        for part in ranks:  # way after way, as the nodes are
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
        """Take this process's part of it."""
        own, names = self.pipeline.own_layers, self._names()
        held = state_of(self.optimizer, names)
        slots = {k: v for k, v in state["optimizer"].items() if k.partition(".")[0] in own}
        load_into(self.optimizer, held | {"slots": slots}, names)
        self.best.load_state_dict(state["seen"] | {"weights": {}})
        if state["best"]:
            device = self.pipeline.x.device
            self.best.weights = {name: value.to(device) for name, value in state["best"].items()}
        for number, history in self.pipeline.histories.items():
            history.load(state["history"][str(number)])
        self.order = state["order"]
        self.generator.set_state(state["generator"])

    def _names(self) -> dict[int, str]:
        return {
            id(parameter): f"{number}.{name}"
            for number, layer in self.pipeline.own_layers.items()
            for name, parameter in layer.named_parameters()
        }

    def _total(self, values: Tensor) -> Tensor:
        values = values.to(self.pipeline.x.device)
        self.pipeline.transport.total("control", values)
        return values


class MergedModel:
    """A model as a checkpoint holds it: the weights that every stage has trained.

    Args:
        model: Its ``layers`` are those of the training.
        training: Shares the weights.
    """

    def __init__(self, model: nn.Module, training: Training) -> None:
        self.model, self.training = model, training

    def state_dict(self) -> dict[str, Tensor]:
        """Share the weights; every process must ask."""
        self.training.share_weights()
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the whole model."""
        self.model.load_state_dict(state)


def train(training: Training, model: nn.Module, run: Run, every: int | None) -> list[Row]:
    """Train, going on where the run was left; leave the best weights in every process.

    Args:
        training: Of this process.
        model: Holds the layers.
        run: From `sixfold.graphs.models.stages.open_run`.
        every: Epochs between checkpoints, beside the run's own in time.

    Returns:
        A row for every epoch trained here: epoch, loss, and valid_accuracy where it was validated.
    """
    merged, config = MergedModel(model, training), training.config
    for value in model.state_dict().values():
        training.pipeline.transport.share(value, 0)
    run.register("model", merged)
    run.register("training", training)
    position, history = run.restore() or Position(), []
    for epoch in range(position.epoch + 1, config.epochs + 1):
        row: Row = {"epoch": epoch, "loss": training.epoch(epoch - 1)}
        due = epoch % config.evaluate_every == 0 or epoch == config.epochs
        if training.validates and due:
            row["valid_accuracy"] = training.validate()
        run.log(epoch, **row)
        history.append(row)
        position = Position(epoch=epoch, step=epoch)
        with alive("another rank, at a checkpoint"):
            if every and epoch % every == 0:
                run.save(position)
            run.checkpoint(position)
    training.best.copy_to(training.pipeline.layers)
    training.share_weights()
    run.save(Position(phase=1, epoch=config.epochs, step=config.epochs))
    return history


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    return {key: _on_cpu(part) for key, part in value.items()}
