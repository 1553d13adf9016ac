"""What the experiments on buoyant smoke share: training on windows, scores, films."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sixfold.core.pipeline.claim import Metric, Scores
from sixfold.core.pipeline.figures import curve_figure, picture_row
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.page import Section
from sixfold.core.pipeline.report import Outcome
from sixfold.core.training.fit import Evaluate, FitConfig
from sixfold.pde.data.plumes import PlumeData, Windows, read_trajectories
from sixfold.pde.fields.forecast import rollout
from sixfold.pde.metrics import scaled_l2
from sixfold.pde.tasks.forecasts import one_step_error, rollout_errors, train_on

HISTORY = 2
FILM = "film.safetensors"
METRICS = {
    "rollout": Metric("scaled L2 of rollouts", digits=3, better="lower"),
    "one_step": Metric("scaled L2 of the next frame", digits=3, better="lower"),
}


class Training(FitConfig):
    """The ``train:`` block.

    Args:
        boundary: Boundary of the flow.
    """

    boundary: Literal["periodic", "closed"] = "periodic"


def train_on_windows(trajectories: Tensor, job: Job, evaluate: Evaluate | None = None) -> None:
    """Train one seed on windows of trajectories, in units of their own spread.

    Args:
        trajectories: Trajectories (sample, time, channel, x, y).
        job: Seed of an entry.
        evaluate: Validation for the learning curve; see `sixfold.core.training.fit.fit`.
    """

    def set_units(model: nn.Module) -> None:
        sd, mean = torch.std_mean(trajectories, (0, 1, 3, 4))
        model.normalizer.set(mean, sd)  # type: ignore[operator]

    train_on(Windows(trajectories, HISTORY), job, set_units, evaluate)


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


def film_section(outcome: Outcome, boundary: str, keys: Iterable[str]) -> Section:
    """Show the error over the steps of a rollout, and films of smoke beside their errors.

    Args:
        outcome: Results of the task.
        boundary: Boundary of the flow.
        keys: Entries to show, where they were trained.
    """
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
    title = f"{outcome.claim.title}: rollouts, {boundary}"
    return Section(title, figures=[figure] if curves else [], pictures=[row])
