"""Train a published system on one's own data: what ``sixfold train <domain>/<system>`` does.

    from sixfold.core import train

    model = train("speech/frcrn", data="recordings", out="runs/mine", weights="FRCRN_SE_16K")

A domain says in a `Recipe` how its layouts are opened and what its systems learn by; `command`
makes the function of it that `System.train` names. The run folder holds the curve, the checkpoints
that a stopped training goes on from, and at the end ``model.safetensors``.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from torch import nn

from sixfold.core.config import Config, UserError
from sixfold.core.data.digests import sha256
from sixfold.core.system import System, find_system, load_function
from sixfold.core.training.distributed import rank
from sixfold.core.training.fit import FitConfig, Loss, MakeOptimizer, fit
from sixfold.core.training.provenance import to_text
from sixfold.core.training.run import Run
from sixfold.core.training.sampling import derive_seed
from sixfold.core.training.schedule import ScheduleConfig
from sixfold.core.weights.convert import from_pretrained, save_pretrained
from sixfold.core.weights.published import find_weights
from sixfold.core.yaml_files import parse_settings

MODEL = "model.safetensors"


@dataclass(frozen=True)
class Splits:
    """One's own data, opened.

    Args:
        train: Training set; see `sixfold.core.training.fit.fit`.
        valid: Validation set, as the recipe's ``evaluate`` takes it.
        files: Files behind both; another name or size is another training.
        loss: Loss, where data or options decide on it; by default the recipe's.
        optimizer: Function that makes the optimiser, likewise; see `sixfold.core.training.fit.fit`.
        schedule: Schedule of the learning rate, likewise.
    """

    train: Any
    valid: Any
    files: Iterable[Path]
    loss: Loss | None = None
    optimizer: MakeOptimizer | None = None
    schedule: ScheduleConfig | None = None


@dataclass(frozen=True)
class Recipe:
    """How a system learns from one's own data.

    Args:
        open: Function of (data, valid, model, options, seed) that opens a layout; its UserErrors
            say what is wrong before anything is trained.
        loss: Loss of a model and a batch; see `sixfold.core.training.fit.fit`. None where ``open``
            gives it.
        evaluate: Scores of a model on the validation set.
        fit: How to train, if nothing else is asked for. ``best`` names the score that decides, and
            the schedule does not depend on the number of steps, so that more can follow later.
        options: Settings of the data, which become options of the command.
        build: Function of (system, weights, settings, data, options) that makes the model to train,
            where the data decide on a part of it, such as the number of classes.
    """

    open: Callable[[Path, Path | float, Any, Any, int], Splits]
    loss: Loss | None
    evaluate: Callable[[Any, Any], Mapping[str, float]]
    fit: FitConfig
    options: type[Config]
    build: Callable[[System, str | None, dict[str, Any], Path, Any], Any] | None = None


def train(name: str, **arguments: Any) -> nn.Module:
    """Train a system on one's own data and return it, in eval mode.

    Args:
        name: domain/system, e.g. speech/frcrn.
        arguments: Options of ``sixfold train <name> --help``, by name: ``data``, ``out``,
            ``weights`` (there ``--from``), ``steps`` ...

    Raises:
        UserError: there is no such system or option, or the data cannot be trained on.
    """
    target = find_system(name).train
    if target is None:
        raise UserError(f"{name} cannot be trained on one's own data")
    function = load_function(target)
    try:
        signature(function).bind(**arguments)
    except TypeError as error:
        mend = f"its options are those of `sixfold train {name} --help`"
        raise UserError(f"{name}: {error}; {mend}") from None
    paths = {key: Path(arguments[key]) for key in ("data", "out") if key in arguments}
    return function(**arguments | paths)


def command(system: System, recipe: Recipe) -> Callable[..., nn.Module]:
    """Make the function behind ``sixfold train`` of a system from its recipe."""
    default, stopping, build = recipe.fit, recipe.fit.best, recipe.build or initial_model
    assert stopping is not None  # a recipe's promise

    def train(
        *,
        data: Path,
        out: Path,
        weights: Annotated[str | None, Parameter(name="--from")] = None,
        valid: str | Path | float = 0.1,
        steps: int = default.steps,
        batch: int = default.batch,
        learning_rate: float = default.learning_rate,
        patience: int | None = stopping.patience,
        eval_every: int | None = default.eval_every,
        seed: int = 0,
        precision: str = default.precision,
        threads: int | None = None,
        workers: int = 0,
        set: list[str] | None = None,
        options: Any = None,
    ) -> nn.Module:
        """Train on your own data, or fine-tune: the result is a checkpoint for `sixfold run`.

        A training that was stopped goes on where it was; the same command with more --steps goes
        on from its end. With other data or settings a run folder is set aside as OUT.old-1.

        Args:
            data: Folder or list of the data, in one of the layouts that the README shows.
            out: Run folder: curve.csv, checkpoints, and at the end model.safetensors.
            weights: Checkpoint, or name of published weights, to start from; none by default.
            valid: Validation data in the same layout, or the fraction of the data to hold out.
            steps: Number of optimiser steps.
            batch: Number of items of a step.
            learning_rate: Peak learning rate.
            patience: Number of evaluations in a row without improvement to stop after.
            eval_every: Steps between evaluations; if unset once an epoch, at least every 500.
            seed: Seed of first weights, order, crops and what is held out.
            precision: 32 or bf16.
            threads: Number of CPU threads; by default all.
            workers: Number of processes that load data.
            set: Setting of the model, e.g. channels=64; may be repeated.
            options: Settings of the data.
        """
        if not isinstance(options, Config):
            options = recipe.options.parse(options or {}, "options")
        given = {"steps": steps, "batch": batch, "learning_rate": learning_rate, "threads": threads}
        given |= {"precision": precision, "workers": workers, "eval_every": eval_every}
        given |= {"best": stopping.model_dump() | {"patience": patience}}
        config = FitConfig.parse(default.model_dump() | given, f"sixfold train {system.name}")
        torch.manual_seed(derive_seed(seed, "init"))
        model = build(system, weights, parse_settings(set or []), Path(data), options)
        opened = recipe.open(Path(data), _path_or_fraction(valid), model, options, seed)
        start = sha256(find_weights(weights, system)) if weights else ""
        identity = {"from": start, "valid": str(valid), "options": options.model_dump()}
        return _train(system, recipe, model, opened, config, identity, out, seed)

    train.__annotations__["options"] = Annotated[recipe.options | None, Parameter(name="*")]
    return train


# What may be another the next time, when a training goes on.
UNDECIDING = {"steps", "threads", "workers", "log_every", "ckpt_every", "ckpt_seconds"}


READ_AT_MOST = 4 << 30  # bytes of data whose contents are part of what a run is


def _train(
    system: System,
    recipe: Recipe,
    model: Any,
    opened: Splits,
    config: FitConfig,
    identity: dict[str, Any],
    out: Path,
    seed: int,
) -> nn.Module:
    if opened.schedule is not None:
        config = config.model_copy(update={"schedule": opened.schedule})
    if config.eval_every is None:
        epoch = -(-len(opened.train) // config.batch)
        config = config.model_copy(update={"eval_every": min(500, epoch)})
    identity |= {"model": model.config.model_dump(), "train": config.model_dump(exclude=UNDECIDING)}
    identity |= {"sixfold": version("sixfold-core")}
    run = Run.open(out, identity, _listing(opened.files), seed)
    if run.state == "fresh" and identity["from"]:
        with torch.no_grad():
            print(f"before: {_text(recipe.evaluate(model.eval(), opened.valid))}", flush=True)

    def evaluate(trained: nn.Module) -> Mapping[str, float]:
        return recipe.evaluate(trained, opened.valid)

    loss, optimizer = opened.loss or recipe.loss, opened.optimizer
    assert loss is not None  # a recipe's promise
    scores = fit(
        run, model, opened.train, loss, config, seed=seed, evaluate=evaluate, optimizer=optimizer
    )
    if rank() == 0:
        save_pretrained(run.folder / MODEL, model, system.name, model.config)
        print(f"{run.folder / MODEL}: {_text(scores)}", flush=True)
    return model


def initial_model(system: System, weights: str | None, settings: dict[str, Any], *_: Any) -> Any:
    """Build the model to train: from a checkpoint, or from settings alone."""
    if weights is not None:
        return from_pretrained(weights, system, **settings)
    return system.build(system.config.parse(settings, f"--set of {system.name}"))


def _path_or_fraction(valid: str | Path | float) -> Path | float:
    try:
        fraction = float(valid)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return Path(valid)  # type: ignore[arg-type]
    if not 0 < fraction < 1:
        raise UserError(f"--valid is a folder, or a fraction between 0 and 1; got {valid}")
    return fraction


def _text(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in scores.items())


def _listing(files: Iterable[Path]) -> str:
    """Hash names, sizes and contents of files.

    Of large sets names and sizes alone, because to read all of them would take too long.
    """
    sizes = {file: file.stat().st_size for file in files}
    small = sum(sizes.values()) <= READ_AT_MOST
    rows = sorted((file.name, size, sha256(file) if small else "") for file, size in sizes.items())
    return hashlib.sha256(to_text({"files": rows}).encode()).hexdigest()
