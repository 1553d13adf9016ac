"""Train a model on one's own table: schema, vocabularies, validation, schedule, run folder."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field, field_validator

from sixfold.core import Config, System, UserError
from sixfold.core.devices import explain_out_of_memory
from sixfold.core.training.distributed import barrier, rank
from sixfold.core.training.fit import FitConfig, derive_seed, fit
from sixfold.core.training.run import Run
from sixfold.core.training.schedule import ScheduleConfig
from sixfold.core.training.update import EarlyStopping
from sixfold.recsys.layers.optimizers import ranking_adam, regularizer
from sixfold.recsys.metrics import one_class, score_predictions
from sixfold.recsys.tables.encoder import Encoder
from sixfold.recsys.tables.memory import EncodedTable, encoded_bytes
from sixfold.recsys.tables.predicting import BATCH, group_codes, probabilities
from sixfold.recsys.tables.read import Source, open_source
from sixfold.recsys.tables.schema import Schema, as_schema
from sixfold.recsys.tables.selection import hold_out, sample_negatives
from sixfold.recsys.tables.stream import TableStream
from sixfold.recsys.tables.values import normalise
from sixfold.recsys.tables.vectors import load_vectors

MEMORY_BYTES = 1 << 30  # an encoded table that is larger is streamed
SMALLEST_RATE = 1e-6
IMPROVEMENT = 1e-6  # of the validation score, from which on weights are better


class TableFit(Config):
    """How to train on a table; the defaults are FuxiCTR's.

    Args:
        epochs: Largest number of passes over the training table.
        batch: Number of rows of a step.
        learning_rate: First learning rate; each epoch without improvement divides it by ten.
        patience: Number of epochs without improvement in a row to stop after.
        embedding_l2: Regulariser of the embedding tables, a number or e.g. "l1(0.1)".
        net_l2: Regulariser of all other parameters.
        lazy: Whether a step moves only the rows of the tables that it looked up.
        negative_sampling: Share of the negative rows to train on; predictions are corrected for it.
        stream: Whether the table is read anew each epoch instead of held in memory; None decides by
            its size.
        precision: Precision of the model: 32 or bf16.
        threads: Number of CPU threads; None is all.
    """

    epochs: int = Field(default=20, ge=1)
    batch: int = Field(default=4096, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    patience: int = Field(default=2, ge=1)
    embedding_l2: float | str = 0.0
    net_l2: float | str = 0.0
    lazy: bool = False
    negative_sampling: float | None = None
    stream: bool | None = None
    precision: str = "32"
    threads: int | None = None

    @field_validator("embedding_l2", "net_l2", mode="before")
    @classmethod
    def _is_a_regularizer(cls, value: Any) -> Any:
        with suppress(ValueError, TypeError):
            value = float(value)  # the command line gives texts
        regularizer(value)
        return value


@dataclass(frozen=True)
class _Splits:
    """The tables of a training, opened, and which rows of the first are trained on."""

    train: Source
    keep: np.ndarray | None
    valid: Source
    valid_rows: np.ndarray | None


def fit_table(
    system: System,
    settings: Mapping[str, Any],
    schema: Schema | str | Path,
    train: Any,
    *,
    valid: Any = 0.1,
    folder: str | Path | None = None,
    seed: int = 0,
    options: TableFit | None = None,
) -> Any:
    """Train a system on a table and return the model, in eval mode, with its encoder.

    A training that was stopped goes on where it was, with the same numbers.

    Args:
        system: System, whose ``build`` makes a `sixfold.recsys.models.ranker.Ranker`.
        settings: Settings of the model, besides fields and labels.
        schema: Meaning of the columns.
        train: Training table; see `sixfold.recsys.tables.read.open_source`.
        valid: Validation table, or the share of the training table's rows to hold out.
        folder: Run folder; None keeps nothing.
        seed: Seed of first weights, order, dropout and of the rows held out.
        options: How to train.

    Raises:
        UserError: a table, setting or option is wrong; says where and what to do.
    """
    options, schema = options or TableFit(), as_schema(schema)
    splits = _open(schema, train, valid, options, seed)
    encoder = Encoder.fit(schema, splits.train, splits.keep)
    encoder = replace(encoder, kept_negatives=options.negative_sampling or 1.0)
    model = _build(system, settings, encoder, seed)
    held = EncodedTable.read(splits.valid, encoder, splits.valid_rows)
    dataset = _dataset(encoder, splits, options.stream)
    config = _fit_config(options, len(dataset), _monitor(schema, held))
    identity = {"system": system.name, "model": model.config.model_dump(mode="json")}
    identity |= {
        "encoder": encoder.digest(),
        "options": options.model_dump(exclude={"epochs", "threads"}),
    }
    run = Run.open(folder, identity, _fingerprint(splits), seed)
    groups = _groups(schema, splits)

    def evaluate(trained: Any) -> dict[str, float]:
        return _evaluate(trained, encoder, held, groups)

    make = ranking_adam(embedding=options.embedding_l2, net=options.net_l2, lazy=options.lazy)
    loss = model.batch_loss
    fit(run, model, dataset, loss, config, seed=seed, evaluate=evaluate, optimizer=make)
    model.encoder = encoder
    if folder is not None:
        if rank() == 0:
            model.save(folder)
        barrier()
    return model


def _build(system: System, settings: Mapping[str, Any], encoder: Encoder, seed: int) -> Any:
    where, read = f"the settings of {system.name}", {"fields", "labels"}
    if given := sorted(read & settings.keys()):
        raise UserError(
            f"{where}: {', '.join(given)} are read from schema and table; leave them out"
        )
    torch.manual_seed(derive_seed(seed, "init"))
    values = {**settings, "fields": encoder.fields, "labels": encoder.schema.labels}
    config = system.config.parse(values, where)
    with explain_out_of_memory():
        model = system.build(config)
    load_vectors(model, encoder)
    return model


def _open(schema: Schema, train: Any, valid: Any, options: TableFit, seed: int) -> _Splits:
    source = open_source(train, schema.text)
    source.check(schema.needed(labels=True))
    held = None
    if isinstance(valid, float | int):
        held = hold_out(len(source), float(valid), seed)
    opened = source if held is not None else open_source(valid, schema.text)
    opened.check(schema.needed(labels=True))
    keep = None if held is None else ~held
    if options.negative_sampling is not None:
        sampled = sample_negatives(source, schema, options.negative_sampling, seed)
        keep = sampled if keep is None else keep & sampled
    return _Splits(source, keep, opened, held)


def _dataset(encoder: Encoder, splits: _Splits, stream: bool | None) -> EncodedTable | TableStream:
    if stream is None:
        stream = encoded_bytes(splits.train, encoder) > MEMORY_BYTES
    kind = TableStream if stream else EncodedTable.read
    return kind(splits.train, encoder, splits.keep)


def _fit_config(options: TableFit, rows: int, monitor: str) -> FitConfig:
    epoch = -(-rows // options.batch)
    floor = min(1.0, SMALLEST_RATE / options.learning_rate)
    mode = "min" if monitor == "logloss" else "max"
    values = {
        "steps": options.epochs * epoch,
        "eval_every": epoch,
        "batch": options.batch,
        "learning_rate": options.learning_rate,
        "schedule": ScheduleConfig(name="plateau", gamma=0.1, floor=floor),
        "best": EarlyStopping(
            monitor=monitor, mode=mode, patience=options.patience, min_delta=IMPROVEMENT
        ),
        "precision": options.precision,
        "threads": options.threads,
    }
    return FitConfig.parse(values, "the options of fit")


def _monitor(schema: Schema, valid: EncodedTable) -> str:
    """Return the score that decides: AUC, or logloss where a label has one class only."""
    for label in schema.labels:
        if reason := one_class(valid.arrays[label]):
            print(f"validation: {label}: {reason}, AUC is undefined; logloss decides instead")
            return "logloss"
    return "auc"


def _evaluate(
    model: Any, encoder: Encoder, valid: EncodedTable, groups: np.ndarray | None
) -> dict[str, float]:
    """Return the mean scores over labels and, with several, each label's."""
    found = probabilities(model, valid.batches(BATCH), encoder.kept_negatives)
    scores = {k: score_predictions(valid.arrays[k], p, groups).values for k, p in found.items()}
    names = [name for name in ("auc", "logloss", "gauc") if all(name in s for s in scores.values())]
    means = {name: float(np.mean([s[name] for s in scores.values()])) for name in names}
    if len(scores) > 1:
        means |= {f"{name}_{label}": s[name] for label, s in scores.items() for name in names}
    return means


def _groups(schema: Schema, splits: _Splits) -> np.ndarray | None:
    if schema.group is None:
        return None
    blocks = splits.valid.blocks([schema.group], splits.valid_rows)
    return group_codes([normalise(b.column(schema.group), b, schema.group) for b in blocks])


def _fingerprint(splits: _Splits) -> str:
    """Hash the tables' contents: a mended label changes neither a file's name nor its size."""
    hashed = hashlib.sha256()
    for source in (splits.train, splits.valid):
        for file in source.files:
            with file.open("rb") as stream:
                hashed.update(hashlib.file_digest(stream, "sha256").digest())
        if not source.files:
            for block in source.blocks(source.columns):
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, block.table.schema) as writer:
                    writer.write_table(block.table)
                hashed.update(sink.getvalue())
    for rows in (splits.keep, splits.valid_rows):
        hashed.update(b"" if rows is None else rows.tobytes())
    return hashed.hexdigest()
