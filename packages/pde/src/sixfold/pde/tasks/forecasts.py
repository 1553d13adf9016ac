"""What the experiments on forecasts share: training in normalised units, errors of forecasts."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.core.pipeline.job import Job
from sixfold.core.training.distributed import rank
from sixfold.core.training.fit import Evaluate, derive_seed, fit
from sixfold.core.training.run import Run
from sixfold.core.weights.convert import save_pretrained
from sixfold.pde.fields.forecast import Forecaster, forecast, rollout
from sixfold.pde.losses import scaled_norm
from sixfold.pde.metrics import scaled_l2

BATCH = 64  # samples that are scored at once


def train_on(
    dataset: Any,
    job: Job,
    start: Callable[[nn.Module], None] = lambda model: None,
    evaluate: Evaluate | None = None,
) -> None:
    """Train one seed of an entry on the published loss, and write the weights.

    Args:
        dataset: Histories and targets in physical units; see `sixfold.core.training.fit.fit`.
        job: Seed of an entry.
        start: Function that sets what the first weights do not, such as the units of the data.
        evaluate: Validation for the learning curve; see `sixfold.core.training.fit.fit`.
    """
    torch.manual_seed(derive_seed(job.seed, "init"))
    model = job.system.build(job.model)
    start(model)
    settings = {"model": job.model.model_dump(), "train": job.train.model_dump()}
    run = Run.open(job.run, settings | {"seed": job.seed}, job.identity)
    fit(run, model, dataset, forecast_loss, job.train, seed=job.seed, evaluate=evaluate)
    if rank() == 0:
        save_pretrained(job.weights, model, job.system.name, job.model)


def forecast_loss(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the scaled L2 of the next frame in normalised units."""
    history, target = (model.normalizer.normalize(batch[k]) for k in ("history", "target"))
    return {"scaled_l2": scaled_norm(model(history), target)}


def one_step_error(model: Forecaster, trajectories: Tensor) -> float:
    """Return the scaled L2 of the next frame, from every window of true frames."""
    history = model.config.time_history
    windows = trajectories.unfold(1, history + 1, 1).movedim(-1, 2).flatten(0, 1)
    errors = [
        scaled_l2(forecast(model, part[:, :history]), part[:, history:])
        for part in windows.split(BATCH)
    ]
    return float(torch.cat(errors).double().mean())


def rollout_errors(model: Forecaster, trajectories: Tensor) -> Tensor:
    """Return the scaled L2 of each predicted frame (time), from the first true ones of each."""
    history = model.config.time_history
    steps = trajectories.shape[1] - history
    parts = [
        scaled_l2(rollout(model, part[:, :history], steps), part[:, history:])
        for part in trajectories.split(BATCH)
    ]
    return torch.cat(parts).double().mean((0, 2))
