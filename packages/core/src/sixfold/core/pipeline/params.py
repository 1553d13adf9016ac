"""A domain's pipeline: its folder, its checked parameters, and what its domain says of it.

A domain says what is special about it in its module ``recipe``:

    DataConfig                         the ``data:`` block of params.yaml, which holds ``source``
                                       and a block for each task
    datasets(data) -> list[Dataset]    what `real` needs
    prepare(data, source, folder)      write the prepared data, a folder with a manifest.json a task
    TASKS: dict[str, Task | OwnTask]   the experiments
    report(pipeline)                   write the report
"""

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from sixfold.core.config import Config, UserError, read_yaml, unknown_name_error
from sixfold.core.pipeline.report import write_text
from sixfold.core.system import System, domain, find_system
from sixfold.core.training.fit import FitConfig

Source = Literal["real", "builtin"]


@dataclass(frozen=True)
class Task:
    """One experiment of a domain, trained by `fit`: what it trains on, its loss, its scores.

    Args:
        training_set: Of the task's prepared folder and its block of ``data:``; a dataset for `fit`.
        loss: As `fit` takes it.
        evaluate: Scores of a trained model or of the reference of this name, on the prepared data;
            None is a score that was not measured. Writes what the report shows to the last
            argument, if that is a folder.
        references: What is scored beside the trained systems, such as the input as it is.
    """

    training_set: Callable[[Path, Any], Any]
    loss: Callable[[Any, dict[str, Tensor]], Any]
    evaluate: Callable[[nn.Module | str, Path, Path | None], dict[str, float | None]]
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One seed of an entry, for an experiment that trains in its own way.

    Args:
        config: Settings of the system.
        settings: The entry's ``train:`` block, its steps scaled by the budget.
        data: The task's block of ``data:``.
        seed: Of the training.
        prepared: The task's prepared data.
        run: A folder, where what a killed training left is found again.
        weights: Where trained weights go: files whose path begins so.
    """

    config: Any
    settings: Any
    data: Any
    seed: int
    prepared: Path
    run: Path
    weights: Path


@dataclass(frozen=True)
class OwnTask:
    """One experiment of a domain whose systems train in their own way.

    Args:
        settings: Class of the ``train:`` block, with at least ``steps`` and ``threads``.
        train: Trains, and writes the weights.
        evaluate: As of `Task`; a trained seed is its `Job`.
        references: As of `Task`.
    """

    settings: type[Config]
    train: Callable[[Job], object]
    evaluate: Callable[[Job | str, Path, Path | None], dict[str, float | None]]
    references: tuple[str, ...] = ()


class Entry(Config):
    """One trained system of params.yaml.

    Args:
        task: Its experiment.
        system: Of the domain.
        model: Settings of the system that are not its defaults.
        train: Checked against what the task says.
        seeds: Only the first so many of the pipeline's.
    """

    task: str
    system: str
    model: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any]
    seeds: int | None = Field(default=None, ge=1)


class Params(Config):
    """params.yaml; ``data`` is checked against the domain's own class."""

    data: dict[str, Any]
    budget: float = Field(default=1.0, gt=0)
    seeds: list[int] = Field(min_length=1)
    systems: dict[str, Entry] = Field(min_length=1)


