"""Waves on a flow: SineNet of one and four waves on buoyant smoke, and the budget that decides."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn

from sixfold.core import UserError
from sixfold.core.pipeline.claim import Claim, Comparison, Curve
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.learning import Curves, read_curve
from sixfold.core.pipeline.page import Section, Table, mean_std
from sixfold.core.pipeline.report import Outcome
from sixfold.core.pipeline.task import Task
from sixfold.pde.data.plumes import BOUNDARIES, PlumeData, prepare, read_trajectories
from sixfold.pde.tasks.forecasts import one_step_error, rollout_errors
from sixfold.pde.tasks.published import measurements, size_section
from sixfold.pde.tasks.smoke import (
    METRICS,
    Training,
    evaluate,
    film_section,
    score_persistence,
    train_on_windows,
)

VALIDATION = 4  # one in so many training trajectories is scored while training, and not learned
COLUMNS = ("one_wave", "four_waves", "equal_time")


def split_trajectories(trajectories: Tensor) -> tuple[Tensor, Tensor]:
    """Return the trajectories to learn from, and the last ones to validate on.

    Raises:
        UserError: there are too few to have both.
    """
    count = len(trajectories) // VALIDATION
    if not count:
        raise UserError(
            f"data: train is {len(trajectories)}, of which one in {VALIDATION} validates; give "
            f"{VALIDATION} or more"
        )
    return trajectories[:-count], trajectories[-count:]


def train(job: Job[PlumeData]) -> None:
    """Train one seed, scored as it goes on trajectories that are neither learned nor tested."""
    trajectories = read_trajectories(job.prepared, job.train.boundary, "train")
    learned, others = split_trajectories(trajectories)
    train_on_windows(learned, job, partial(validate, others))


def validate(trajectories: Tensor, model: nn.Module) -> dict[str, float]:
    """Score the averaged weights in the middle of a training."""
    network: Any = model
    return {
        "one_step": one_step_error(network, trajectories),
        "rollout": float(rollout_errors(network, trajectories).mean()),
    }


def sections(outcome: Outcome) -> Iterator[Section]:
    """Show the validation errors over the budget, rollouts, and the published sizes."""
    title = outcome.claim.title
    for boundary in BOUNDARIES:
        tables, lines = [], []
        for key, metric in METRICS.items():
            if found := errors_over_budget(outcome, boundary, key):
                tables.append(budget_table(found, metric.label))
                lines += deciding_budgets(found, metric.label)
        if not tables:
            continue
        text = "Validation errors in the middle of each training, of the averaged weights. "
        text += " ".join(lines)
        yield Section(f"{title}: budgets, {boundary}", text, tables=tables)
        keys = [key for key in outcome.run.entries if key.endswith(boundary)]
        yield film_section(outcome, boundary, keys)
    yield size_section(title)


def errors_over_budget(
    outcome: Outcome, boundary: str, metric: str
) -> list[tuple[int, dict[str, list[float]]]]:
    """Return the errors of each seed at every step at which four waves were scored.

    Returns:
        Steps of four waves; errors by `COLUMNS`, at equal time where one wave was trained for it.
    """
    entries, curve = outcome.run.entries, Curve(metric, metric)
    one, four, long = (f"{name}_{boundary}" for name in ("waves1", "waves4", "waves1_long"))
    if one not in entries or four not in entries:
        return []
    trained = {
        name: by_step(read_curve(outcome.run, key, curve))
        for name, key in zip(COLUMNS, (one, four, long), strict=True)
        if key in entries
    }
    steps = {key: outcome.run.settings(key).steps for key in (one, four, long) if key in entries}
    rows = []
    for step, errors in trained["four_waves"].items():
        row = {"four_waves": errors}
        same_time = round(step * steps.get(long, 0) / steps[four])
        for name, at in (("one_wave", step), ("equal_time", same_time)):
            if at in trained.get(name, {}):
                row[name] = trained[name][at]
        rows.append((step, row))
    return rows


def by_step(curves: Curves) -> dict[int, list[float]]:
    """Return the values of all seeds at each step that every seed has."""
    seeds = [dict(zip(map(int, steps), values, strict=True)) for steps, values in curves]
    shared = [step for step in seeds[0] if all(step in seed for seed in seeds)]
    return {step: [seed[step] for seed in seeds] for step in shared}


def budget_table(rows: list[tuple[int, dict[str, list[float]]]], quantity: str) -> Table:
    """Show the errors at each budget, mean and deviation over seeds."""
    names = {"one_wave": "one wave", "four_waves": "four waves", "equal_time": "one, equal time"}
    shown = [name for name in COLUMNS if any(name in row for _, row in rows)]
    cells = [
        {"steps": step} | {names[n]: mean_std(row[n], 3) if n in row else "-" for n in shown}
        for step, row in rows
    ]
    return Table(f"Validation {quantity}", list(cells[0]), cells)


def deciding_budgets(rows: list[tuple[int, dict[str, list[float]]]], quantity: str) -> list[str]:
    """Say from which budget on the mean of four waves is below that of one."""
    found = []
    for name, words in (("one_wave", "at equal steps"), ("equal_time", "at equal time")):
        compared = [(step, row[name], row["four_waves"]) for step, row in rows if name in row]
        if not compared:
            continue
        first = None
        for step, one, four in compared:
            ahead = sum(four) / len(four) < sum(one) / len(one)
            first = (first or step) if ahead else None
        found.append(
            f"{quantity[0].upper()}{quantity[1:]}, {words}: four waves stay ahead from {first} "
            "steps on."
            if first
            else f"{quantity[0].upper()}{quantity[1:]}, {words}: not reached in {compared[-1][0]} "
            "steps."
        )
    return found


CLAIM = Claim(
    title="SineNet: waves on a flow",
    text="The paper (arXiv:2403.19507) reports that more waves at equal parameters forecast smoke "
    "better, after 50 epochs of 5,200 trajectories at 128 x 128. Here networks of 0.3 M "
    "parameters learn it at 32 x 32, on a periodic grid with circular padding and in a closed box "
    "with zeros. The rate is constant and the weights are averaged, so that each point of a "
    "training is the end of a shorter one: the tables say from which budget on four waves win. The "
    "rows at equal time are one wave with as many steps as it can make in the time of four.",
    metrics=METRICS,
    comparisons=[
        Comparison("waves4_periodic", "waves1_periodic", every=True),
        Comparison("waves4_periodic", "waves1_long_periodic", every=True),
        Comparison("waves4_closed", "waves1_closed", every=True),
    ],
    labels={
        f"{name}_{boundary}": f"{words}, {where}"
        for boundary, where in (("periodic", "periodic grid"), ("closed", "closed box"))
        for name, words in (
            ("persistence", "persistence"),
            ("waves1", "one wave"),
            ("waves4", "four waves"),
            ("waves1_long", "one wave at equal time"),
        )
    },
    curve=Curve("one_step", "validation scaled L2 of the next frame"),
    caption="Test trajectories",
)

TASK = Task(
    claim=CLAIM,
    data=PlumeData,
    datasets=lambda data: [],
    prepare=prepare,
    synthetic="generated smoke",
    train=train,
    evaluate=evaluate,
    references={f"persistence_{b}": partial(score_persistence, b) for b in BOUNDARIES},
    measurements=measurements(),
    settings=Training,
    sections=sections,
)
