"""The stages of a pipeline: inputs, prepare, train, evaluate. DVC runs each by its CLI verb.

`report` is in its own module; `repro` runs all five in one process.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sixfold.core.config import UserError
from sixfold.core.data.atomic import write_atomic
from sixfold.core.data.digests import digests
from sixfold.core.data.fetch import Dataset, available
from sixfold.core.data.locks import held
from sixfold.core.memory import within_memory
from sixfold.core.pipeline.claim import Scores, measured
from sixfold.core.pipeline.code import code_hash
from sixfold.core.pipeline.measure import count_parameters
from sixfold.core.pipeline.parallel import max_workers, run_parallel
from sixfold.core.pipeline.params import Pipeline, TaskRun
from sixfold.core.pipeline.results import finite, join_curves, read_json, summarize, write_json
from sixfold.core.pipeline.task import Source
from sixfold.core.training.curve import read_curve
from sixfold.core.training.distributed import rank, world_size
from sixfold.core.training.fit import FitConfig


def inputs(pipeline: Pipeline) -> None:
    """Write what DVC cannot see: which data `auto` means on this machine, and hashes of the code.

    ``inputs/<task>/<stage>.json`` is what DVC's stages depend on.
    """
    folder = pipeline.folder / "inputs"
    shutil.rmtree(folder, ignore_errors=True)
    for key, task in pipeline.tasks.items():
        source, missing = choose_source(task)
        checksums = _checksums(task) if source == "real" else {}
        code = {"code": task.code("prepare"), "source": source, "datasets": checksums}
        write_json(folder / key / "prepare.json", code)
        for stage in ("train", "evaluate"):
            hashes = {"": task.code(stage)} | {k: task.code(stage, k) for k in task.entries}
            hashes["results"] = code_hash("sixfold.core.pipeline.results")
            write_json(folder / key / f"{stage}.json", hashes)
        if missing and pipeline.params.source == "auto":
            print(
                f"{key}: SYNTHETIC DATA: {', '.join(missing)} neither in SIXFOLD_CACHE nor in "
                "SIXFOLD_MIRROR; every result will say so (source: real downloads what it can)"
            )
        else:
            print(f"{key}: {'real' if source == 'real' else 'synthetic'} data")
    report = {key: task.code("report") for key, task in pipeline.tasks.items()}
    report[""] = code_hash("sixfold.core.pipeline.report")
    shown = [*Path(__file__).parent.glob("*.[jm]*")]  # the page's template and style
    for file in shown + [file for task in pipeline.tasks.values() for file in task.benchmarks]:
        report[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    write_json(folder / "report.json", report)


def choose_source(task: TaskRun) -> tuple[Source, list[str]]:
    """Decide what ``source`` means on this machine; also return the sets that are not there."""
    missing = [dataset.name for dataset in _datasets(task) if not available(dataset)]
    wanted = task.pipeline.params.source
    if wanted == "auto":
        return ("builtin" if missing else "real"), missing
    return wanted, missing


def _datasets(task: TaskRun) -> Sequence[Dataset]:
    return task.task.datasets(task.data)


def _checksums(task: TaskRun) -> dict[str, dict[str, str]]:
    """Return the recorded checksum of each file, by set."""
    found: dict[str, dict[str, str]] = {}
    for dataset in _datasets(task):  # two may be parts of one published set
        found.setdefault(dataset.name, {}).update({f.path: f.sha256 for f in dataset.files})
    return found


def prepare(task: TaskRun) -> None:
    """Write the prepared data; a folder that exists is replaced once the new one is whole."""
    source, _ = choose_source(task)
    where = f"{task.pipeline.folder / 'params.yaml'}: tasks.{task.key}.data"
    with held(task.prepared, "sixfold prepare"):
        with within_memory(where):
            task.task.prepare(task.data, source, task.prepared)
        files = {k: v for k, v in digests(task.prepared).items() if k != "prepared.json"}
        facts = {"source": source, "data": task.data.model_dump(mode="json"), "files": files}
        # last, and what every later stage asks for first
        write_json(task.prepared / "prepared.json", facts)
    print(f"prepared: {task.prepared}")


def train(task: TaskRun, keys: Sequence[str] = (), workers: int | None = None) -> None:
    """Train every seed of a task's entries; write their weights and curves.

    Checkpoints live in ``runs/``, which DVC does not know and so does not delete: a killed stage
    continues where it was, a finished one writes its outputs again without training.

    Args:
        task: Task to train.
        keys: Entries to train; all if empty.
        workers: Processes that train at once, forked; None is as many as the cores allow for the
            entries' ``threads``. One trains in this process, where a backward pass may have run
            before: PyTorch's autograd does not survive a fork.
    """
    keys = keys or list(task.entries)
    jobs = {f"{k}, seed {seed}": (task, k, seed) for k in keys for seed in task.seeds(k)}
    if workers is None:
        threads = [task.settings(k).threads for k in keys]
        workers = max_workers(len(jobs), None if None in threads else max(threads, default=None))
    for key in keys:
        task.check_size(key)
        task.job(key, task.seeds(key)[0])  # what is wrong with an entry is said before work starts
    task.check_prepared()
    _run(train_seed, jobs, workers if world_size() == 1 else 1)
    if rank() == 0:
        task.folder("curves").mkdir(parents=True, exist_ok=True)
        for key in keys:
            _write_curve(task, key)
        print(f"weights: {task.folder('weights')}")


def train_seed(task: TaskRun, key: str, seed: int) -> None:
    """Train one seed of an entry, from wherever its run stands."""
    job = task.job(key, seed)
    job.weights.parent.mkdir(parents=True, exist_ok=True)
    task.task.train(job)
    if rank() == 0:  # last: `evaluate` asks what the weights were trained with
        write_atomic(job.weights.with_suffix(".identity"), job.identity + "\n")


def _write_curve(task: TaskRun, key: str) -> None:
    files = {seed: task.job(key, seed).run / "curve.csv" for seed in task.seeds(key)}
    files = {seed: file for seed, file in files.items() if file.is_file()}
    for file in files.values():
        read_curve(file)  # refuses a damaged one
    curves = [(seed, file.read_text(encoding="utf-8")) for seed, file in files.items()]
    if curves:
        write_atomic(task.folder("curves") / f"{key}.csv", join_curves(curves))


def evaluate(task: TaskRun, keys: Sequence[str] = (), workers: int | None = None) -> None:
    """Score a task's references, and every seed of its entries; write results and samples.

    Args:
        task: Task to score.
        keys: References and entries to score; all, and the measurements, if empty.
        workers: Processes that score at once, forked; None is one a core.
    """
    task.check_prepared()
    chosen = keys or task.keys
    jobs = {}
    for key in chosen:
        shutil.rmtree(task.folder("samples") / key, ignore_errors=True)
        (task.folder("samples") / key).mkdir(parents=True)
        for seed in _seeds(task, key):
            if seed is not None:
                _check_weights(task, key, seed)
            jobs[key if seed is None else f"{key}, seed {seed}"] = (task, key, seed)
    _run(score, jobs, max_workers(len(jobs), 1) if workers is None else workers)
    for key in chosen:
        _write_result(task, key)
    if not keys:
        means = {key: result["mean"] for key, result in task.results().items()}
        rows = measured(task.task.measurements, means, at_full_size=task.is_published_setting)
        write_json(task.folder("results") / "measurements.json", {"measurements": rows})
    print(f"results: {task.folder('results')}")


def _run(function: Callable[..., object], jobs: Mapping[str, tuple], workers: int) -> None:
    if workers > 1:
        run_parallel(function, jobs, workers)
    else:
        for job in jobs.values():
            function(*job)


def _seeds(task: TaskRun, key: str) -> list[int | None]:
    return [None] if key in task.task.references else [*task.seeds(key)]


def _check_weights(task: TaskRun, key: str, seed: int) -> None:
    job = task.job(key, seed)
    record, again = job.weights.with_suffix(".identity"), f"sixfold train {task.name}"
    if not record.is_file():
        raise UserError(f"there is no {job.weights}; first: {again}")
    if record.read_bytes().strip() != job.identity.encode():
        raise UserError(
            f"{job.weights} was trained with other settings, data or code; run: {again}"
        )


def score(task: TaskRun, key: str, seed: int | None) -> None:
    """Score a reference (no seed), or one trained seed of an entry.

    Writes the scores and, of an entry's first seed, what the report shows.
    """
    first = seed in (None, task.pipeline.params.seeds[0])
    samples = task.folder("samples") / key if first else None
    if seed is None:
        found = task.task.references[key](task.prepared, samples)
    else:
        with torch.inference_mode():
            found = task.task.evaluate(task.job(key, seed), samples)
    write_json(_score_file(task, key, seed), finite(found))


def _score_file(task: TaskRun, key: str, seed: int | None) -> Path:
    file = "scores.json" if seed is None else f"scores-{seed}.json"
    return task.folder("runs") / key / file


def _write_result(task: TaskRun, key: str) -> None:
    params = task.pipeline.params
    result: dict[str, Any] = {"source": task.source, "budget": params.budget}
    if key in task.entries:
        system, config = task.system(key)
        result |= {"system": system.name, "model": config.model_dump(mode="json")}
        result["steps"] = task.settings(key).steps
        if issubclass(task.task.settings, FitConfig):  # elsewhere sizes come from the data
            result["parameters"] = count_parameters(system, config).trainable
    scores: dict[str, Scores] = {}
    for seed in _seeds(task, key):
        found = read_json(_score_file(task, key, seed), f"sixfold evaluate {task.name}")
        scores["-" if seed is None else str(seed)] = found
    result |= {"seeds": scores} | summarize(scores)
    write_json(task.folder("results") / f"{key}.json", result)
