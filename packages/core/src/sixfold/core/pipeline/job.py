"""One seed of one entry of params.yaml, and the usual way to train it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from sixfold.core.config import Config
from sixfold.core.system import System
from sixfold.core.training.distributed import rank
from sixfold.core.training.fit import fit
from sixfold.core.training.run import Run
from sixfold.core.training.sampling import derive_seed
from sixfold.core.weights.convert import from_pretrained, save_pretrained

Data = TypeVar("Data", bound=Config)


@dataclass(frozen=True)
class Job(Generic[Data]):
    """One seed of one entry.

    Args:
        system: System that is trained.
        model: Its settings.
        train: Checked ``train:`` block, its steps scaled by the budget.
        data: Checked ``data:`` block of the task.
        seed: Seed of weights, order and augmentation, or number of the split.
        prepared: Folder of the prepared data.
        run: Run folder, named by the identity, where a killed training is found again.
        weights: File of the trained weights; a task with several files a seed writes them to the
            folder of that name without suffix.
        identity: Hash of code, prepared data and settings.
    """

    system: System
    model: Config
    train: Any
    data: Data
    seed: int
    prepared: Path
    run: Path
    weights: Path
    identity: str

    def trained(self) -> nn.Module:
        """Load the trained model, in eval mode."""
        return from_pretrained(self.weights, self.system)


def supervised(
    dataset: Callable[[Path, Any], Any], loss: Callable[[Any, dict[str, Tensor]], Any]
) -> Callable[[Job], None]:
    """Return the usual ``train`` of a task: build, fit, save.

    Args:
        dataset: Training set of the prepared folder and the ``data:`` block; see `fit`.
        loss: Loss of a model and a batch; see `fit`.
    """

    def train(job: Job) -> None:
        torch.manual_seed(derive_seed(job.seed, "init"))
        model = job.system.build(job.model)
        settings = {"model": job.model.model_dump(), "train": job.train.model_dump()}
        run = Run.open(job.run, settings | {"seed": job.seed}, job.identity)
        fit(run, model, dataset(job.prepared, job.data), loss, job.train, seed=job.seed)
        if rank() == 0:
            save_pretrained(job.weights, model, job.system.name, job.model)

    return train