@dataclass(frozen=True)
class Pipeline:
    """One domain's folder under ``pipelines/``, with its parameters checked.

    Args:
        name: The domain's.
        folder: Holds params.yaml; ``data/`` and ``reports/`` are two levels up.
        params: What the file says.
    """

    name: str
    folder: Path
    params: Params

    @classmethod
    def find(cls, name: str) -> "Pipeline":
        """Read params.yaml of this folder, pipelines/<name> or <name>-paper, or of <name> below it.

        Raises:
            UserError: the domain is not installed, there is no such file, or a value is wrong.
        """
        domain(name)  # first, because its error is the more helpful one
        here = Path.cwd()
        inside = here.parent.name == "pipelines" and here.name in (name, f"{name}-paper")
        folder = here if inside else here / "pipelines" / name
        path = folder / "params.yaml"
        return cls(name, folder, Params.parse(read_yaml(path), str(path)))

    @cached_property
    def recipe(self) -> ModuleType:
        """The domain's recipe."""
        return importlib.import_module(f"sixfold.{self.name}.recipe")

    @cached_property
    def data(self) -> Config:
        """The ``data:`` block, checked."""
        where = f"{self.folder / 'params.yaml'}: data"
        return self.recipe.DataConfig.parse(self.params.data, where)

    @property
    def root(self) -> Path:
        """The repository."""
        return self.folder.parent.parent

    @property
    def prepared(self) -> Path:
        """The folder of prepared data, which holds one for each task."""
        return self.root / "data" / self.folder.name

    def task(self, key: str) -> str:
        """Return the name of the task that an entry or a reference belongs to.

        Raises:
            UserError: there is neither of that name, or no such task.
        """
        tasks = self.recipe.TASKS
        for name, task in tasks.items():
            if key in task.references:
                return name
        name, where = self.entry(key).task, self.folder / "params.yaml"
        if name not in tasks:
            raise UserError(unknown_name_error(f"{where}: systems.{key}", "task", name, tasks))
        return name

    def of_task(self, name: str) -> tuple[str, ...]:
        """Return a task's references, and then its entries in the order of params.yaml."""
        entries = (key for key, entry in self.params.systems.items() if entry.task == name)
        return *self.recipe.TASKS[name].references, *entries

    @property
    def source_file(self) -> Path:
        """Says which source `auto` means; DVC compares it to decide what to run again."""
        return self.root / "data" / f"{self.folder.name}.source.json"

    def entry(self, key: str) -> Entry:
        """Return one entry of ``systems:``.

        Raises:
            UserError: there is none of that name.
        """
        if key not in self.params.systems:
            where = str(self.folder / "params.yaml")
            known = [name for task in self.recipe.TASKS.values() for name in task.references]
            raise UserError(
                unknown_name_error(where, "system", key, [*self.params.systems, *known])
            )
        return self.params.systems[key]

    def system(self, key: str) -> tuple[System, Config]:
        """Return the system of an entry, and its checked settings."""
        entry = self.entry(key)
        system = find_system(f"{self.name}/{entry.system}")
        where = f"{self.folder / 'params.yaml'}: systems.{key}.model"
        return system, system.config.parse(entry.model, where)

    def settings(self, key: str) -> Any:
        """Return the checked ``train:`` block of an entry, its steps scaled by the budget."""
        task = self.recipe.TASKS[self.task(key)]
        kind = task.settings if isinstance(task, OwnTask) else FitConfig
        where = f"{self.folder / 'params.yaml'}: systems.{key}.train"
        given = kind.parse(self.entry(key).train, where)
        steps = max(1, round(given.steps * self.params.budget))  # type: ignore[attr-defined]
        return given.model_copy(update={"steps": steps})

    def seeds(self, key: str) -> list[int]:
        """Return the seeds of an entry."""
        return self.params.seeds[: self.entry(key).seeds]

    def steps(self, name: str) -> int:
        """Return the optimiser steps of an entry, scaled by the budget."""
        return self.settings(name).steps

    def job(self, name: str, seed: int) -> Job:
        """Return what an `OwnTask` needs to train, or to score, one seed of an entry."""
        task = self.task(name)
        return Job(
            config=self.system(name)[1],
            settings=self.settings(name),
            data=getattr(self.data, task),
            seed=seed,
            prepared=self.prepared / task,
            run=self.folder / "runs" / name / f"seed-{seed}",
            weights=self.folder / "weights" / name / f"seed-{seed}",
        )

    def source(self) -> Source:
        """Return what the last `prepare` used.

        Raises:
            UserError: nothing was prepared yet.
        """
        if not self.source_file.is_file():
            raise UserError(f"there is no {self.source_file}; first: sixfold prepare {self.name}")
        return json.loads(self.source_file.read_text(encoding="utf-8"))["source"]

    def results(self, task: str) -> dict[str, dict[str, Any]]:
        """Return the results of a task's references and entries.

        Raises:
            UserError: one was not evaluated yet.
        """
        found = {}
        for name in self.of_task(task):
            path = self.folder / "results" / f"{name}.json"
            if not path.is_file():
                raise UserError(f"there is no {path}; first: sixfold evaluate {self.name}/{name}")
            found[name] = json.loads(path.read_text(encoding="utf-8"))
        return found


def write_json(path: Path, value: Any) -> None:
    """Write sorted keys, numbers to 6 significant digits, a newline at the end; all or nothing."""

    def rounded(item: Any) -> Any:
        if isinstance(item, Mapping):
            return {k: rounded(v) for k, v in item.items()}
        if isinstance(item, list):
            return [rounded(v) for v in item]
        return float(f"{item:.6g}") if isinstance(item, float) else item

    text = json.dumps(rounded(value), indent=2, sort_keys=True, allow_nan=False)
    write_text(path, text + "\n")
