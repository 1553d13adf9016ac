"""Learning curves as the report shows them: smoothed, over steps and over time."""

import csv
import json
import statistics
from collections.abc import Mapping
from typing import Any

from sixfold.core.pipeline.params import Pipeline
from sixfold.core.pipeline.report import mean_std

WINDOW = 0.1  # of the steps: the training loss is averaged over so many before it is read off
EQUAL = (
    "Equal steps: the end of training. Equal time: each system at the moment when the fastest one "
    "is done. The learning rate falls only towards the end of training, so the slower ones are "
    "read off before their best part. The seconds per step are of the machine that trained, with "
    "seeds side by side."
)

Curve = list[tuple[list[float], list[float]]]  # for each seed, steps and values


def read_curve(pipeline: Pipeline, name: str, column: str, sign: int) -> Curve:
    """Return, for each seed, steps and the smoothed column of its curve, times the sign."""
    path = pipeline.folder / "curves" / f"{name}.csv"
    seeds: dict[str, tuple[list[float], list[float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            steps, values = seeds.setdefault(row["seed"], ([], []))
            steps.append(float(row["step"]))
            values.append(sign * float(row[column]))
    return [(steps, _smoothed(values)) for steps, values in seeds.values()]


def _smoothed(values: list[float]) -> list[float]:
    width = max(1, round(len(values) * WINDOW))
    return [statistics.fmean(values[max(0, i - width + 1) : i + 1]) for i in range(len(values))]


def seconds_per_step(pipeline: Pipeline, name: str) -> float | None:
    """Return the median over seeds; None where the training was not timed on this machine."""
    files = [
        pipeline.folder / "runs" / name / f"seed-{seed}" / "perf.json"
        for seed in pipeline.params.seeds
    ]
    times = [json.loads(file.read_text())["seconds_per_step"] for file in files if file.is_file()]
    return statistics.median(times) if times else None


def equal_rows(
    curves: Mapping[str, Curve], speeds: Mapping[str, float], quantity: str
) -> list[dict[str, Any]]:
    """Read each curve at its end, and at the time when the first system is done."""
    ends = {
        name: seeds[0][0][-1] * speeds[name] for name, seeds in curves.items() if name in speeds
    }
    rows = []
    for name, seeds in curves.items():
        row: dict[str, Any] = {"system": name, "seconds per step": speeds.get(name)}
        row[f"{quantity}: equal steps"] = mean_std([values[-1] for _, values in seeds])
        if len(ends) == len(curves):
            step = min(ends.values()) / speeds[name]
            at = [v[max(0, sum(s <= step for s in steps) - 1)] for steps, v in seeds]
            row["equal time"] = mean_std(at)
        rows.append(row)
    return rows
