"""The training loop of ForwardGNN and Mowst: one stage after the other, each with early stopping.

A `Method` divides a training into stages, each of which trains one part of a model: a layer, an
expert, or everything. Every finished epoch is a position of the `Run`, so that a training that was
killed resumes with the same numbers. Without a folder nothing is written.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch.distributed as dist
from torch import Tensor, nn

from sixfold.core import UserError
from sixfold.core.training.run import Position, Run
from sixfold.core.training.update import Best, EarlyStopping, OptimizerStep
from sixfold.graphs.models.seeding import resolve_seed

Row = dict[str, float | int]


class StepResult(NamedTuple):
    """Loss before one optimiser step, and the gradient norm before clipping."""

    loss: float
    gradient_norm: float


@dataclass(frozen=True)
class Stage:
    """One optimisation.

    Args:
        module: Module whose best weights are kept.
        run_epoch: Function that runs one epoch and yields the result of every optimiser step.
        validate: Function that scores the weights; if None, the last weights are kept.
        monitor: Name of the validation score; a loss is minimised, anything else maximised.
        epochs: Maximum number of epochs.
        validate_every: Number of epochs between validations.
        patience: Number of consecutive validations without improvement before training stops.
    """

    module: nn.Module
    run_epoch: Callable[[], Iterator[StepResult]]
    validate: Callable[[], float] | None
    monitor: Literal["accuracy", "auc", "loss"]
    epochs: int
    validate_every: int = 1
    patience: int | None = None


@runtime_checkable
class Method(Protocol):
    """A training in stages; `sixfold.graphs.models.forwardgnn.layerwise` holds an example."""

    def objects(self) -> dict[str, Any]:
        """Return all objects with state, by their names for `Run.register`."""
        ...

    def begin_stage(self, number: int) -> Stage | None:
        """Prepare a stage from the current weights; return None after the last stage."""
        ...

    def end_stage(self, number: int, best: Best) -> None:
        """Finish a stage, with its best weights already restored."""
        ...


def train(method: Method, run: Run, stages: range | None = None) -> list[Row]:
    """Train stage after stage, resuming from the latest position of the run.

    Args:
        method: Training in stages.
        run: Run from `open_run`.
        stages: Numbers of the stages to train; all if not given.

    Returns:
        A row for every optimiser step taken by this call: stage, epoch, loss, gradient_norm, and
        the validation score, such as valid_accuracy, where there was a validation.
    """
    best = Best(EarlyStopping())
    for name, obj in (method.objects() | {"best": best}).items():
        run.register(name, obj)
    stages = stages or range(10**9)
    position = run.restore() or Position(phase=stages.start)
    history: list[Row] = []
    while position.phase < stages.stop and (stage := method.begin_stage(position.phase)):
        mode = "min" if stage.monitor == "loss" else "max"
        best.config = EarlyStopping(monitor=stage.monitor, mode=mode, patience=stage.patience)
        position = _optimise(stage, best, position, run, history)
        best.copy_to(stage.module)
        method.end_stage(position.phase, best)
        best.load_state_dict(Best(best.config).state_dict())
        position = Position(phase=position.phase + 1, step=position.step)
        run.save(position)
        del stage  # frees its buffers before the next stage allocates its own
    return history


def _optimise(stage: Stage, best: Best, position: Position, run: Run, history: list) -> Position:
    phase, step = position.phase, position.step
    for epoch in range(position.epoch + 1, stage.epochs + 1):
        if best.should_stop:
            break
        rows: list[Row] = [
            {"stage": phase, "epoch": epoch, **result._asdict()} for result in stage.run_epoch()
        ]
        if stage.validate and epoch % stage.validate_every == 0:
            rows[-1][f"valid_{stage.monitor}"] = score = stage.validate()
            best.update({stage.monitor: score}, stage.module)
        for row in rows:
            step += 1
            run.log(step, **row)
        history += rows
        position = Position(phase, epoch, 0, step)
        run.checkpoint(position)
    return position


def take_step(update: OptimizerStep, loss: Tensor) -> StepResult:
    """Backpropagate a loss and take an optimiser step."""
    loss.backward()
    update()
    return StepResult(float(loss.detach()), update.norm)


def open_run(folder: str | Path | None, config: Any, fingerprint: Callable[[], str]) -> Run:
    """Open the run of a folder; without a folder nothing is kept.

    Args:
        folder: Run folder.
        config: Config with a ``seed``; if it is None, that of torch's generator is part of the
            run's identity.
        fingerprint: Function that hashes data and model.

    Raises:
        UserError: torchrun started several processes, which have not joined.
    """
    check_processes()
    hashed = "" if folder is None else fingerprint()
    return Run.open(folder, config, hashed, resolve_seed(config.seed))


def check_processes() -> None:
    """Check that several processes of torchrun have joined, and do not train one graph each.

    Raises:
        UserError: they have not.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1 and not dist.is_initialized():
        raise UserError(
            f"torchrun started {count} processes, each of which would train on the whole graph by "
            "itself; start one with python (GNNPipe.fit divides the work among all)"
        )
