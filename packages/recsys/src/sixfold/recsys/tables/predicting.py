"""Probabilities and scores of a table, piece by piece, by a model and its encoder."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sixfold.core import UserError
from sixfold.recsys.metrics import TableScores, score_predictions
from sixfold.recsys.tables.encode import EncodingReport, encode_labels
from sixfold.recsys.tables.encoder import Encoder, to_tensors
from sixfold.recsys.tables.read import Block, open_source
from sixfold.recsys.tables.values import normalise, plain

BATCH = 8192
Probabilities = dict[str, Float[np.ndarray, " rows"]]


@dataclass(frozen=True)
class Scored:
    """Scores of a table.

    Args:
        labels: Scores of each label.
        encoding: Values that the model did not know.
    """

    labels: Mapping[str, TableScores]
    encoding: EncodingReport

    def __str__(self) -> str:
        lines = []
        for label, scores in self.labels.items():
            lines += [f"{label}: {line}" for line in str(scores).splitlines()]
        return "\n".join([*lines, *str(self.encoding).splitlines()])


def predict_blocks(
    model: nn.Module,
    encoder: Encoder,
    data: Any,
    report: EncodingReport | None = None,
    *,
    extra: tuple[str, ...] = (),
    batch: int = BATCH,
) -> Iterator[tuple[Block, Probabilities]]:
    """Yield the blocks of a table with the probabilities of their rows.

    Args:
        model: Model in eval mode.
        encoder: Encoder that it learned with.
        data: Table; see `sixfold.recsys.tables.read.open_source`.
        report: Counts of unknown values to add to.
        extra: Columns to read besides the inputs.
        batch: Number of rows that the model sees at once.

    Raises:
        UserError: the table cannot be read, or a prediction is not finite.
    """
    source = open_source(data, encoder.schema.text)
    needed = list(dict.fromkeys([*encoder.schema.needed(labels=False), *extra]))
    source.check(needed)
    for block in source.blocks(needed):
        arrays = encoder.encode(block, report)
        starts = range(0, block.table.num_rows, batch)
        parts = ({n: a[i : i + batch] for n, a in arrays.items()} for i in starts)
        found = probabilities(model, map(to_tensors, parts), encoder.kept_negatives)
        if wrong := sum(int((~np.isfinite(part)).sum()) for part in found.values()):
            raise UserError(
                f"{wrong} predictions are not finite: a number of the table is far from the range "
                "that the model learned, or the training diverged; clip the column"
            )
        yield block, found


def predict(
    model: nn.Module, encoder: Encoder, data: Any, report: EncodingReport | None = None
) -> Probabilities:
    """Return the probabilities of every row of a table, by label; see `predict_blocks`."""
    parts = [found for _, found in predict_blocks(model, encoder, data, report)]
    none = np.empty(0)
    return {
        label: np.concatenate([part[label] for part in parts]) if parts else none
        for label in encoder.schema.labels
    }


def score(model: nn.Module, encoder: Encoder, data: Any) -> Scored:
    """Score a model on a table with labels and, if the schema has a group, its groups."""
    schema, report = encoder.schema, EncodingReport()
    extra = (*schema.labels, *filter(None, [schema.group]))
    found: list[Probabilities] = []
    labels: list[dict[str, np.ndarray]] = []
    groups: list[pa.Array] = []
    for block, part in predict_blocks(model, encoder, data, report, extra=extra):
        found.append(part)
        labels.append(encode_labels(schema, block))
        if schema.group is not None:
            groups.append(normalise(block.column(schema.group), block, schema.group))
    if not found:
        raise UserError("the table has no rows to score")
    codes = group_codes(groups) if groups else None
    scores = {}
    for label in schema.labels:
        truth, p = (np.concatenate([x[label] for x in part]) for part in (labels, found))
        scores[label] = score_predictions(truth, p, codes)
    return Scored(scores, report)


@torch.no_grad()
def probabilities(
    model: Any, batches: Iterable[dict[str, Tensor]], kept_negatives: float = 1.0
) -> Probabilities:
    """Return the probabilities of batches, by label.

    Args:
        model: Model with the labels in its ``config``.
        batches: Batches of encoded fields.
        kept_negatives: Share of the negatives that training kept, for which odds are corrected.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        logits = [model({n: t.to(device) for n, t in batch.items()}) for batch in batches]
    finally:
        model.train(training)
    together = torch.cat(logits).double() + math.log(kept_negatives)
    columns = together.sigmoid().cpu().numpy().T
    return dict(zip(model.config.labels, columns, strict=True))


def group_codes(groups: list[pa.Array]) -> np.ndarray:
    """Return a number for each row that says which group it is of."""
    series = [pl.Series(plain(group)) for group in groups]
    if len({one.dtype for one in series}) > 1:
        series = [one.cast(pl.String) for one in series]
    return pl.concat(series).rank("dense").fill_null(0).to_numpy()
