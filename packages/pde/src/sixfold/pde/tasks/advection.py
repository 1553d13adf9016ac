"""Waves against misalignment: SineNet on textures that move by a fixed distance a frame."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from sixfold.core.pipeline.claim import (
    Claim,
    Comparison,
    Curve,
    Metric,
    Scores,
    parameter_counts,
)
from sixfold.core.pipeline.figures import curve_figure, picture_row
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.page import Section
from sixfold.core.pipeline.report import Outcome
from sixfold.core.pipeline.task import Task
from sixfold.core.training.fit import FitConfig
from sixfold.pde.data.textures import (
    FreshTextures,
    Shift,
    TextureData,
    prepare,
    read_shifts,
    read_test,
    with_shifts,
)
from sixfold.pde.fields.forecast import forecast
from sixfold.pde.metrics import scaled_l2
from sixfold.pde.models import dil_resnet, ffno, unet_mod
from sixfold.pde.models.sinenet import ODE_SYSTEM, SYSTEM
from sixfold.pde.tasks.forecasts import one_step_error, rollout_errors, train_on

PREDICTED = "predicted.safetensors"
FAR: Shift = (5, 3)
BASELINES = (unet_mod.SYSTEM, dil_resnet.SYSTEM, ffno.SYSTEM)


class Training(FitConfig):
    """The ``train:`` block.

    Args:
        shift: Distance from frame to frame along x and y, in points; a random one of each sample
            is given to the network as two more channels.
    """

    shift: Shift


def train(job: Job[TextureData]) -> None:
    """Train one seed on textures that never come again."""
    train_on(FreshTextures(job.data, job.train.shift, job.train.batch), job)


def evaluate(job: Job[TextureData], samples: Path | None) -> Scores:
    """Score a trained network on the next frame and on frames fed back."""
    model: Any = job.trained()
    trajectories = read_test(job.prepared, job.train.shift)
    if job.train.shift == "random":
        return score_random(model, trajectories)
    if samples is not None:
        pair = {
            "true": trajectories[0, 1, 0],
            "predicted": forecast(model, trajectories[:1, :1])[0, 0, 0],
        }
        found = {name: value.contiguous() for name, value in pair.items()}
        save_file(found, samples / PREDICTED)
    error = one_step_error(model, trajectories[:, :2])
    return {"error": error, "rollout": float(rollout_errors(model, trajectories).mean())}


def score_random(model: Any, trajectories: Tensor) -> Scores:
    """Score a network that is given the shift, on the next frame and on frames fed back."""
    shifts, frame, errors = read_shifts(len(trajectories)), trajectories[:, :1], []
    for true in trajectories[:, 1:].split(1, 1):
        frame = forecast(model, with_shifts(frame, shifts))
        errors.append(float(scaled_l2(frame, true).double().mean()))
    return {"error": errors[0], "rollout": sum(errors) / len(errors)}


def score_persistence(prepared: Path, samples: Path | None) -> Scores:
    """Score the forecast that nothing moves."""
    del samples
    trajectories = read_test(prepared, FAR)
    still = trajectories[:, :1]
    error = float(scaled_l2(still, trajectories[:, 1:2]).double().mean())
    whole = scaled_l2(still.expand_as(trajectories[:, 1:]), trajectories[:, 1:])
    return {"error": error, "rollout": float(whole.double().mean())}


def sections(outcome: Outcome) -> Iterator[Section]:
    """Show the error over the displacement for each number of waves, and one forecast."""
    text = (
        "Each number of waves has as many parameters and steps. A skip connection joins the "
        "features of a place before and after the motion: the further the motion, the less they "
        "have to do with each other."
    )
    shown = {}
    for key in outcome.run.entries:
        file = outcome.samples(key) / PREDICTED
        if outcome.run.settings(key).shift == FAR and file.is_file():
            found = load_file(file)
            shown |= {"true": found["true"].numpy()}
            shown[outcome.claim.label(key)] = found["predicted"].numpy()
    name = outcome.run.key
    rows = [picture_row(f"{name}-texture", f"The next frame, shift {FAR}", shown)] if shown else []
    quantity, over = "scaled L2 of the next frame", "displacement, points"
    if curves := displacement_curves(outcome):
        figure = curve_figure(f"{name}-displacement", quantity, curves, over=over)
        title = f"{outcome.claim.title}: over the displacement"
        yield Section(title, text, figures=[figure], pictures=rows)


def displacement_curves(
    outcome: Outcome,
) -> dict[str, list[tuple[list[float], list[float]]]]:
    """Return displacements and errors, a line a seed, for each number of waves at equal steps."""
    curves: dict[str, list[tuple[list[float], list[float]]]] = {}
    for waves, name in NAMES.items():
        keys = [f"waves{waves}_{place}" for place in ("near", "middle", "far")]
        keys = [key for key in keys if key in outcome.results]
        at = [distance(outcome.run.settings(key).shift) for key in keys]
        rows = [outcome.results[key]["seeds"] for key in keys]
        lines = [(at, [row[seed]["error"] for row in rows]) for seed in (rows[0] if rows else ())]
        curves |= {name: lines} if lines else {}
    return curves


def distance(shift: tuple[int, int]) -> float:
    """Return the length of a shift, in points."""
    return (shift[0] ** 2 + shift[1] ** 2) ** 0.5


NAMES = {1: "one wave", 2: "two waves", 4: "four waves"}
CLAIM = Claim(
    title="SineNet: waves against misalignment",
    text="The paper (arXiv:2403.19507) argues that a U-Net's skip connections join features of "
    "different times, and that a chain of smaller U-Nets, the waves, has less to join in each. "
    "Here just that is tested: random textures that move by a fixed distance from frame to frame, "
    "networks of equal parameters, fresh samples, equal steps. A random shift, of up to 8 points "
    "along each axis, is given to the network as two channels. The row at equal time is one wave "
    "with as many steps as it can make in the time of four.",
    metrics={
        "error": Metric("scaled L2 of the next frame", digits=3, better="lower"),
        "rollout": Metric("scaled L2 over 5 frames", digits=3, better="lower"),
    },
    comparisons=[
        Comparison("waves4_far", "waves1_far"),
        Comparison("waves2_far", "waves1_far"),
        Comparison("waves4_far", "waves1_far_long"),
        Comparison("waves4_near", "waves1_near"),
        Comparison("waves4_random", "waves1_random"),
        Comparison("waves4_random", "waves1_random_long"),
    ],
    labels={
        "persistence": "persistence, shift (5, 3)",
        **{f"waves{n}_near": f"{name}, shift (1, 0)" for n, name in NAMES.items()},
        **{f"waves{n}_middle": f"{name}, shift (3, 2)" for n, name in NAMES.items()},
        **{f"waves{n}_far": f"{name}, shift (5, 3)" for n, name in NAMES.items()},
        "waves1_far_long": "one wave at equal time, shift (5, 3)",
        **{f"waves{n}_random": f"{name}, random shift" for n, name in NAMES.items()},
        "waves1_random_long": "one wave at equal time, random shift",
    },
    curve=Curve("scaled_l2", "training scaled L2"),
    caption="Test textures",
)

TASK = Task(
    claim=CLAIM,
    data=TextureData,
    datasets=lambda data: [],
    prepare=prepare,
    synthetic="generated textures",
    train=train,
    evaluate=evaluate,
    references={"persistence": score_persistence},
    measurements=parameter_counts(SYSTEM, ODE_SYSTEM, *BASELINES),
    settings=Training,
    sections=sections,
)
