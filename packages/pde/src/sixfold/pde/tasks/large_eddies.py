"""LESnets without labels, against labels, persistence and large-eddy simulation."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sixfold.core.pipeline.claim import (
    Claim,
    Comparison,
    Curve,
    Metric,
    Scores,
    parameter_counts,
)
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.task import Task
from sixfold.core.training.distributed import rank
from sixfold.core.training.fit import FitConfig, derive_seed, fit
from sixfold.core.training.run import Run
from sixfold.core.weights.convert import save_pretrained
from sixfold.pde.data.decaying_turbulence import (
    TurbulenceData,
    large_eddies,
    prepare,
    read_settings,
    read_turbulence,
)
from sixfold.pde.fields.modes import CUBE
from sixfold.pde.fields.statistics import turbulence_scales
from sixfold.pde.models.lesnets import SYSTEM
from sixfold.pde.models.lesnets.loss import residual
from sixfold.pde.models.lesnets.training import Fields, Objective
from sixfold.pde.tasks.coefficients import measurements
from sixfold.pde.tasks.large_eddies_pages import FOUND, sections
from sixfold.pde.tasks.large_eddies_statistics import final, relative_errors, statistics_of

NEAR = 10  # frames of one block of the network
LES_STEP = 0.02


class Training(FitConfig):
    """The ``train:`` block.

    Args:
        physics_weight: Weight of the residual of the prediction.
        data_weight: Weight of the relative error to the labels.
        swapped: Whether viscosity and Cs2 change places in the residual, as in the published loss.
    """

    physics_weight: float = 1.0
    data_weight: float = 0.0
    swapped: bool = False


def train(job: Job[TurbulenceData]) -> None:
    """Train one seed on all windows of the training trajectories."""
    torch.manual_seed(derive_seed(job.seed, "init"))
    model: Any = job.system.build(job.model)
    frames = read_turbulence(job.prepared, "train")
    windows = frames.unfold(-1, NEAR + 1, 1).movedim(-2, 1).flatten(0, 1)
    config, flow = job.train, job.data.flow()
    quirks = "dhit" if config.swapped else None
    objective = Objective(flow, config.physics_weight, config.data_weight, official_quirks=quirks)
    settings = {"model": job.model.model_dump(), "train": config.model_dump()}
    run = Run.open(job.run, settings | {"seed": job.seed}, job.identity)
    data = Fields(windows[..., 0].contiguous(), windows[..., 1:].contiguous())
    fit(run, model, data, objective, config, seed=job.seed)
    if rank() == 0:
        known = model.config.model_copy(update={"flow": flow})
        save_pretrained(job.weights, model, job.system.name, known)


def evaluate(job: Job[TurbulenceData], samples: Path | None) -> Scores:
    """Score a trained network's rollouts on the test trajectories."""
    model: Any = job.trained()
    frames = read_turbulence(job.prepared, "test")
    blocks = (frames.shape[-1] - 1) // NEAR
    return score(model.predict(frames[..., 0], blocks).velocity, job.prepared, samples)


def score_persistence(prepared: Path, samples: Path | None) -> Scores:
    """Score the forecast that nothing moves."""
    frames = read_turbulence(prepared, "test")
    return score(frames[..., :1].expand_as(frames[..., 1:]), prepared, samples)


def score_simulation(model: str, prepared: Path, samples: Path | None) -> Scores:
    """Score large-eddy simulation with a model of the stress, or without one."""
    data, frames = read_settings(prepared), read_turbulence(prepared, "test")
    u0 = frames[..., 0].movedim(-1, 1).contiguous()
    found = large_eddies(data, u0, model, LES_STEP)[..., 1:]
    return score(found, prepared, samples)


def score(found: Tensor, prepared: Path, samples: Path | None) -> Scores:
    """Score frames after the first against those of the filtered direct simulation.

    Args:
        found: Frames (sample, x, y, z, component, time).
        prepared: Prepared folder.
        samples: Folder for the statistics that the report draws.

    Returns:
        Relative L2 error, mean over frames; energy and dissipation at the end over the true ones;
        root mean square of the residual of the filtered equations, and of the divergence.
    """
    data, frames = read_settings(prepared), read_turbulence(prepared, "test")
    true = frames[..., 1:]
    errors = relative_errors(found, true)
    whole = torch.cat((frames[..., :1], found), -1)
    accelerations, divergence = residual(whole, data.flow(), data.smagorinsky)
    last, last_true = (turbulence_scales(final(x), CUBE, data.viscosity) for x in (found, true))
    if samples is not None:
        save_file(statistics_of(found, true), samples / FOUND)
    return {
        "error_10": float(errors[:NEAR].mean()),
        "error_30": float(errors.mean()),
        "error_at_10": float(errors[NEAR - 1]),
        "energy": float((last.kinetic_energy / last_true.kinetic_energy).mean()),
        "dissipation": float((last.dissipation / last_true.dissipation).mean()),
        "residual": float(accelerations.double().square().mean().sqrt()),
        "divergence": float(divergence.double().square().mean().sqrt()),
    }


CLAIM = Claim(
    title="LESnets: without labels",
    text="The paper (arXiv:2411.04502) claims that a Fourier neural operator trained on the "
    "residual of the filtered equations alone, without labels, is as accurate as large-eddy "
    "simulation and as networks trained on data. Here decaying turbulence at 16^3, filtered from "
    "direct simulation at 32^3, is predicted 10 frames at once and 30 by feeding back. The network "
    "that adds its output to the initial field is ours; the published one has to learn the "
    "identity first. Where arguments are swapped, the loss takes viscosity and coefficient in the "
    "wrong order, as the released code does.",
    metrics={
        "error_10": Metric("relative L2, frames 1 to 10", digits=3, better="lower"),
        "error_30": Metric("relative L2, frames 1 to 30", digits=3, better="lower"),
        "error_at_10": Metric("relative L2 of frame 10", digits=3, better="lower"),
        "energy": Metric("energy at the end, over the true", digits=3),
        "dissipation": Metric("dissipation at the end, over the true", digits=3),
        "residual": Metric("residual, rms", digits=3, better="lower"),
        "divergence": Metric("divergence, rms", digits=3, better="lower"),
    },
    comparisons=[
        Comparison("label_free", "label_free_published", "error_10"),
        Comparison("label_free", "data_driven", "error_10"),
        Comparison("label_free", "data_driven", "error_30"),
        Comparison("mixed", "data_driven", "error_30"),
        Comparison("label_free", "label_free_swapped", "error_30"),
    ],
    labels={
        "persistence": "persistence",
        "none": "simulation without a model",
        "smagorinsky": "Smagorinsky LES",
        "dynamic": "dynamic LES",
        "label_free": "without labels",
        "label_free_published": "without labels, published form",
        "data_driven": "labels alone",
        "mixed": "residual and labels",
        "label_free_swapped": "without labels, arguments swapped",
    },
    curve=Curve("loss", "training loss"),
    caption="Test trajectories",
)

TASK = Task(
    claim=CLAIM,
    data=TurbulenceData,
    datasets=lambda data: [],
    prepare=prepare,
    synthetic="simulated turbulence",
    train=train,
    evaluate=evaluate,
    references={
        "persistence": score_persistence,
        "none": partial(score_simulation, "none"),
        "smagorinsky": partial(score_simulation, "smagorinsky"),
        "dynamic": partial(score_simulation, "dynamic"),
    },
    measurements=[*measurements(), *parameter_counts(SYSTEM)],
    settings=Training,
    sections=sections,
    benchmarks=["les_cost"],
)
