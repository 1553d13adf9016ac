"""Count steps: a task that trains in its own way."""

import json
from pathlib import Path

from sixfold.core import Config
from sixfold.core.pipeline.claim import Claim, Metric, Scores
from sixfold.core.pipeline.task import Task


class CountingData(Config):
    """Settings of the data."""

    points: int = 8


class Counting(Config):
    """Settings of a system that only counts its steps."""

    steps: int
    threads: int | None = 1


def prepare(data, source, folder: Path) -> None:
    """Write nothing but a manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"source": source}))


def train(job) -> None:
    """Write down the steps, unless a run did so before."""
    done = job.run / "steps.txt"
    if not done.is_file():
        done.parent.mkdir(parents=True)
        done.write_text(str(job.train.steps + job.seed))
    folder = job.weights.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "counted.txt").write_text(done.read_text())


def evaluate(job, samples: Path | None) -> Scores:
    """Score the steps that were counted."""
    counted = (job.weights.with_suffix("") / "counted.txt").read_text()
    return {"count": float(counted), "points": job.data.points}


def nothing(prepared: Path, samples: Path | None) -> Scores:
    """Score nothing."""
    return {"count": 0.0}


TASK = Task(
    claim=Claim(title="Counting", text="It counts.", metrics={"count": Metric("steps")}),
    data=CountingData,
    datasets=lambda data: [],
    prepare=prepare,
    synthetic="nothing",
    train=train,
    evaluate=evaluate,
    references={"nothing": nothing},
    settings=Counting,
)
