"""params.yaml, checked; and the folders of a pipeline.

source: auto                # real data where cache or mirror hold them, else synthetic data
budget: 1.0                 # scales every `steps`
seeds: [0, 1, 2]
tasks:
  enhancement:              # sixfold.<domain>.tasks.enhancement
    data: {...}             # the task's own class
    defaults: {train: {...}}  # of its systems, where they say nothing else
    systems:
      frcrn: {system: frcrn, model: {...}, train: {...}}
"""

import hashlib
import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, NonNegativeInt, field_validator

from sixfold.core.config import Config, UserError, unknown_name_error
from sixfold.core.data.digests import first_fault
from sixfold.core.memory import check_memory
from sixfold.core.pipeline.code import task_hash
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.results import read_json
from sixfold.core.pipeline.task import STAGES, Source, Task
from sixfold.core.system import System, domain, find_system
from sixfold.core.weights.building import build_on_meta
from sixfold.core.yaml_files import read_yaml

PAPER = "-paper"  # ends the name of a pipeline that trains for longer


class Entry(Config):
    """One trained system of params.yaml.

    Args:
        system: Name of the system in its domain.
        model: Settings of the system that are not its defaults.
        train: Settings of the training, checked against the task's class.
        seeds: Number of the pipeline's seeds that are trained; None is all.
    """

    system: str
    model: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
    seeds: int | None = Field(default=None, ge=1)


