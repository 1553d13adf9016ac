"""The loop behind ForwardGNN and Mowst: stages one after the other, each with its best weights.

A method opens its stages, which train one part of a model each: a layer, an expert, or all of it.
Every finished epoch is a position of the `Run`, so that a training that was killed goes on with the
same numbers. Without a folder nothing is written.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from sixfold.core import Config
from sixfold.core.training.run import Position, Run
from sixfold.core.training.update import Best, EarlyStopping, OptimizerStep

Row = dict[str, float | int]


class Loss(NamedTuple):
    """One optimiser step: the loss before it; the norm of the gradient, before it was clipped."""

    loss: float
    gradient_norm: float


@dataclass(frozen=True)
class Stage:
    """One optimisation.

    Args:
        module: Whose best weights are kept.
        step: Does one epoch and says what every optimiser step of it was.
        validate: Scores the weights; without it the last weights are kept.
        monitor: What the score is; a loss should be small, anything else large.
        epochs: At most.
        validate_every: Epochs between validations.
        patience: Stop at the so-manieth validation in a row that was no improvement.
    """

    module: nn.Module
    step: Callable[[], Iterator[Loss]]
    validate: Callable[[], float] | None
    monitor: Literal["accuracy", "auc", "loss"]
    epochs: int
    validate_every: int = 1
    patience: int | None = None


@runtime_checkable
class Method(Protocol):
    """A way of training; see `sixfold.graphs.models.forwardgnn.layerwise` for an example."""

    def objects(self) -> dict[str, Any]:
        """Name all that has state, for `Run.register`."""
        ...

    def open(self, number: int) -> Stage | None:
        """Prepare a stage from the present weights; None after the last."""
        ...

    def close(self, number: int, best: Best) -> None:
        """Finish a stage, whose best weights are in the model again."""
        ...


def train(method: Method, run: Run, stages: range | None = None) -> list[Row]:
    """Train stage after stage, going on where the run was left.

    Args:
        method: What to train, and how.
        run: From `open_run`.
        stages: Which; all from the first on if not given.

    Returns:
        A row for every optimiser step that was taken here: stage, epoch, loss, gradient_norm, and
        the score, such as valid_accuracy, where there was a validation.
    """
    best = Best(EarlyStopping())
    for name, obj in (method.objects() | {"best": best}).items():
        run.register(name, obj)
    stages = stages or range(10**9)
    position = run.restore() or Position(phase=stages.start)
    history: list[Row] = []
    while position.phase < stages.stop and (stage := method.open(position.phase)):
        mode = "min" if stage.monitor == "loss" else "max"
        best.config = EarlyStopping(monitor=stage.monitor, mode=mode, patience=stage.patience)
        position = _optimise(stage, best, position, run, history)
        best.copy_to(stage.module)
        method.close(position.phase, best)
        best.load_state_dict(Best(best.config).state_dict())
        position = Position(phase=position.phase + 1, step=position.step)
        run.save(position)
        del stage  # with all that it kept, before the next one is opened
    return history


def _optimise(stage: Stage, best: Best, position: Position, run: Run, history: list) -> Position:
    phase, step = position.phase, position.step
    for epoch in range(position.epoch + 1, stage.epochs + 1):
        if best.should_stop:
            break
        rows: list[Row] = [
            {"stage": phase, "epoch": epoch, **loss._asdict()} for loss in stage.step()
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


def take_step(update: OptimizerStep, loss: Tensor) -> Loss:
    """Run backward and let the optimiser step."""
    loss.backward()
    update()
    return Loss(float(loss.detach()), update.norm)


def open_run(folder: str | Path | None, config: Config, fingerprint: Callable[[], str]) -> Run:
    """Open the run of a folder; without a folder nothing will be kept."""
    return Run.open(folder, config, "" if folder is None else fingerprint())
