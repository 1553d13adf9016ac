"""What a paper claims, and the two ways to test a claim: a measurement, or a race of trainings.

A `Measurement` needs no training (published outputs scored again, parameter counts, bytes by
formula): it is reproduced or not, and is the stronger evidence. A `Comparison` sets a trained
system against a baseline over seeds, by one statistic for all domains: the paired two-sided t-test.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sixfold.core.system import System

Scores = dict[str, float | int | None]  # None: not measured
SIGNIFICANCE = 0.05
SHOWS, OPPOSITE = "shows", "shows the opposite"
UNDECIDED, EQUAL = "not decided at this budget", "no clear difference"
NOT_TESTED = "not tested"


@dataclass(frozen=True)
class Metric:
    """How a score is printed, and which direction is better."""

    label: str
    digits: int = 2
    better: Literal["higher", "lower"] = "higher"


@dataclass(frozen=True)
class Comparison:
    """A system that should beat a baseline.

    Args:
        system: Entry of params.yaml.
        baseline: Entry of params.yaml that the system is compared with.
        metric: Deciding score; None is the claim's first.
        margin: Amount by which the system may be worse, where the paper claims "as good as" (a
            test of non-inferiority).
        claimed: Gain that the paper claims: an interval around zero that ends below it is "no clear
            difference", any other decides nothing.
        every: Whether each of the claim's metrics that were measured decides for itself.
    """

    system: str
    baseline: str
    metric: str | None = None
    margin: float = 0.0
    claimed: float | None = None
    every: bool = False


@dataclass(frozen=True)
class Curve:
    """Column of the learning curves to draw, its label, and the sign that it is drawn with."""

    column: str
    label: str
    sign: Literal[1, -1] = 1


@dataclass(frozen=True)
class Claim:
    """A paper's claim, and how the report tests and shows it.

    Args:
        title: Heading of the section.
        text: Claim of the paper with its own figures, and the experiment that tests it here.
        metrics: Scores to show, in this order; the first decides.
        comparisons: Systems and the baselines that they should beat.
        labels: Names of entries and references for people.
        curve: Learning curve to draw.
        caption: Caption of the table of scores.
    """

    title: str
    text: str
    metrics: Mapping[str, Metric]
    comparisons: Sequence[Comparison] = ()
    labels: Mapping[str, str] = ()  # type: ignore[assignment]
    curve: Curve | None = None
    caption: str = "Scores of the test data"

    def __post_init__(self) -> None:
        wrong = [c.metric for c in self.comparisons if c.metric not in (None, *self.metrics)]
        if wrong:
            raise ValueError(f"{self.title}: comparisons of {wrong}, which is no metric")

    def label(self, key: str) -> str:
        """Return the name of an entry or reference for people."""
        return dict(self.labels).get(key, key)


@dataclass(frozen=True)
class Measurement:
    """A published figure that is measured again without training.

    Args:
        name: Name of the figure, in words.
        published: Published figure.
        measure: Function of the mean scores of the task's entries and references, by name; None
            where the figure cannot be measured, e.g. on synthetic data.
        tolerance: Largest absolute difference that counts as reproduced.
        unit: Unit of the figure.
        where: Place where the figure is published.
        trained: Whether the figure needs trainings, at the published settings: real data, budget 1.
    """

    name: str
    published: float
    measure: Callable[[Mapping[str, Scores]], float | None]
    tolerance: float = 0.0
    unit: str = ""
    where: str = "paper"
    trained: bool = False


def parameter_counts(*systems: System, note: str = "") -> list[Measurement]:
    """Return a measurement of the number of parameters for each published size of systems.

    Args:
        systems: Systems with published sizes.
        note: What the count leaves out, if anything.
    """
    from sixfold.core.pipeline.measure import count_parameters

    return [
        Measurement(
            name=f"{system.name}, {size}: parameters{note}",
            published=count,
            measure=lambda _, system=system, config=config: count_parameters(system, config).count,
            where="counted in the official code",
        )
        for system in systems
        for size, (config, count) in system.published.items()
    ]


def score_of(key: str, metric: str) -> Callable[[Mapping[str, Scores]], float | None]:
    """Return a `Measurement.measure` that reads the mean score of one entry or reference."""
    return lambda means: means.get(key, {}).get(metric)


def measured(
    measurements: Sequence[Measurement], means: Mapping[str, Scores], *, at_full_size: bool = True
) -> list[dict]:
    """Return one row a measurement, with its verdict, from the mean scores of a task.

    Args:
        measurements: Figures to measure again.
        means: Mean scores of the task's entries and references.
        at_full_size: Whether the task was trained at the published settings.
    """
    rows = []
    for one in measurements:
        value = one.measure(means) if at_full_size or not one.trained else None
        if value is None or not math.isfinite(value):
            value, verdict = None, "not measured"
        else:
            near = abs(value - one.published) <= one.tolerance + 1e-9 * abs(one.published)
            verdict = "reproduced" if near else "not reproduced"
        row = {
            key: getattr(one, key) for key in ("name", "published", "where", "tolerance", "unit")
        }
        rows.append(row | {"measured": value, "verdict": verdict})
    return rows


@dataclass(frozen=True)
class Verdict:
    """Outcome of one comparison."""

    system: str
    baseline: str
    metric: str
    outcome: str
    text: str


def judge_all(claim: Claim, results: Mapping[str, Any]) -> list[Verdict]:
    """Judge every comparison of a claim; see `judge`."""
    verdicts = []
    for comparison in claim.comparisons:
        known = results.get(comparison.system, {"mean": ()})["mean"]
        names = [name for name in claim.metrics if name in known] if comparison.every else []
        for name in names or [comparison.metric]:
            verdicts.append(judge(claim, replace(comparison, metric=name), results))
    return verdicts


def judge(claim: Claim, comparison: Comparison, results: Mapping[str, Any]) -> Verdict:
    """Test one comparison by a paired two-sided t-test over the seeds that both systems have.

    Args:
        claim: Claim that the comparison belongs to.
        comparison: Pair to test.
        results: Results of the task by entry, with scores by seed under ``seeds``.
    """
    name = comparison.metric or next(iter(claim.metrics))
    metric = claim.metrics[name]
    system, baseline = claim.label(comparison.system), claim.label(comparison.baseline)
    missing = [k for k in (comparison.system, comparison.baseline) if k not in results]

    def verdict(outcome: str, detail: str) -> Verdict:
        text = f"{outcome[0].upper()}{outcome[1:]}: {system} over {baseline}, {detail}."
        return Verdict(system, baseline, metric.label, outcome, text)

    if missing:
        return verdict(NOT_TESTED, f"{' and '.join(map(claim.label, missing))} not trained")
    pairs = _pairs(results[comparison.system], results[comparison.baseline], name)
    if pairs is None:
        return verdict(NOT_TESTED, f"{metric.label} not measured")
    sign = 1 if metric.better == "higher" else -1
    gains = [sign * (a - b) for a, b in pairs]
    what, _, unit = metric.label.replace("%", "points").partition(", ")
    detail = f"{statistics.fmean(gains):+.{metric.digits}f} {unit} {what}".replace("  ", " ")
    if len(gains) < 2:
        return verdict(f"{NOT_TESTED} (one seed)", detail)
    outcome, p, (low, high) = paired_test(gains, comparison.margin)
    if outcome == UNDECIDED and comparison.claimed is not None and high < comparison.claimed:
        outcome = EQUAL
        detail += f" where the paper has {comparison.claimed:+.{metric.digits}f}"
    detail += f" (95 % interval {low:+.{metric.digits}f} to {high:+.{metric.digits}f}"
    detail += f", {p_text(p)}, {len(gains)} seeds"
    if comparison.margin:
        detail += f"; p is of a difference of -{comparison.margin:g} {unit}"
        if outcome == SHOWS:
            outcome = f"not worse by {comparison.margin:g} {unit}".strip()
    return verdict(outcome, f"{detail})")


def p_text(p: float) -> str:
    """Return a p-value as it is written: no probability is zero."""
    return "p < 0.001" if p < 0.0005 else f"p = {p:.3f}"


def paired_test(
    gains: Sequence[float], margin: float = 0.0
) -> tuple[str, float, tuple[float, float]]:
    """Test paired gains against ``-margin`` by a two-sided t-test.

    Returns:
        The outcome, the p value, and the 95 % interval of the mean gain.
    """
    from scipy.stats import t

    mean = statistics.fmean(gains)
    error = statistics.stdev(gains) / math.sqrt(len(gains))
    freedom, shifted = len(gains) - 1, mean + margin
    half = float(t.ppf(1 - SIGNIFICANCE / 2, freedom)) * error
    p = float(2 * t.sf(abs(shifted) / error, freedom)) if error else float(shifted == 0)
    outcome = UNDECIDED if p >= SIGNIFICANCE else SHOWS if shifted > 0 else OPPOSITE
    return outcome, p, (mean - half, mean + half)


def _pairs(system: Any, baseline: Any, metric: str) -> list[tuple[float, float]] | None:
    """Return both systems' scores on the seeds that both have; None where one was not measured."""
    ours, theirs = system["seeds"], baseline["seeds"]
    pairs = [(ours[s].get(metric), theirs[s].get(metric)) for s in ours if s in theirs]
    return None if not pairs or any(None in pair for pair in pairs) else pairs
