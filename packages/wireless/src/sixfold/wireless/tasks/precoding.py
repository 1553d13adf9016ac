"""Precoding: ICGNN against closed forms, as a share of what WMMSE reaches, over sizes and steps."""

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sixfold.core.pipeline.claim import (
    Claim,
    Curve,
    Metric,
    Scores,
    p_text,
    paired_test,
    parameter_counts,
)
from sixfold.core.pipeline.figures import curve_figure
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.page import Figure, Section, Table, mean_std
from sixfold.core.pipeline.report import Outcome
from sixfold.core.pipeline.task import Task
from sixfold.core.training.fit import FitConfig
from sixfold.wireless.data.precoding import (
    POINTS,
    TRAINED,
    FreshChannels,
    Point,
    PrecodingData,
    prepare,
    read_test,
)
from sixfold.wireless.iq import precoding
from sixfold.wireless.iq.dirty_paper import dirty_paper_capacity
from sixfold.wireless.models.icgnn import SYSTEM
from sixfold.wireless.models.icgnn.loss import negative_relative_sum
from sixfold.wireless.tasks.training import train_on

STEPS = (2, 4, 8)
BY_STEPS = (Point(8, 8, 10), Point(16, 16, 10), Point(16, 16, 20))
GOAL = 97.0  # per cent of WMMSE, at trained sizes with as many antennas as users, to 10 dB
SQUARE_SNR_DB = 10
CLOSED = ("mrt", "zf", "rzf", "equal_structured")


def train(job: Job[PrecodingData]) -> None:
    """Train one seed on channels that never come again."""
    train_on(FreshChannels(job.data, job.train.batch), loss, job)


