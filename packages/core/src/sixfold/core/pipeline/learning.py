"""Learning curves as the report shows them: smoothed, at equal steps and at equal time."""

import csv
import statistics
from collections.abc import Mapping
from typing import Any

from sixfold.core.config import UserError
from sixfold.core.pipeline.claim import Curve
from sixfold.core.pipeline.page import mean_std
from sixfold.core.pipeline.params import TaskRun
from sixfold.core.training.provenance import read_record

WINDOW = 0.1  # of the steps: the training loss is averaged over so many before it is read off
EQUAL = (
    "Equal steps: the end of training. Equal time: each system at the moment when the fastest one "
    "is done; the learning rate falls only towards the end, so the slower ones are read off before "
    "their best part. Seconds are those of the machine that trained, seeds in parallel."
)

Curves = list[tuple[list[float], list[float]]]  # for each seed, steps and values


def read_curve(task: TaskRun, key: str, curve: Curve) -> Curves:
    """Return, for each seed, steps and the smoothed column of an entry's curve.

    Raises:
        UserError: the file is damaged.
    """
    seeds: dict[str, tuple[list[float], list[float]]] = {}
    path = task.folder("curves") / f"{key}.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row[curve.column]:
                    steps, values = seeds.setdefault(row["seed"], ([], []))
                    steps.append(float(row["step"]))
                    values.append(curve.sign * float(row[curve.column]))
    except (KeyError, TypeError, ValueError, csv.Error):
        seeds = {}
    if len(seeds) != len(task.seeds(key)):
        raise UserError(f"{path} is damaged; run: sixfold train {task.name}")
    return [(steps, _smooth(values)) for steps, values in seeds.values()]


def _smooth(values: list[float]) -> list[float]:
    width = max(1, round(len(values) * WINDOW))
    return [statistics.fmean(values[max(0, i - width + 1) : i + 1]) for i in range(len(values))]


def seconds_per_step(task: TaskRun, key: str) -> float | None:
    """Return the median over seeds; None where the training was not timed on this machine."""
    files = [task.job(key, seed).run / "perf.json" for seed in task.seeds(key)]
    known = [read_record(file) or {} for file in files if file.is_file()]
    times = [facts["seconds_per_step"] for facts in known if "seconds_per_step" in facts]
    return statistics.median(times) if times else None


def equal_rows(
    curves: Mapping[str, Curves], speeds: Mapping[str, float], quantity: str
) -> list[dict[str, Any]]:
    """Read each curve off at its end and, if all were timed, when the first system is done."""
    timed = speeds.keys() == curves.keys()
    end = min(curves[name][0][0][-1] * speeds[name] for name in curves) if timed else None
    rows = []
    for name, seeds in curves.items():
        row: dict[str, Any] = {"system": name, "seconds per step": speeds.get(name)}
        row[f"{quantity}: equal steps"] = mean_std([values[-1] for _, values in seeds])
        if end is not None:
            step = end / speeds[name]
            at = [v[max(0, sum(s <= step for s in steps) - 1)] for steps, v in seeds]
            row["equal time"] = mean_std(at)
        rows.append(row)
    return rows
