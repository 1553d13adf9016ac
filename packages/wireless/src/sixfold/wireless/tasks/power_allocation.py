"""Cell-free power allocation: ICGNN against the usual rules, as a share of projected gradient."""

import statistics
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from sixfold.core.pipeline.claim import (
    Claim,
    Comparison,
    Curve,
    Metric,
    Scores,
    p_text,
    paired_test,
    parameter_counts,
)
from sixfold.core.pipeline.figures import curve_figure, drawing, svg
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.page import Figure, Section, Table, mean_std
from sixfold.core.pipeline.report import Outcome
from sixfold.core.pipeline.task import Task
from sixfold.core.training.fit import FitConfig
from sixfold.wireless.data.power_allocation import (
    SIZES,
    TRAINED,
    UNSEEN,
    FreshLayouts,
    PowerData,
    Size,
    prepare,
    read_test,
)
from sixfold.wireless.iq import power_control
from sixfold.wireless.iq.cell_free import SIDE_M
from sixfold.wireless.iq.power_control import POWER_MW, spectral_efficiency
from sixfold.wireless.models.icgnn import CELL_FREE
from sixfold.wireless.models.icgnn.loss import negative_relative_sum, negative_soft_minimum
from sixfold.wireless.tasks.training import train_on

Allocate = Callable[[Tensor, Tensor, Tensor], Tensor]


TEMPERATURE = 0.1  # bit/s/Hz
ALLOCATED = "allocated.safetensors"
QUANTILES = 101  # of a distribution that is drawn
MAPPED = ("equal", "fractional_half", "icgnn", "icgnn_fair")
MAP_SIZE = TRAINED[0]
WIDEST = 6.0  # points, of a line that stands for an access point's whole power


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
        worst user's spectral efficiency in bit/s/Hz. Users' rates, and the powers of each size's
        first layout, are left for the report.
    """
    scores: Scores = {}
    shown: dict[str, Tensor] = {}
    for size in SIZES:
        test = read_test(prepared, size)
        gain, antennas = test["gain"], test["antennas"]
        power = allocate(gain, test["serve"], antennas)
        rates = spectral_efficiency(gain, power, antennas)
        share = rates.sum(-1).mean() / test["projected_gradient"].mean()
        scores |= {size.key: 100 * float(share), f"min_{size.key}": float(rates.amin(-1).mean())}
        shown |= {f"{size.key}/rates": rates.contiguous(), f"{size.key}/power": power[0].clone()}
    if samples is not None:
        save_file(shown, samples / ALLOCATED)
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
    """Show each size beside the best of the usual rules, users' rates, and a layout's powers."""
    results = outcome.results
    seeds = results["icgnn"]["seeds"] if "icgnn" in results else {}
    if seeds:
        columns = ["size", "ICGNN", "best rule", "gain", "test"]
        caption = "Sum, % of projected gradient; p of a paired two-sided t-test over seeds"
        rows = [_row(size, seeds, results) for size in SIZES]
        yield Section("Cell-free: each size", tables=[Table(caption, columns, rows)])
    found = {
        key: load_file(file)
        for key in results
        if (file := outcome.samples(key) / ALLOCATED).is_file()
    }
    sizes = (TRAINED[-1], UNSEEN[-1])
    text = (
        "The left end is who is served worst, at which max-min aims; the sum, at which the others "
        f"aim, is the mean of a curve. First {_label(sizes[0])}; then {_label(sizes[1])}."
    )
    figures = [_distribution(outcome, size, found) for size in sizes]
    yield Section("Cell-free: spectral efficiency of users", text, figures=figures)
    text = (
        "The square wraps around: a line goes the shorter way, and leaves on one side to come in "
        "on the other. Power in mW of 1,000 for each access point."
    )
    maps = {key: found[key] for key in MAPPED if key in found}
    yield Section("Cell-free: a layout", text, figures=[_map(outcome, MAP_SIZE, maps)])


def _distribution(
    outcome: Outcome, size: Size, found: Mapping[str, Mapping[str, Tensor]]
) -> Figure:
    """Draw the distribution of users' spectral efficiencies, of one seed."""
    share = torch.linspace(0, 1, QUANTILES)
    curves = {
        outcome.claim.label(key): [
            (one[f"{size.key}/rates"].flatten().quantile(share).tolist(), (100 * share).tolist())
        ]
        for key, one in found.items()
    }
    name = f"{outcome.run.key}-rates-{size.key}"
    return curve_figure(name, "users with less, %", curves, over="bit/s/Hz")


def _map(outcome: Outcome, size: Size, found: Mapping[str, Mapping[str, Tensor]]) -> Figure:
    """Draw access points, users, and between them the powers as the width of lines."""
    test = read_test(outcome.run.prepared, size)
    places, users = test["access_points"][0], test["users"][0]
    labels = [outcome.claim.label(key) for key in found]
    with drawing(len(found), 3.6, 3.8) as canvas:
        for axes, (key, one) in zip(canvas.axes, found.items(), strict=True):
            power = one[f"{size.key}/power"]
            for point, user in power.nonzero().tolist():
                width = WIDEST * float(power[point, user]) / POWER_MW
                for start, end in wrapped_lines(places[point], users[user]):
                    ends = zip(start.tolist(), end.tolist(), strict=True)
                    axes.plot(*ends, color="C0", linewidth=width, solid_capstyle="round")
            axes.plot(
                *places.T.tolist(), linestyle="", marker="^", color="C1", label="access point"
            )
            axes.plot(*users.T.tolist(), linestyle="", marker="o", color="C2", label="user")
            axes.set(xlim=(0, SIDE_M), ylim=(0, SIDE_M), xlabel="m", aspect="equal")
            axes.set_title(outcome.claim.label(key), wrap=True)
        canvas.axes[0].legend()
        image = svg(canvas)
    alt = f"access points, users and powers as line widths in one layout, {', '.join(labels)}"
    return Figure(f"{outcome.run.key}-map", alt, image, "The wider a line, the more power.")


def wrapped_lines(
    start: Float[Tensor, "2"], end: Float[Tensor, "2"]
) -> list[tuple[Float[Tensor, "2"], Float[Tensor, "2"]]]:
    """Return the shortest way between two places of a square that wraps around, as lines.

    A way over an edge is two lines, each of which goes on beyond the square.
    """
    near = start + torch.remainder(end - start + SIDE_M / 2, SIDE_M) - SIDE_M / 2
    lines = [(start, near)]
    return lines if torch.allclose(near, end) else [*lines, (start + end - near, end)]


def _row(size: Size, seeds: Any, results: Any) -> dict[str, Any]:
    found = [scores[size.key] for scores in seeds.values()]
    rules = {k: results[k]["mean"][size.key] for k in REFERENCES if k in results}
    best = max(rules, key=lambda key: rules[key])
    gains = [value - rules[best] for value in found]
    verdict = "one seed"
    if len(gains) > 1:
        outcome, p, _ = paired_test(gains)
        verdict = f"{outcome}, {p_text(p)}"
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