def loss(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return minus the sum rate relative to that of the equal structured precoder."""
    channel, noise = batch["channel"], batch["noise"]
    found = precoding.user_rates(channel, model(channel, noise, int(batch["steps"])), noise)
    with torch.no_grad():
        plain = precoding.equal_structured(channel, noise)
        reference = precoding.user_rates(channel, plain, noise)
    return {"negative_relative_rate": negative_relative_sum(found, reference)}


def percent(prepared: Path, point: Point, precode: Callable[[Tensor, float], Tensor]) -> float:
    """Return the mean sum rate of a precoder in per cent of WMMSE's, on the test channels."""
    test = read_test(prepared, point)
    rates = precoding.sum_rate(test["channel"], precode(test["channel"], point.noise), point.noise)
    return 100 * float(rates.double().mean() / test["wmmse"].mean())


def evaluate(job: Job[PrecodingData], samples: Path | None) -> Scores:
    """Score a trained network at every point, solved exactly and by few steps."""
    del samples
    model: Any = job.trained()
    scores: Scores = {point.key: percent(job.prepared, point, model) for point in POINTS}
    for point in BY_STEPS:
        for steps in STEPS:
            if steps < point.users:
                scores[f"{point.key}_t{steps}"] = percent(
                    job.prepared, point, lambda h, noise, t=steps: model(h, noise, t)
                )
    return scores


def score_closed_form(
    function: Callable[..., Tensor], prepared: Path, samples: Path | None
) -> Scores:
    """Score a closed form at every point."""
    del samples
    return {point.key: percent(prepared, point, function) for point in POINTS}


def score_starts(prepared: Path, samples: Path | None) -> Scores:
    """Score WMMSE from several starts."""
    del samples
    tests = {point.key: read_test(prepared, point) for point in POINTS}
    return {
        key: 100 * float(test["wmmse_starts"].mean() / test["wmmse"].mean())
        for key, test in tests.items()
    }


def score_capacity(prepared: Path, samples: Path | None) -> Scores:
    """Score the bound that no linear precoder can pass."""
    del samples
    scores: Scores = {}
    for point in POINTS:
        test = read_test(prepared, point)
        capacity = dirty_paper_capacity(test["channel"].to(torch.complex128), point.noise)
        scores[point.key] = 100 * float(capacity.mean() / test["wmmse"].mean())
    return scores


def sections(outcome: Outcome) -> Iterator[Section]:
    """Show each point beside the best closed form and the goal, and the rate over the steps."""
    results = outcome.results
    seeds = results["icgnn"]["seeds"] if "icgnn" in results else {}
    if not seeds:
        return
    against = [_row(point, seeds, results) for point in POINTS]
    columns = ["point", "ICGNN", "best closed form", "gain", "test", "goal"]
    caption = "Sum rate, % of WMMSE; p of a paired two-sided t-test over seeds"
    steps = [_steps_row(point, seeds) for point in BY_STEPS]
    yield Section(
        "Precoding: each point, and the steps of conjugate gradients",
        "A precoder that is solved in fewer steps than users costs less and reaches less: the "
        "steps needed grow with SNR, because the system's condition does.",
        tables=[
            Table(caption, columns, against),
            Table(
                "ICGNN by steps T, % of WMMSE",
                ["point", *(f"T = {t}" for t in STEPS), "exact"],
                steps,
            ),
        ],
        figures=[_over_users(outcome)],
    )


def _over_users(outcome: Outcome) -> Figure:
    """Draw the rate over the number of users, with as many antennas, at one SNR."""
    square = [p for p in POINTS if p.users == p.antennas and p.snr_db == SQUARE_SNR_DB]
    square.sort(key=lambda point: point.users)
    curves = {
        outcome.claim.label(key): [
            ([p.users for p in square], [one[p.key] for p in square])
            for one in outcome.results[key]["seeds"].values()
        ]
        for key in (*CLOSED, "icgnn")
        if key in outcome.results
    }
    quantity = f"sum rate, % of WMMSE; as many antennas, {SQUARE_SNR_DB} dB"
    return curve_figure(f"{outcome.run.key}-users", quantity, curves, over="users")


def _row(point: Point, seeds: Any, results: Any) -> dict[str, Any]:
    found = [scores[point.key] for scores in seeds.values()]
    closed = {k: results[k]["mean"][point.key] for k in CLOSED if k in results}
    best = max(closed, key=lambda key: closed[key])
    gains = [value - closed[best] for value in found]
    verdict = "one seed"
    if len(gains) > 1:
        outcome, p, _ = paired_test(gains)
        verdict = f"{outcome}, {p_text(p)}"
    goal = ""
    if point in TRAINED and point.users == point.antennas and point.snr_db <= 10:
        goal = f"{GOAL:g}: {'reached' if statistics.fmean(found) >= GOAL else 'not reached'}"
    return {
        "point": _label(point),
        "ICGNN": mean_std(found, 1),
        "best closed form": f"{closed[best]:.1f} ({CLAIM.label(best)})",
        "gain": f"{statistics.fmean(gains):+.1f}",
        "test": verdict,
        "goal": goal,
    }


def _steps_row(point: Point, seeds: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"point": _label(point)}
    for name, key in [(f"T = {t}", f"{point.key}_t{t}") for t in STEPS] + [("exact", point.key)]:
        values = [scores[key] for scores in seeds.values() if key in scores]
        row[name] = mean_std(values, 1) if values else "exact"
    return row


def _label(point: Point) -> str:
    unseen = "" if point in TRAINED else ", not trained"
    return f"K = {point.users}, M = {point.antennas}, {point.snr_db} dB{unseen}"


CLAIM = Claim(
    title="ICGNN: precoding",
    text="The paper (arXiv:2408.17252) claims that one network precodes for any number of users "
    "and antennas without a matrix inverse, at a spectral efficiency equal to or above that of "
    "conventional algorithms. There is no official code and no number of the paper here: this is "
    "an independent design after the abstract. It is trained on 4 to 8 users and tested on those "
    "and on up to three times as many, as a share of the sum rate that WMMSE reaches. Where there "
    "are twice as many antennas as users every good method is within a per cent; what a network "
    "can gain shows where they are as many.",
    metrics={point.key: Metric(f"{_label(point)}, % of WMMSE", digits=1) for point in POINTS},
    labels={
        "icgnn": "ICGNN",
        "mrt": "maximum ratio",
        "zf": "zero forcing",
        "rzf": "regularised zero forcing",
        "equal_structured": "equal structured",
        "wmmse_starts": "WMMSE, several starts",
        "capacity": "bound: dirty-paper coding",
    },
    curve=Curve("negative_relative_rate", "training sum rate over the equal structured one", -1),
    caption="Sum rate on test channels, % of WMMSE from one start",
)

TASK = Task(
    claim=CLAIM,
    data=PrecodingData,
    datasets=lambda data: [],
    prepare=prepare,
    synthetic="simulated Rayleigh channels",
    train=train,
    evaluate=evaluate,
    references={
        "mrt": partial(score_closed_form, lambda channel, noise: precoding.mrt(channel)),
        "zf": partial(score_closed_form, lambda channel, noise: precoding.zf(channel)),
        "rzf": partial(score_closed_form, precoding.rzf),
        "equal_structured": partial(score_closed_form, precoding.equal_structured),
        "wmmse_starts": score_starts,
        "capacity": score_capacity,
    },
    measurements=parameter_counts(SYSTEM),
    settings=FitConfig,
    sections=sections,
)
