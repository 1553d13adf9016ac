"""The stages of a domain's pipeline, source, prepare, train, evaluate: what DVC runs by the CLI."""

import hashlib
import json
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sixfold.core.config import UserError
from sixfold.core.data.fetch import Dataset, available
from sixfold.core.pipeline.parallel import run_parallel
from sixfold.core.pipeline.params import Job, OwnTask, Pipeline, Source, write_json
from sixfold.core.pipeline.report import write_text
from sixfold.core.training.distributed import rank, world_size
from sixfold.core.training.fit import derive_seed, fit
from sixfold.core.training.provenance import archive_run
from sixfold.core.training.run import Run
from sixfold.core.weights.convert import from_pretrained, save_pretrained

AROUND = (
    "claims",
    "cli",
    "export",
    "learning",
    "measure",
    "pipeline",
    "report",
    "side_by_side",
    "stages",
)  # no part of training


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


def train(pipeline: Pipeline, names: Sequence[str], at_once: int = 1) -> None:
    """Train every seed of some entries; write their weights and curves.

    Checkpoints live in ``runs/``, which DVC does not know and so does not delete: a killed stage
    continues where it was, a finished one writes its outputs again without training.

    Args:
        pipeline: The domain's.
        names: Of the entries.
        at_once: Seeds that train side by side, in forked processes: one, where a backward pass ran
            in this process before, because PyTorch's autograd does not survive a fork.
    """
    beside = at_once > 1 and world_size() == 1
    if beside:
        seeds = [(name, seed) for name in names for seed in pipeline.seeds(name)]
        jobs = {f"{name}, seed {seed}": (pipeline, name, seed) for name, seed in seeds}
        run_parallel(train_seed, jobs, at_once)
    for name in names:
        if not isinstance(pipeline.recipe.TASKS[pipeline.task(name)], OwnTask):
            _write_trained(pipeline, name)
        elif not beside:
            for seed in pipeline.seeds(name):
                train_seed(pipeline, name, seed)
        print(f"weights: {pipeline.folder / 'weights' / name}")


def _write_trained(pipeline: Pipeline, name: str) -> None:
    system, config = pipeline.system(name)
    weights, curves = pipeline.folder / "weights" / name, []
    for seed in pipeline.seeds(name):
        model, run = _fit_seed(pipeline, name, seed)
        if rank() == 0:
            save_pretrained(weights / f"seed-{seed}.safetensors", model, system.name, config)
            curves.append((seed, (run.folder / "curve.csv").read_text(encoding="utf-8")))
    if rank() == 0:
        write_text(pipeline.folder / "curves" / f"{name}.csv", join_curves(curves))


def train_seed(pipeline: Pipeline, name: str, seed: int) -> None:
    """Train one seed of an entry, from wherever its run stands."""
    task = pipeline.recipe.TASKS[pipeline.task(name)]
    if isinstance(task, OwnTask):
        job = pipeline.job(name, seed)
        _leave_other_code_behind(job)
        task.train(job)
    else:
        _fit_seed(pipeline, name, seed)


def _leave_other_code_behind(job: Job) -> None:
    """Move a run aside that other data or code began: its own config would not tell."""
    record, now = job.run.with_suffix(".fingerprint"), fingerprint(job.prepared)
    known = record.read_text(encoding="utf-8") if record.is_file() else ""
    if job.run.exists() and known != now:
        archive_run(job.run, "is of other data or code")
    write_text(record, now)


def _fit_seed(pipeline: Pipeline, name: str, seed: int) -> tuple[nn.Module, Run]:
    system, config = pipeline.system(name)
    settings, key_of_task = pipeline.settings(name), pipeline.task(name)
    task, folder = pipeline.recipe.TASKS[key_of_task], pipeline.prepared / key_of_task
    dataset = task.training_set(folder, getattr(pipeline.data, key_of_task))
    torch.manual_seed(derive_seed(seed, "init"))
    model = system.build(config)
    run = Run.open(
        pipeline.folder / "runs" / name / f"seed-{seed}",
        {"model": config.model_dump(), "train": settings.model_dump(), "seed": seed},
        fingerprint(folder),
    )
    fit(run, model, dataset, task.loss, settings, seed=seed)
    return model, run


