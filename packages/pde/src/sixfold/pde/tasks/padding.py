"""Padding: circular against zeros on the periodic grid, and the converse in the closed box."""

from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sixfold.core.pipeline.claim import Claim, Comparison, Curve, Measurement, Metric, Scores
from sixfold.core.pipeline.figures import curve_figure, picture_row
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.page import Section
from sixfold.core.pipeline.report import Outcome
from sixfold.core.pipeline.task import Task
from sixfold.core.training.fit import FitConfig
from sixfold.pde.data.plumes import BOUNDARIES, PlumeData, Windows, prepare, read_trajectories
from sixfold.pde.fields.forecast import rollout
from sixfold.pde.fields.moments import moments
from sixfold.pde.fields.smoke_data import (
    OFFICIAL_DEVIATION,
    OFFICIAL_MEAN,
    smoke_trajectories,
)
from sixfold.pde.metrics import scaled_l2
from sixfold.pde.tasks.forecasts import one_step_error, rollout_errors, train_on

HISTORY = 2
FILM = "film.safetensors"
GENERATED, SEED = 16, 0  # trajectories whose moments are measured
# Name, moment and channel of a published figure; and three standard errors of that many.
MEASURED = (
    ("mean of smoke", "mean", 0, OFFICIAL_MEAN[0], 0.066),
    ("deviation of smoke", "deviation", 0, OFFICIAL_DEVIATION[0], 0.031),
    ("deviation of u", "deviation", 1, OFFICIAL_DEVIATION[1], 0.038),
    ("deviation of v", "deviation", 2, OFFICIAL_DEVIATION[2], 0.026),
)
PUBLISHED = {
    "zeros, next frame": 1.50,
    "zeros, rollout": 4.19,
    "circular, next frame": 1.02,
    "circular, rollout": 1.78,
}
SHOWN = {"periodic": ("circular", "zeros"), "closed": ("zeros_closed", "circular_closed")}


class Training(FitConfig):
    """The ``train:`` block.

    Args:
        boundary: Boundary of the flow.
    """

    boundary: Literal["periodic", "closed"] = "periodic"


def train(job: Job[PlumeData]) -> None:
    """Train one seed on windows of the trajectories, in units of their own spread."""
    trajectories = read_trajectories(job.prepared, job.train.boundary, "train")

    def set_units(model: nn.Module) -> None:
        sd, mean = torch.std_mean(trajectories, (0, 1, 3, 4))
        model.normalizer.set(mean, sd)  # type: ignore[operator]

    train_on(Windows(trajectories, HISTORY), job, set_units)


def evaluate(job: Job[PlumeData], samples: Path | None) -> Scores:
    """Score a trained network on the next frame and on whole rollouts."""
    model: Any = job.trained()
    test = read_trajectories(job.prepared, job.train.boundary, "test")
    errors = rollout_errors(model, test)
    if samples is not None:
        film = rollout(model, test[:1, :HISTORY], len(errors))[0, :, 0]
        save_file({"smoke": film.contiguous(), "errors": errors}, samples / FILM)
    return {"one_step": one_step_error(model, test), "rollout": float(errors.mean())}


def score_persistence(boundary: str, prepared: Path, samples: Path | None) -> Scores:
    """Score the forecast that nothing moves."""
    del samples
    test = read_trajectories(prepared, boundary, "test")
    last = test[:, HISTORY - 1 : HISTORY]
    one = scaled_l2(test[:, HISTORY - 1 : -1], test[:, HISTORY:])
    whole = scaled_l2(last.expand_as(test[:, HISTORY:]), test[:, HISTORY:])
    return {"one_step": float(one.double().mean()), "rollout": float(whole.double().mean())}


def sections(outcome: Outcome) -> Iterator[Section]:
    """Show the error over the steps of a rollout, and films of smoke beside their errors."""
    title = outcome.claim.title
    for boundary, keys in SHOWN.items():
        true = read_trajectories(outcome.run.prepared, boundary, "test")[0, HISTORY:, 0].numpy()
        films, curves = {"true": true}, {}
        for key in keys:
            if (file := outcome.samples(key) / FILM).is_file():
                found, label = load_file(file), outcome.claim.label(key)
                films[label] = found["smoke"].numpy()
                films[f"{label}: error"] = abs(films[label] - true)
                errors = found["errors"].tolist()
                curves[label] = [(list(range(1, len(errors) + 1)), errors)]
        name = f"{outcome.run.key}-{boundary}"
        row = picture_row(name, f"Smoke, {boundary}", films, colour_map="viridis")
        figure = curve_figure(f"{name}-rollout", "scaled L2", curves)
        yield Section(f"{title}: {boundary}", figures=[figure] if curves else [], pictures=[row])


CLAIM = Claim(
    title="SineNet: padding",
    text="The paper (arXiv:2403.19507) reports that circular padding halves the rollout error on "
    "periodic data (shallow water, SineNet-8: 1.50 and 4.19 % with zeros, 1.02 and 1.78 % "
    "circular). Here one wave learns buoyant smoke at 32 x 32 on a periodic grid; and, as the "
    "converse, in a closed box, where wrapping joins what the walls part.",
    metrics={
        "rollout": Metric("scaled L2 of rollouts", digits=3, better="lower"),
        "one_step": Metric("scaled L2 of the next frame", digits=3, better="lower"),
    },
    comparisons=[
        Comparison("circular", "zeros", "rollout"),
        Comparison("circular", "zeros", "one_step"),
        Comparison("zeros_closed", "circular_closed", "rollout"),
        Comparison("zeros_closed", "circular_closed", "one_step"),
    ],
    labels={
        "circular": "circular, periodic grid",
        "zeros": "zeros, periodic grid",
        "circular_closed": "circular, closed box",
        "zeros_closed": "zeros, closed box",
        **{f"persistence_{b}": f"persistence, {b}" for b in BOUNDARIES},
    },
    curve=Curve("scaled_l2", "training scaled L2"),
    caption="Test trajectories",
)


@lru_cache(maxsize=1)
def generated_moments() -> dict[str, Tensor]:
    """Return the moments of trajectories of the published size, by name."""
    drawn = torch.Generator().manual_seed(SEED)
    return moments(smoke_trajectories(GENERATED, drawn))._asdict()


def measurements() -> list[Measurement]:
    """Return those of the generator against the published set, and of the published scores."""
    generated = [
        Measurement(
            f"smoke at 128 x 128, {name}",
            published,
            lambda _, kind=kind, channel=channel: float(generated_moments()[kind][channel]),
            tolerance=tolerance,
            where="normalisation in the official code",
        )
        for name, kind, channel, published, tolerance in MEASURED
    ]
    # They take the spherical set, a full-size network and a GPU.
    scores = [
        Measurement(f"SineNet-8, SWE, {name}", value, lambda _: None, unit="%")
        for name, value in PUBLISHED.items()
    ]
    return generated + scores


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