class TaskParams(Config):
    """One task of params.yaml.

    Args:
        data: Settings of the data, checked against the task's class.
        defaults: Values of `Entry` that hold for each system which does not set them itself.
        systems: Trained systems, a baseline like any other.
    """

    data: dict[str, Any] = Field(default_factory=dict)
    defaults: dict[str, Any] = Field(default_factory=dict)
    systems: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Params(Config):
    """params.yaml."""

    source: Literal["auto", "real", "builtin"] = "auto"
    budget: float = Field(default=1.0, gt=0, le=1e6)
    seeds: list[NonNegativeInt] = Field(min_length=1, max_length=1000)
    tasks: dict[str, TaskParams] = Field(min_length=1)

    @field_validator("seeds")
    @classmethod
    def _refuse_doubles(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is there twice")
        return seeds


@dataclass(frozen=True)
class Pipeline:
    """One folder under ``pipelines/``, with its parameters checked.

    Args:
        name: Name of the folder: a domain's, or a domain's with ``-paper``.
        folder: Folder that holds params.yaml; ``data/`` and ``reports/`` are two levels up.
        params: Checked content of params.yaml.
    """

    name: str
    folder: Path
    params: Params

    @classmethod
    def find(cls, name: str, changes: Mapping[str, Any] | None = None) -> "Pipeline":
        """Read params.yaml of pipelines/<name> below this folder, or of this folder if it is that.

        Args:
            name: A domain, or a domain with ``-paper``.
            changes: Values to put in the place of the file's, by dotted key.

        Raises:
            UserError: the domain is not installed, there is no such file, or a value is wrong.
        """
        domain(name.removesuffix(PAPER))  # first, because its error is the more helpful one
        here = Path.cwd()
        inside = here.parent.name == "pipelines" and here.name == name
        folder = here if inside else here / "pipelines" / name
        path = folder / "params.yaml"
        values = read_yaml(path)
        for key, value in (changes or {}).items():
            _replace(values, key, value, path)
        return cls(name, folder, Params.parse(values, str(path)))

    @property
    def domain(self) -> str:
        """Name of the domain."""
        return self.name.removesuffix(PAPER)

    @property
    def root(self) -> Path:
        """Folder of the repository."""
        return self.folder.parent.parent

    @property
    def data_folder(self) -> Path:
        """Folder of the prepared data, which holds one for each task."""
        return self.root / "data" / self.name

    @cached_property
    def tasks(self) -> dict[str, "TaskRun"]:
        """The tasks of params.yaml, in its order.

        Raises:
            UserError: the domain has no task of that name.
        """
        return {key: TaskRun(self, key) for key in self.params.tasks}

    def task(self, key: str) -> "TaskRun":
        """Return one task.

        Raises:
            UserError: params.yaml has no task of that name.
        """
        if key not in self.tasks:
            where = str(self.folder / "params.yaml")
            raise UserError(unknown_name_error(where, "task", key, self.tasks))
        return self.tasks[key]


@dataclass(frozen=True)
class TaskRun:
    """One task of a pipeline: the domain's `Task` together with its block of params.yaml.

    Args:
        pipeline: Pipeline that the task belongs to.
        key: Name of the task.
    """

    pipeline: Pipeline
    key: str

    def __post_init__(self) -> None:
        package = importlib.import_module(f"sixfold.{self.pipeline.domain}.tasks")
        files = (Path(folder) for folder in package.__path__)
        known = sorted(f.stem for d in files for f in d.glob("*.py") if "\nTASK" in f.read_text())
        if self.key not in known:
            where = f"{self._file}: tasks"
            raise UserError(unknown_name_error(where, "task", self.key, known))

    @property
    def name(self) -> str:
        """Name of the task for the command line: pipeline/task."""
        return f"{self.pipeline.name}/{self.key}"

    @property
    def is_published_setting(self) -> bool:
        """Whether real data, the default ``data:`` and the whole budget are used."""
        whole = self.pipeline.params.budget >= 1 and self.source == "real"
        return whole and self.data == self.task.data()

    @property
    def module(self) -> str:
        """Name of the module that holds the task."""
        return f"sixfold.{self.pipeline.domain}.tasks.{self.key}"

    @cached_property
    def task(self) -> Task:
        """What the domain says of the task."""
        return importlib.import_module(self.module).TASK

    @property
    def params(self) -> TaskParams:
        """Block of params.yaml."""
        return self.pipeline.params.tasks[self.key]

    @cached_property
    def data(self) -> Any:
        """Checked ``data:`` block."""
        where = f"{self._file}: tasks.{self.key}.data"
        data = self.task.data.parse(self.params.data, where)
        if hasattr(data, "memory_bytes"):
            mend = f"make {_largest(data)} smaller"
            check_memory(f"{where}:", data.memory_bytes(), mend)
        return data

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Trained systems, in the order of params.yaml, with the task's defaults filled in."""
        where = f"{self._file}: tasks.{self.key}.systems"
        found = {}
        for key, values in self.params.systems.items():
            merged = {**self.params.defaults, **values}
            for block in ("model", "train"):
                parts = [b.get(block) or {} for b in (self.params.defaults, values)]
                if all(isinstance(part, Mapping) for part in parts):
                    merged[block] = {**parts[0], **parts[1]}
            found[key] = Entry.parse(merged, f"{where}.{key}")
            if key in self.task.references:
                raise UserError(f"{where}: {key} is the name of a reference; choose another")
            if key == "measurements" or not re.fullmatch(r"[a-z][a-z0-9_]*", key):
                raise UserError(f"{where}: {key!r} cannot be a name (a-z, 0-9, _); choose another")
        return found

    def entry(self, key: str) -> Entry:
        """Return one trained system.

        Raises:
            UserError: there is none of that name.
        """
        if key not in self.entries:
            where = f"{self._file}: tasks.{self.key}"
            raise UserError(unknown_name_error(where, "system", key, self.entries))
        return self.entries[key]

    def system(self, key: str) -> tuple[System, Config]:
        """Return the system of an entry, and its checked settings."""
        entry = self.entry(key)
        system = find_system(f"{self.pipeline.domain}/{entry.system}")
        where = f"{self._file}: tasks.{self.key}.systems.{key}.model"
        return system, system.config.parse(entry.model, where)

    def check_size(self, key: str) -> None:
        """Refuse an entry whose model would not fit into memory, or cannot be built.

        Raises:
            UserError: names the ``model:`` block and the bytes.
        """
        system, model = self.system(key)
        where = f"{self._file}: tasks.{self.key}.systems.{key}.model"
        build_on_meta(system.build, model, where)

    def settings(self, key: str) -> Any:
        """Return the checked ``train:`` block of an entry, its steps scaled by the budget."""
        where = f"{self._file}: tasks.{self.key}.systems.{key}.train"
        given: Any = self.task.settings.parse(self.entry(key).train, where)
        steps = max(1, round(given.steps * self.pipeline.params.budget))
        return given.model_copy(update={"steps": steps})

    def seeds(self, key: str) -> list[int]:
        """Return the seeds of an entry."""
        return self.pipeline.params.seeds[: self.entry(key).seeds]

    @property
    def prepared(self) -> Path:
        """Folder of the prepared data."""
        return self.pipeline.data_folder / self.key

    def folder(self, kind: str) -> Path:
        """Return the task's folder of results, curves, weights, samples or runs."""
        return self.pipeline.folder / kind / self.key

    def code(self, stage: str, key: str | None = None) -> str:
        """Return the hash of the code of a stage; with an entry, its system's code counts too."""
        return task_hash(self.module, STAGES[stage], *(self.system_modules(key) if key else ()))

    def system_modules(self, key: str) -> set[str]:
        """Return the modules in which an entry's system is defined."""
        system = self.system(key)[0]
        return {part.__module__ for part in (system.build, system.config, system.convert)}

    def job(self, key: str, seed: int) -> Job:
        """Return what trains, or scores, one seed of an entry.

        Raises:
            UserError: nothing was prepared, or ``data:`` was changed since.
        """
        system, model = self.system(key)
        settings = self.settings(key)
        parts = {
            "code": self.code("train", key),
            "data": self.prepared_with(),
            "model": model.model_dump(mode="json"),
            "train": settings.model_dump(mode="json"),
            "seed": seed,
        }
        identity = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return Job(
            system=system,
            model=model,
            train=settings,
            data=self.data,
            seed=seed,
            prepared=self.prepared,
            run=self.folder("runs") / key / f"seed-{seed}-{identity[:8]}",
            weights=self.folder("weights") / key / f"seed-{seed}.safetensors",
            identity=identity,
        )

    def prepared_with(self) -> dict[str, Any]:
        """Return what the last ``prepare`` left: source, settings, hashes of the files.

        Raises:
            UserError: nothing was prepared, or ``data:`` was changed since.
        """
        file, again = self.prepared / "prepared.json", f"sixfold prepare {self.name}"
        found = read_json(file, again)
        if not found.keys() >= {"data", "files"} or found.get("source") not in get_args(Source):
            raise UserError(f"{file} was written by another version of sixfold; run: {again}")
        if found["data"] != self.data.model_dump(mode="json"):
            raise UserError(
                f"{self._file}: tasks.{self.key}.data differs from what was prepared; run: {again}"
            )
        if self.pipeline.params.source not in ("auto", found["source"]):
            raise UserError(
                f"{self._file}: source: {self.pipeline.params.source}, but what was prepared is "
                f"{found['source']}; run: {again}"
            )
        return found

    def check_prepared(self) -> None:
        """Compare every prepared file with what ``prepare`` wrote.

        Raises:
            UserError: a file is missing or was changed, or as `prepared_with`.
        """
        if problem := first_fault(self.prepared, self.prepared_with()["files"]):
            raise UserError(f"{problem}; run: sixfold prepare {self.name}")

    @property
    def source(self) -> Source:
        """Source of the prepared data; see `prepared_with`."""
        return self.prepared_with()["source"]

    @property
    def benchmarks(self) -> list[Path]:
        """Committed tables of speed and memory that belong to the task."""
        folder = self.pipeline.root / "benchmarks" / "results"
        return [f for name in self.task.benchmarks if (f := folder / f"{name}.md").is_file()]

    @property
    def keys(self) -> tuple[str, ...]:
        """References, then entries: the rows of the results."""
        return *self.task.references, *self.entries

    def results(self) -> dict[str, dict[str, Any]]:
        """Return the results of the references and entries.

        Raises:
            UserError: one was not evaluated yet.
        """
        return {key: self._result(key) for key in self.keys}

    def measurements(self) -> list[dict[str, Any]]:
        """Return the rows of the measurements.

        Raises:
            UserError: the task was not evaluated yet.
        """
        return self._result("measurements")["measurements"]

    def _result(self, key: str) -> dict[str, Any]:
        return read_json(self.folder("results") / f"{key}.json", f"sixfold evaluate {self.name}")

    @property
    def _file(self) -> Path:
        return self.pipeline.folder / "params.yaml"


def _largest(data: Any) -> str:
    """Return the key of a ``data:`` block whose default would spare the most memory."""
    usual = type(data)()
    sizes = {
        key: data.model_copy(update={key: getattr(usual, key)}).memory_bytes()
        for key in type(data).model_fields
    }
    return min(sizes, key=lambda key: sizes[key])


def _replace(values: dict[str, Any], key: str, value: Any, path: Path) -> None:
    """Put a value in the place of the one at a dotted key.

    Raises:
        UserError: the file has no such key.
    """
    *parents, last = key.split(".")
    block = values
    for parent in parents:
        block = block.get(parent) if isinstance(block, dict) else None  # type: ignore[assignment]
    if not isinstance(block, dict):
        raise UserError(f"{path} has no {key!r} to set; give a key that is in the file")
    block[last] = value
