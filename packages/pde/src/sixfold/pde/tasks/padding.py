"""Padding: circular against zeros on the periodic grid, and the converse in the closed box."""

from collections.abc import Iterator
from functools import lru_cache, partial

import torch
from torch import Tensor

from sixfold.core.pipeline.claim import Claim, Comparison, Curve, Measurement
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.page import Section
from sixfold.core.pipeline.report import Outcome
from sixfold.core.pipeline.task import Task
from sixfold.pde.data.plumes import BOUNDARIES, PlumeData, prepare, read_trajectories
from sixfold.pde.fields.moments import moments
from sixfold.pde.fields.smoke_data import (
    OFFICIAL_DEVIATION,
    OFFICIAL_MEAN,
    smoke_trajectories,
)
from sixfold.pde.tasks.smoke import (
    METRICS,
    Training,
    evaluate,
    film_section,
    score_persistence,
    train_on_windows,
)

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


def train(job: Job[PlumeData]) -> None:
    """Train one seed on all windows of the training trajectories."""
    train_on_windows(read_trajectories(job.prepared, job.train.boundary, "train"), job)


def sections(outcome: Outcome) -> Iterator[Section]:
    """Show rollouts of the networks on each boundary."""
    for boundary, keys in SHOWN.items():
        yield film_section(outcome, boundary, keys)


CLAIM = Claim(
    title="SineNet: padding",
    text="The paper (arXiv:2403.19507) reports that circular padding halves the rollout error on "
    "periodic data (shallow water, SineNet-8: 1.50 and 4.19 % with zeros, 1.02 and 1.78 % "
    "circular). Here one wave learns buoyant smoke at 32 x 32 on a periodic grid; and, as the "
    "converse, in a closed box, where wrapping joins what the walls part.",
    metrics=METRICS,
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
