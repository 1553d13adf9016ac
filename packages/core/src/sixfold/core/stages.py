"""The stages of a domain's pipeline, source, prepare, train, evaluate: what DVC runs by the CLI."""

import hashlib
import shutil
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sixfold.core.config import UserError
from sixfold.core.convert import from_pretrained, save_pretrained
from sixfold.core.data import Dataset, available
from sixfold.core.distributed import rank
from sixfold.core.fit import fit, key
from sixfold.core.pipeline import INPUT, Pipeline, Source, write_json
from sixfold.core.report import write_text
from sixfold.core.run import Run

AROUND = ("cli", "export", "measure", "pipeline", "report", "stages")  # no part of training


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
        if rank() == 0:
            save_pretrained(weights / f"seed-{seed}.safetensors", model, system.name, config)
            curves.append((seed, (run.folder / "curve.csv").read_text(encoding="utf-8")))
    if rank() == 0:
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
    """Put the curves of all seeds, which have the same columns, into one CSV led by ``seed``."""
    header = curves[0][1].splitlines()[0]
    rows = [f"{seed},{row}" for seed, text in curves for row in text.splitlines()[1:]]
    return "\n".join([f"seed,{header}", *rows, ""])


def fingerprint(pipeline: Pipeline) -> str:
    """Hash the prepared data and the source of every module of sixfold that training imported."""
    digest = hashlib.sha256((pipeline.prepared / "manifest.json").read_bytes())
    for name, module in sorted(sys.modules.items()):
        if (
            name.startswith("sixfold.")
            and name.rpartition(".")[2] not in AROUND
            and getattr(module, "__file__", None)
        ):
            digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()
