"""Training on data that never come again, as every experiment here does."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sixfold.core.pipeline.job import Job
from sixfold.core.training.distributed import rank
from sixfold.core.training.fit import Evaluate, Loss, derive_seed, fit
from sixfold.core.training.run import Run
from sixfold.core.weights.convert import save_pretrained


def train_on(
    dataset: Any,
    loss: Loss,
    job: Job,
    *,
    start: Callable[[nn.Module], None] | None = None,
    evaluate: Evaluate | None = None,
) -> None:
    """Train one seed of an entry, from wherever its run stands, and write the weights.

    Args:
        dataset: Data to train on; see `fit`.
        loss: Loss of a model and a batch; see `fit`.
        job: Seed of an entry.
        start: Function that sets the first weights, where random ones will not do.
        evaluate: Validation for the learning curve; see `fit`.
    """
    torch.manual_seed(derive_seed(job.seed, "init"))
    model = job.system.build(job.model)
    if start is not None:
        start(model)
    settings = {"model": job.model.model_dump(), "train": job.train.model_dump()}
    run = Run.open(job.run, settings | {"seed": job.seed}, job.identity)
    fit(run, model, dataset, loss, job.train, seed=job.seed, evaluate=evaluate)
    if rank() == 0:
        save_pretrained(job.weights, model, job.system.name, job.model)