def evaluate(pipeline: Pipeline, names: Sequence[str], at_once: int = 1) -> None:
    """Score some references, and every seed of some entries; write results and samples.

    Args:
        pipeline: The domain's.
        names: Of entries and references.
        at_once: Of these that are scored side by side, in forked processes.
    """
    jobs = {}
    for name in names:
        samples = pipeline.folder / "samples" / name
        shutil.rmtree(samples, ignore_errors=True)
        samples.mkdir(parents=True)
        for seed in _seeds(pipeline, name):
            if seed is not None:
                weights_of(pipeline, name, seed)
            jobs[name if seed is None else f"{name}, seed {seed}"] = (pipeline, name, seed)
    if at_once > 1:
        run_parallel(score, jobs, at_once)
    else:
        for job in jobs.values():
            score(*job)
    for name in names:
        _write_result(pipeline, name)


def _seeds(pipeline: Pipeline, name: str) -> list[int | None]:
    reference = name in pipeline.recipe.TASKS[pipeline.task(name)].references
    return [None] if reference else [*pipeline.seeds(name)]


@torch.inference_mode()
def score(pipeline: Pipeline, name: str, seed: int | None) -> None:
    """Score a reference (no seed), or one trained seed of an entry.

    Writes the scores, and of an entry's first seed what is heard or seen.
    """
    key_of_task = pipeline.task(name)
    task, folder = pipeline.recipe.TASKS[key_of_task], pipeline.prepared / key_of_task
    first = seed in (None, pipeline.params.seeds[0])
    model: Any = name  # of a reference
    if seed is not None and isinstance(task, OwnTask):
        model = pipeline.job(name, seed)
    elif seed is not None:
        model = from_pretrained(weights_of(pipeline, name, seed), pipeline.system(name)[0])
    found = task.evaluate(model, folder, pipeline.folder / "samples" / name if first else None)
    write_json(_score_file(pipeline, name, seed), found)


def _score_file(pipeline: Pipeline, name: str, seed: int | None) -> Path:
    file = "scores.json" if seed is None else f"scores-{seed}.json"
    return pipeline.folder / "runs" / name / file


def _write_result(pipeline: Pipeline, name: str) -> None:
    result: dict[str, Any] = {"source": pipeline.source(), "budget": pipeline.params.budget}
    seeds = _seeds(pipeline, name)
    if seeds != [None]:
        system, config = pipeline.system(name)
        result |= {"system": system.name, "model": config.model_dump(mode="json")}
        result["steps"] = pipeline.steps(name)
        if not isinstance(pipeline.recipe.TASKS[pipeline.task(name)], OwnTask):
            trained = system.build(config).parameters()
            result["parameters"] = sum(p.numel() for p in trained if p.requires_grad)
    files = {
        "-" if seed is None else str(seed): _score_file(pipeline, name, seed) for seed in seeds
    }
    scores = {seed: json.loads(file.read_text(encoding="utf-8")) for seed, file in files.items()}
    metrics = next(iter(scores.values()))
    result["seeds"] = scores
    result["mean"] = {m: summary(scores, m, statistics.fmean) for m in metrics}
    result["std"] = {m: summary(scores, m, statistics.stdev) for m in metrics}
    path = pipeline.folder / "results" / f"{name}.json"
    write_json(path, result)
    print(f"results: {path}")


def weights_of(pipeline: Pipeline, name: str, seed: int) -> Path:
    """Return the file of one seed's trained weights.

    Raises:
        UserError: it was not trained yet.
    """
    path = pipeline.folder / "weights" / name / f"seed-{seed}.safetensors"
    if not path.is_file() and not path.with_suffix("").is_dir():
        raise UserError(f"there is no {path}; first: sixfold train {pipeline.name}/{name}")
    return path


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


def fingerprint(folder: Path) -> str:
    """Hash prepared data and the source of every module of sixfold that training imported."""
    digest = hashlib.sha256((folder / "manifest.json").read_bytes())
    for name, module in sorted(sys.modules.items()):
        if (
            name.startswith("sixfold.")
            and name.rpartition(".")[2] not in AROUND
            and getattr(module, "__file__", None)
        ):
            digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()
