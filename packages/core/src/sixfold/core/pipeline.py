"""A domain's pipeline: its folder, its checked parameters, and what its domain says of it.

A domain says what is special about it in its module ``recipe``:

    DataConfig                         the ``data:`` block of params.yaml
    datasets(data) -> list[Dataset]    what `real` needs
    prepare(data, source, folder)      write the prepared data, with a manifest.json
    training_set(folder, data)         a dataset for `fit`
    loss(model, batch)                 as `fit` takes it
    evaluate(model, folder, samples)   scores of one trained model, or of the input if it is None;
                                       writes what the report shows
    report(pipeline)                   write the report
"""

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import Field

from sixfold.core.config import Config, UserError, read_yaml, unknown
from sixfold.core.fit import FitConfig
from sixfold.core.report import write_text
from sixfold.core.system import System, domain, find_system

INPUT = "input"  # what `evaluate` calls the unprocessed input, beside the entries of params.yaml
Source = Literal["real", "builtin"]


class Entry(Config):
    """One trained system of params.yaml."""

    system: str
    model: dict[str, Any] = Field(default_factory=dict)
    train: FitConfig


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
        """Read params.yaml of this folder, or of pipelines/<name> below it.

        Raises:
            UserError: the domain is not installed, there is no such file, or a value is wrong.
        """
        domain(name)  # first, because its error is the more helpful one
        here = Path.cwd()
        folder = here if here.name == name and here.parent.name == "pipelines" else None
        folder = folder or here / "pipelines" / name
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
        """The folder of prepared data."""
        return self.root / "data" / self.name

    @property
    def source_file(self) -> Path:
        """Says which source `auto` means; DVC compares it to decide what to run again."""
        return self.root / "data" / f"{self.name}.source.json"

    def entry(self, key: str) -> Entry:
        """Return one entry of ``systems:``.

        Raises:
            UserError: there is none of that name.
        """
        if key not in self.params.systems:
            where = str(self.folder / "params.yaml")
            raise UserError(unknown(where, "system", key, self.params.systems))
        return self.params.systems[key]

    def system(self, key: str) -> tuple[System, Config]:
        """Return the system of an entry, and its checked settings."""
        entry = self.entry(key)
        system = find_system(f"{self.name}/{entry.system}")
        where = f"{self.folder / 'params.yaml'}: systems.{key}.model"
        return system, system.config.parse(entry.model, where)

    def steps(self, name: str) -> int:
        """Return the optimiser steps of an entry, scaled by the budget."""
        return max(1, round(self.entry(name).train.steps * self.params.budget))

    def source(self) -> Source:
        """Return what the last `prepare` used.

        Raises:
            UserError: nothing was prepared yet.
        """
        if not self.source_file.is_file():
            raise UserError(f"there is no {self.source_file}; first: sixfold prepare {self.name}")
        return json.loads(self.source_file.read_text(encoding="utf-8"))["source"]

    def results(self) -> dict[str, dict[str, Any]]:
        """Return the results of the input and of all entries, in the order of params.yaml.

        Raises:
            UserError: one was not evaluated yet.
        """
        found = {}
        for name in (INPUT, *self.params.systems):
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
