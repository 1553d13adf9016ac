"""The stages of a domain's pipeline: prepare, train, evaluate; what DVC runs and the CLI calls.

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

import hashlib
import importlib
import json
import shutil
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from sixfold.core.config import Config, UserError, read_yaml, unknown
from sixfold.core.convert import from_pretrained, save_pretrained
from sixfold.core.data import Dataset, available
from sixfold.core.fit import FitConfig, fit, key
from sixfold.core.report import write_text
from sixfold.core.run import Run
from sixfold.core.system import System, domain, find_system

INPUT = "input"  # what `evaluate` calls the unprocessed input, beside the entries of params.yaml
Source = Literal["real", "builtin"]


class Entry(Config):
    """One trained system of params.yaml."""

    system: str
    model: dict[str, Any] = {}
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


def choose_source(pipeline: Pipeline) -> Source:
    """Decide what ``data.source`` means on this machine, write it down, and say it."""
    wanted = pipeline.data.source  # type: ignore[attr-defined]
    sets = pipeline.recipe.datasets(pipeline.data)
    missing = [dataset.name for dataset in sets if not available(dataset)]
    source: Source = "builtin" if wanted == "builtin" or (wanted == "auto" and missing) else "real"
    checksums = {d.name: _checksum(d) for d in sets} if source == "real" else {}
    write_json(pipeline.source_file, {"source": source, "datasets": checksums})
    if source == "builtin" and wanted == "auto":
        print(
            f"BUILT-IN SOURCE: {', '.join(missing)} neither in SIXFOLD_CACHE nor in SIXFOLD_MIRROR;"
            " every result will say so (data.source: real downloads what can be downloaded)"
        )
    else:
        print(f"source: {source}")
    return source


def _checksum(dataset: Dataset) -> str:
    listed = "".join(f"{file.sha256} {file.path}\n" for file in dataset.files)
    return hashlib.sha256(listed.encode()).hexdigest()


def prepare(pipeline: Pipeline) -> None:
    """Write the prepared data; a folder that exists is replaced once the new one is whole."""
    source = choose_source(pipeline)
    pipeline.recipe.prepare(pipeline.data, source, pipeline.prepared)
    print(f"prepared: {pipeline.prepared}")


def train(pipeline: Pipeline, name: str) -> None:
    """Train every seed of an entry; write its weights and its curve.

    Checkpoints live in ``runs/``, which DVC does not know and so does not delete: a killed stage
    continues where it was, a finished one writes its outputs again without training.
    """
    system, config = pipeline.system(name)
    entry, recipe = pipeline.entry(name), pipeline.recipe
    settings = entry.train.model_copy(update={"steps": pipeline.steps(name)})
    dataset = recipe.training_set(pipeline.prepared, pipeline.data)
    weights, curves = pipeline.folder / "weights" / name, []
    for seed in pipeline.params.seeds:
        torch.manual_seed(key(seed, "init"))
        model = system.build(config)
        run = Run.open(
            pipeline.folder / "runs" / name / f"seed-{seed}",
            {"model": config.model_dump(), "train": settings.model_dump(), "seed": seed},
            fingerprint(pipeline),
        )
        fit(run, model, dataset, recipe.loss, settings, seed=seed)
        save_pretrained(weights / f"seed-{seed}.safetensors", model, system.name, config)
        curves.append((seed, (run.folder / "curve.csv").read_text(encoding="utf-8")))
    write_text(pipeline.folder / "curves" / f"{name}.csv", join_curves(curves))
    print(f"weights: {weights}")


@torch.inference_mode()
def evaluate(pipeline: Pipeline, name: str) -> None:
    """Score every seed of an entry, or the `input` as it is; write results and samples."""
    samples = pipeline.folder / "samples" / name
    shutil.rmtree(samples, ignore_errors=True)
    samples.mkdir(parents=True)
    result: dict[str, Any] = {"source": pipeline.source(), "budget": pipeline.params.budget}
    if name == INPUT:
        scores = {"input": pipeline.recipe.evaluate(None, pipeline.prepared, samples)}
    else:
        system, config = pipeline.system(name)
        trained = system.build(config).parameters()
        result |= {"system": system.name, "model": config.model_dump(mode="json")}
        result["parameters"] = sum(p.numel() for p in trained if p.requires_grad)
        result["steps"] = pipeline.steps(name)
        scores = {}
        for seed in pipeline.params.seeds:
            model = load_seed(pipeline, name, seed)
            shown = samples if seed == pipeline.params.seeds[0] else None
            scores[str(seed)] = pipeline.recipe.evaluate(model, pipeline.prepared, shown)
    metrics = next(iter(scores.values()))
    result["seeds"] = scores
    result["mean"] = {m: summary(scores, m, statistics.fmean) for m in metrics}
    result["std"] = {m: summary(scores, m, statistics.stdev) for m in metrics}
    path = pipeline.folder / "results" / f"{name}.json"
    write_json(path, result)
    print(f"results: {path}")


def load_seed(pipeline: Pipeline, name: str, seed: int) -> nn.Module:
    """Load the trained weights of one seed, in eval mode."""
    path = pipeline.folder / "weights" / name / f"seed-{seed}.safetensors"
    if not path.is_file():
        raise UserError(f"there is no {path}; first: sixfold train {pipeline.name}/{name}")
    return from_pretrained(path, pipeline.system(name)[0])


def summary(scores: Mapping[str, Mapping[str, float | None]], metric: str, of: Any) -> float | None:
    """Summarise a metric over seeds; None if it was not measured, or has no spread."""
    values = [seed[metric] for seed in scores.values()]
    if None in values or (of is statistics.stdev and len(values) < 2):
        return None
    return of(values)


def join_curves(curves: list[tuple[int, str]]) -> str:
    """Put the curves of all seeds into one CSV with a column ``seed`` in front."""
    header = curves[0][1].splitlines()[0]
    rows = [f"{seed},{row}" for seed, text in curves for row in text.splitlines()[1:]]
    return "\n".join([f"seed,{header}", *rows, ""])


def fingerprint(pipeline: Pipeline) -> str:
    """Hash the prepared data and the source of every module of sixfold that training imported."""
    here = {f"sixfold.core.{name}" for name in ("cli", "pipeline", "report", "measure", "export")}
    digest = hashlib.sha256((pipeline.prepared / "manifest.json").read_bytes())
    for name, module in sorted(sys.modules.items()):
        if name.startswith("sixfold.") and name not in here and getattr(module, "__file__", None):
            digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()


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
