"""What the tasks have in common: encoded splits in a folder, and the training of a seed on them.

Tables are encoded when they are prepared, so that the processes that train need no polars: it does
not survive the fork that makes them.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.numpy import load_file, save_file

from sixfold.core.data.atomic import atomic_folder
from sixfold.core.pipeline.claim import Scores
from sixfold.core.pipeline.job import Job
from sixfold.core.training.distributed import rank
from sixfold.core.training.fit import FitConfig, derive_seed, fit
from sixfold.core.training.run import Run
from sixfold.core.weights.convert import save_pretrained
from sixfold.recsys.layers.optimizers import ranking_adam
from sixfold.recsys.tables.encoder import Encoder
from sixfold.recsys.tables.memory import EncodedTable
from sixfold.recsys.tables.predicting import BATCH, probabilities
from sixfold.recsys.tables.schema import Schema

GROUP = "group"


class Training(FitConfig):
    """The ``train:`` block; scores of the validation rows are taken once an epoch.

    Args:
        embedding_l2: Regulariser of the embedding tables; see
            `sixfold.recsys.layers.optimizers.regularizer`.
        net_l2: Regulariser of all other parameters.
    """

    embedding_l2: float | str = 0.0
    net_l2: float | str = 0.0


def write_splits(
    folder: Path, splits: Mapping[str, pl.DataFrame], schema: Schema, **facts: Any
) -> None:
    """Fit an encoder to the training rows, and write every split encoded, and a manifest."""
    encoder = Encoder.fit(schema, splits["train"])
    with atomic_folder(folder) as partial:
        for name, rows in splits.items():
            arrays = EncodedTable.read(rows, encoder).arrays
            if schema.group:  # the ids of the data: those unknown in training are groups too
                arrays[GROUP] = rows[schema.group].to_numpy().astype(np.int32)
            save_file(arrays, partial / f"{name}.safetensors")
        manifest = {
            "rows": {name: len(rows) for name, rows in splits.items()},
            "fields": [field.model_dump(mode="json") for field in encoder.fields],
            "labels": schema.labels,
            "encoder": encoder.digest(),
        }
        text = json.dumps(manifest | facts, indent=1)
        (partial / "manifest.json").write_text(text + "\n", encoding="utf-8")


def read_manifest(prepared: Path) -> dict[str, Any]:
    """Read what is known of the prepared splits: rows, fields, labels."""
    return json.loads((prepared / "manifest.json").read_text(encoding="utf-8"))


def read_split(prepared: Path, split: str) -> EncodedTable:
    """Read a prepared split."""
    return EncodedTable(load_file(prepared / f"{split}.safetensors"))


def train_seed(
    job: Job[Any],
    score: Callable[[Any, EncodedTable], Scores],
    labels: tuple[str, ...] | None = None,
) -> None:
    """Train one seed of a system on the prepared splits and write its weights.

    Args:
        job: What to train.
        score: Function of the model and the validation rows: columns of the curve.
        labels: Labels to train; None is all that were prepared.
    """
    manifest = read_manifest(job.prepared)
    # the sizes of the tables are the data's
    sizes = {"fields": manifest["fields"], "labels": labels or manifest["labels"]}
    config = job.system.config.parse(job.model.model_dump() | sizes, job.system.name)
    torch.manual_seed(derive_seed(job.seed, "init"))
    model: Any = job.system.build(config)
    rows, valid = read_split(job.prepared, "train"), read_split(job.prepared, "valid")
    settings = job.train.model_copy(update={"eval_every": -(-len(rows) // job.train.batch)})

    def evaluate(trained: Any) -> dict[str, float]:
        return {f"valid_{k}": v for k, v in score(trained, valid).items() if v is not None}

    identity = {"model": config.model_dump(mode="json"), "train": job.train.model_dump(mode="json")}
    run = Run.open(job.run, identity | {"seed": job.seed}, job.identity)
    make = ranking_adam(embedding=job.train.embedding_l2, net=job.train.net_l2)
    loss = model.batch_loss
    fit(run, model, rows, loss, settings, seed=job.seed, evaluate=evaluate, optimizer=make)
    if rank() == 0:
        save_pretrained(job.weights, model, job.system.name, config)


def predict(model: Any, table: EncodedTable) -> dict[str, np.ndarray]:
    """Return the probabilities of each label for the rows of a table."""
    return probabilities(model, table.batches(BATCH))


def item_shares(known: EncodedTable, test: EncodedTable, label: str) -> np.ndarray:
    """Return each test row's share of positives of its item in training, one more of each added."""
    items, size = known.arrays["item"], int(test.arrays["item"].max())
    positives = np.bincount(items, known.arrays[label], size + 1)
    return ((positives + 1) / (np.bincount(items, minlength=size + 1) + 2))[test.arrays["item"]]
