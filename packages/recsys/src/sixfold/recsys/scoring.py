"""Scores of a table of predictions: ``sixfold score recsys test.parquet scores.parquet``."""

from pathlib import Path

import numpy as np

from sixfold.core import UserError
from sixfold.recsys.metrics import TableScores, score_predictions
from sixfold.recsys.tables.predicting import group_codes
from sixfold.recsys.tables.read import open_source
from sixfold.recsys.tables.values import normalise, to_floats


def score(
    reference: Path,
    estimate: Path,
    *,
    label: str = "label",
    column: str | None = None,
    group: str | None = None,
) -> TableScores:
    """Score predictions against labels, row by row: AUC, logloss, calibration and gAUC.

    Args:
        reference: Table with the labels.
        estimate: Table with the predictions, its rows in the same order; `sixfold run` writes such.
        label: Column of the labels.
        column: Column of the predictions; by default the label's name followed by _score.
        group: Column of the reference whose values make the groups of gAUC, e.g. user.

    Returns:
        The scores; where all labels are alike, the reason why there is no AUC.

    Raises:
        UserError: a column is missing, a label is not 0 or 1, a prediction is none, or the tables
            differ in their numbers of rows.
    """
    column = column or f"{label}_score"
    labels, predictions = _numbers(reference, label), _numbers(estimate, column)
    if len(labels) != len(predictions):
        raise UserError(
            f"{reference} has {len(labels)} rows and {estimate} {len(predictions)}; give the table "
            "that was scored"
        )
    _refuse(~np.isin(labels, (0, 1)), labels, reference, label, "a label: write 0 or 1")
    with np.errstate(invalid="ignore"):
        wrong = ~((predictions >= 0) & (predictions <= 1))
    _refuse(wrong, predictions, estimate, column, "a probability")
    found = score_predictions(labels, predictions, _groups(reference, group) if group else None)
    print(found)
    return found


def _numbers(path: Path, name: str) -> np.ndarray:
    source = open_source(path)
    source.check([name])
    return np.concatenate([to_floats(b.column(name), b, name) for b in source.blocks([name])])


def _groups(path: Path, name: str) -> np.ndarray:
    source = open_source(path)
    source.check([name])
    return group_codes([normalise(b.column(name), b, name) for b in source.blocks([name])])


def _refuse(wrong: np.ndarray, values: np.ndarray, path: Path, name: str, what: str) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(f"{path}: column {name!r}, row {row + 1} is {values[row]:g}, not {what}")
