"""Cell-free power allocation: ICGNN against the usual rules, as a share of projected gradient."""

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from sixfold.core.pipeline.claim import (
    Claim,
    Comparison,
    Curve,
    Metric,
    Scores,
    paired_test,
    parameter_counts,
)
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.page import Section, Table, mean_std
from sixfold.core.pipeline.report import Outcome
from sixfold.core.pipeline.task import Task
from sixfold.core.training.fit import FitConfig
from sixfold.wireless.data.power_allocation import (
    SIZES,
    TRAINED,
    FreshLayouts,
    PowerData,
    Size,
    prepare,
    read_test,
)
from sixfold.wireless.iq import power_control
from sixfold.wireless.iq.power_control import spectral_efficiency
from sixfold.wireless.models.icgnn import CELL_FREE
from sixfold.wireless.models.icgnn.loss import negative_relative_sum, negative_soft_minimum
from sixfold.wireless.tasks.training import train_on

Allocate = Callable[[Tensor, Tensor, Tensor], Tensor]


TEMPERATURE = 0.1  # bit/s/Hz


class Training(FitConfig):
    """The ``train:`` block.

    Args:
        objective: What is maximised: the sum of spectral efficiencies, or its soft minimum.
    """

    objective: Literal["sum", "fairness"] = "sum"


def train(job: Job[PowerData]) -> None:
    """Train one seed on layouts that never come again."""
    train_on(FreshLayouts(job.data, job.train.batch), LOSSES[job.train.objective], job)


def sum_loss(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return minus the sum of spectral efficiencies relative to that of equal shares."""
    gain, serve, antennas = batch["gain"], batch["serve"], batch["antennas"]
    found = spectral_efficiency(gain, model(gain, serve, antennas), antennas)
    plain = spectral_efficiency(gain, power_control.equal(gain, serve), antennas)
    return {"negative_rate": negative_relative_sum(found, plain)}


def fairness_loss(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return minus the soft minimum of spectral efficiencies."""
    gain, antennas = batch["gain"], batch["antennas"]
    found = spectral_efficiency(gain, model(gain, batch["serve"], antennas), antennas)
    return {"negative_rate": negative_soft_minimum(found, TEMPERATURE)}


LOSSES = {"sum": sum_loss, "fairness": fairness_loss}


def score(allocate: Allocate, prepared: Path, samples: Path | None) -> Scores:
    """Score an allocation at every size.

    Returns:
        The mean sum in per cent of projected gradient's, and, as ``min_<size>``, the mean of the
        worst user's spectral efficiency in bit/s/Hz.
    """
    del samples
    scores: Scores = {}
    for size in SIZES:
        test = read_test(prepared, size)
        gain, antennas = test["gain"], test["antennas"]
        rates = spectral_efficiency(gain, allocate(gain, test["serve"], antennas), antennas)
        share = rates.sum(-1).mean() / test["projected_gradient"].mean()
        scores |= {size.key: 100 * float(share), f"min_{size.key}": float(rates.amin(-1).mean())}
    return scores


def evaluate(job: Job[PowerData], samples: Path | None) -> Scores:
    """Score a trained network; see `score`."""
    return score(job.trained(), job.prepared, samples)


def score_fractional(exponent: float, prepared: Path, samples: Path | None) -> Scores:
    """Score fractional power control."""

    def allocate(gain: Tensor, serve: Tensor, antennas: Tensor) -> Tensor:
        del antennas
        return power_control.fractional(gain, serve, exponent)

    return score(allocate, prepared, samples)


REFERENCES = {
    "equal": partial(score_fractional, 0.0),
    "fractional_minus_half": partial(score_fractional, -0.5),
    "fractional_half": partial(score_fractional, 0.5),
    "fractional_one": partial(score_fractional, 1.0),
    "max_min": partial(score, power_control.max_min),
}


def sections(outcome: Outcome) -> Iterator[Section]:
    """Show each size beside the best of the usual rules."""
    results = outcome.results
    seeds = results["icgnn"]["seeds"] if "icgnn" in results else {}
    if seeds:
        columns = ["size", "ICGNN", "best rule", "gain", "test"]
        caption = "Sum, % of projected gradient; p of a paired two-sided t-test over seeds"
        rows = [_row(size, seeds, results) for size in SIZES]
        yield Section("Cell-free: each size", tables=[Table(caption, columns, rows)])


def _row(size: Size, seeds: Any, results: Any) -> dict[str, Any]:
    found = [scores[size.key] for scores in seeds.values()]
    rules = {k: results[k]["mean"][size.key] for k in REFERENCES if k in results}
    best = max(rules, key=lambda key: rules[key])
    gains = [value - rules[best] for value in found]
    verdict = "one seed"
    if len(gains) > 1:
        outcome, p, _ = paired_test(gains)
        verdict = f"{outcome}, p = {p:.3f}"
    return {
        "size": _label(size),
        "ICGNN": mean_std(found, 1),
        "best rule": f"{rules[best]:.1f} ({CLAIM.label(best)})",
        "gain": f"{statistics.fmean(gains):+.1f}",
        "test": verdict,
    }


def _label(size: Size) -> str:
    unseen = "" if size in TRAINED else ", not trained"
    return f"L = {size.points}, K = {size.users}, N = {size.antennas}, S = {size.each}{unseen}"


CLAIM = Claim(
    title="ICGNN: cell-free power allocation",
    text="The paper (arXiv:2408.17252) claims that one network allocates power for any number of "
    "users, access points and antennas, at a spectral efficiency equal to or above that of "
    "conventional algorithms. There is no official code and no number of the paper here: this is "
    "an independent design after the abstract, trained on 10 to 40 access points, 4 to 16 users, "
    "1 to 8 antennas and 2 to 10 access points a user. The reference is the projected gradient, "
    "which looks for the best allocation of each layout in hundreds of steps.",
    metrics={
        **{size.key: Metric(f"{_label(size)}, % of the gradient's", digits=1) for size in SIZES},
        **{f"min_{size.key}": Metric(f"{_label(size)}: worst user, bit/s/Hz") for size in SIZES},
    },
    comparisons=[Comparison("icgnn_fair", "icgnn", f"min_{size.key}") for size in SIZES],
    labels={
        "icgnn": "ICGNN",
        "icgnn_fair": "ICGNN for the worst user",
        "equal": "equal shares",
        "fractional_minus_half": "fractional, -0.5",
        "fractional_half": "fractional, 0.5",
        "fractional_one": "fractional, 1",
        "max_min": "max-min, fixed split",
    },
    curve=Curve("negative_rate", "training objective", -1),
    caption="Sum of spectral efficiencies on test layouts, % of projected gradient's",
)

TASK = Task(
    claim=CLAIM,
    data=PowerData,
    datasets=lambda data: [],
    prepare=prepare,
    synthetic="simulated layouts",
    train=train,
    evaluate=evaluate,
    references=REFERENCES,
    measurements=parameter_counts(CELL_FREE),
    settings=Training,
    sections=sections,
)
