"""Fit a line by the usual training."""

import json
from pathlib import Path

import torch

from sixfold.core import Config
from sixfold.core.data.fetch import Dataset, File
from sixfold.core.pipeline.claim import (
    Claim,
    Comparison,
    Curve,
    Measurement,
    Metric,
    Scores,
    parameter_counts,
    score_of,
)
from sixfold.core.pipeline.job import supervised
from sixfold.core.pipeline.task import Task
from sixfold.toy.models.line import SYSTEM

SET = Dataset("toy_points", "nowhere", "none", "nobody", (File("points.txt", "0" * 64, 1),))


class FittingData(Config):
    """Settings of the data."""

    points: int = 8


class Points:
    """Points on a line."""

    def __init__(self, folder: Path, data: FittingData) -> None:
        self.points = data.points

    def __len__(self) -> int:
        return self.points

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        x = torch.tensor([index / self.points])
        return {"x": x, "y": 2 * x + 1}


def prepare(data, source, folder: Path) -> None:
    """Write nothing but a manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"source": source}))


def loss(model, batch):
    """Return the squared error."""
    return (model(batch["x"]) - batch["y"]).square().mean()


def evaluate(job, samples: Path | None) -> Scores:
    """Score the value at one."""
    if samples is not None:
        (samples / "sample.txt").write_text("heard")
    return {"value": float(job.trained()(torch.ones(1))), "absent": None}


def zero(prepared: Path, samples: Path | None) -> Scores:
    """Score what says nothing."""
    return {"value": 0.0, "absent": None}


TASK = Task(
    claim=Claim(
        title="Lines",
        text="A wide line is claimed to be better.",
        metrics={"value": Metric("value, m"), "absent": Metric("absent")},
        comparisons=[Comparison("line", "narrow")],
        labels={"zero": "nothing at all"},
        curve=Curve("loss", "squared error"),
    ),
    data=FittingData,
    datasets=lambda data: [SET],
    prepare=prepare,
    synthetic="points on a ruler",
    train=supervised(Points, loss),
    evaluate=evaluate,
    references={"zero": zero},
    measurements=[
        *parameter_counts(SYSTEM),
        Measurement("zero", 0.0, score_of("zero", "value"), unit="m"),
        Measurement("one", 1.0, score_of("zero", "value")),
        Measurement("absent", 1.0, score_of("zero", "absent")),
    ],
)
