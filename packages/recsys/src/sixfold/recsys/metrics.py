"""Scores of predicted probabilities, in float64: pure functions of arrays, tensors or lists.

With one class only there is no AUC: functions return nan, and `score_predictions` says why. Columns
of unequal length, or with values that are not finite, raise a UserError.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import ndtr, ndtri, xlogy

from sixfold.core import UserError
from sixfold.core.data.tensors import as_tensor

CLIP = 1e-7  # predictions are kept this far from 0 and 1, as in FuxiCTR 2.0.1

Labels = Any  # 0 and 1, (rows,): an array, a tensor or a list
Predictions = Any  # probabilities, (rows,), in the same way
Groups = Any  # ids of any type, (rows,)


@dataclass
class TableScores:
    """Scores of one label of a table.

    Args:
        values: Scores by name; the counts ``groups`` and ``groups_left_out`` belong to ``gauc``.
        undefined: Reasons of the scores that do not exist, by name.
    """

    values: dict[str, float] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{name} {value:.6g}" for name, value in self.values.items()]
        lines += [f"{name} undefined: {reason}" for name, reason in self.undefined.items()]
        return "\n".join(lines)


def score_predictions(
    labels: Labels, predictions: Predictions, groups: Groups | None = None
) -> TableScores:
    """Compute AUC, logloss, calibration and, by groups, gAUC; say why one does not exist.

    Args:
        labels: True labels, 0 or 1.
        predictions: Probabilities of label 1.
        groups: Ids of the groups, such as users; None leaves gAUC out.
    """
    labels, predictions = _columns(labels, predictions, groups)
    found = TableScores()
    reason = one_class(labels)
    values = {"auc": auc(labels, predictions), "logloss": logloss(labels, predictions)}
    values["calibration"] = calibration(labels, predictions)
    if groups is not None:
        values["gauc"], used, left_out = grouped_auc(labels, predictions, groups)
        values |= {"groups": used, "groups_left_out": left_out}
    for name, value in values.items():
        if np.isfinite(value):
            found.values[name] = float(value)
        else:
            found.undefined[name] = reason or "no group has labels of both classes"
    return found


def one_class(labels: Labels) -> str:
    """Return why there is no AUC: no rows, or one class only; empty if there is one."""
    if len(labels) == 0:
        return "there are no rows"
    value = labels[0]
    return "" if (labels != value).any() else f"all {len(labels)} labels are {value:g}"


def auc(labels: Labels, predictions: Predictions) -> float:
    """Return the probability that a positive is ranked above a negative, ties counted half.

    It is nan where all labels are alike.
    """
    labels, predictions = _columns(labels, predictions)
    return float(_group_aucs(labels, predictions, np.zeros(len(labels), np.int64))[0].sum())


def grouped_auc(labels: Labels, predictions: Predictions, groups: Groups) -> tuple[float, int, int]:
    """Return gAUC: the mean of the groups' AUC, weighted by their rows.

    Returns:
        gAUC, nan without any group of both classes; the number of groups of both classes; the
        number of groups left out.
    """
    labels, predictions = _columns(labels, predictions, groups)
    aucs, rows = _group_aucs(labels, predictions, groups)
    both = ~np.isnan(aucs)
    weighted = float((aucs[both] * rows[both]).sum() / rows[both].sum()) if both.any() else np.nan
    return weighted, int(both.sum()), int((~both).sum())


def average_auc(labels: Labels, predictions: Predictions, groups: Groups) -> float:
    """Return the plain mean of AUC over the groups that have both classes; else nan."""
    labels, predictions = _columns(labels, predictions, groups)
    aucs, _ = _group_aucs(labels, predictions, groups)
    both = ~np.isnan(aucs)
    return float(aucs[both].mean()) if both.any() else np.nan


def logloss(labels: Labels, predictions: Predictions) -> float:
    """Return the mean binary cross-entropy, predictions clipped to [1e-7, 1 - 1e-7]."""
    labels, predictions = _columns(labels, predictions)
    if len(labels) == 0:
        return np.nan
    p = np.clip(predictions.astype(np.float64), CLIP, 1 - CLIP)
    return float(-(xlogy(labels, p) + xlogy(1 - labels, 1 - p)).mean())


def calibration(labels: Labels, predictions: Predictions) -> float:
    """Return the mean prediction over the mean label; 1 is perfect, nan without positives."""
    labels, predictions = _columns(labels, predictions)
    positives = labels.sum(dtype=np.float64)
    return float(predictions.sum(dtype=np.float64) / positives) if positives else np.nan


def mrr(labels: Labels, predictions: Predictions, groups: Groups) -> float:
    """Return the mean over groups of sum(label / rank) / sum(label), as FuxiCTR defines it.

    Ranks are by falling prediction, ties in the order of rows; a group without positives counts 0.
    """
    ranked = _ranked(labels, predictions, groups)
    gained = np.bincount(ranked.group, ranked.label / (1 + ranked.place))
    positives = np.bincount(ranked.group, ranked.label)
    return float(np.divide(gained, positives, np.zeros_like(gained), where=positives > 0).mean())


def ndcg(labels: Labels, predictions: Predictions, groups: Groups, k: int) -> float:
    """Return the mean over groups of DCG@k over the best DCG@k; gains 2^label - 1, log2 discounts.

    Ties are in the order of rows; a group without positives counts 0.
    """
    reached, best = (
        np.bincount(r.group, np.where(r.place < k, (2.0**r.label - 1) / np.log2(r.place + 2), 0))
        for r in (_ranked(labels, predictions, groups), _ranked(labels, labels, groups))
    )
    return float((reached / (best + 1e-12)).mean())


class Difference(NamedTuple):
    """Difference of two AUCs with its standard error, 95 % interval and two-sided p value."""

    value: float
    error: float
    low: float
    high: float
    p: float


def auc_difference(labels: Labels, first: Predictions, second: Predictions) -> Difference:
    """Return AUC(first) - AUC(second) on the same rows, with DeLong's variance.

    All values are nan where all labels are alike.
    """
    labels, first = _columns(labels, first)
    labels, second = _columns(labels, second)
    if one_class(labels):
        return Difference(*[np.nan] * 5)
    positive = labels > 0
    ahead, behind = (_placements(positive, p) for p in (first, second))
    of_positives, of_negatives = (a - b for a, b in zip(ahead, behind, strict=True))
    value = float(of_positives.mean())
    variance = sum(d.var(ddof=1) / len(d) for d in (of_positives, of_negatives) if len(d) > 1)
    error = float(np.sqrt(variance))
    half = float(ndtri(0.975)) * error
    p = float(2 * ndtr(-abs(value) / error)) if error else float(value == 0)
    return Difference(value, error, value - half, value + half, p)


def _columns(
    labels: Any, predictions: Any, groups: Any | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and predictions as arrays; groups are as many.

    Raises:
        UserError: they are no numbers, not of one axis, not as many, or not finite.
    """
    given = {"labels": labels, "predictions": predictions}
    tensors = [as_tensor(values, name) for name, values in given.items()]
    found = [(t.float() if t.dtype == torch.bfloat16 else t).numpy(force=True) for t in tensors]
    shapes = [values.shape for values in found] + ([np.shape(groups)] if groups is not None else [])
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        names = ", ".join([*given, "groups"][: len(shapes)])
        raise UserError(f"{names} should be columns of one length, got the shapes {shapes}")
    for name, values in zip(given, found, strict=True):
        if wrong := int((~np.isfinite(values)).sum()):
            raise UserError(f"{wrong} of {len(values)} {name} are NaN or infinite; leave them out")
    return found[0], found[1]


def _placements(positive: np.ndarray, predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of negatives below each positive, and of positives above each negative."""
    one_group = np.zeros(len(predictions), np.int64)
    everyone = _mid_ranks(predictions, one_group)
    among_own = np.empty_like(everyone)
    for side in (positive, ~positive):
        among_own[side] = _mid_ranks(predictions[side], one_group[side])
    others = everyone - among_own  # rows of the other class below, ties half
    positives, negatives = positive.sum(), (~positive).sum()
    return others[positive] / negatives, 1 - others[~positive] / positives


def _group_aucs(
    labels: Labels, predictions: Predictions, groups: Groups
) -> tuple[np.ndarray, np.ndarray]:
    """Return AUC (nan with one class only) and number of rows of each group."""
    if len(labels) == 0:
        return np.array([np.nan]), np.zeros(1, np.int64)
    group = np.unique(groups, return_inverse=True)[1]
    positive = labels > 0
    rows = np.bincount(group)
    positives = np.bincount(group, positive).astype(np.float64)
    pairs = positives * (rows - positives)
    ranks = np.bincount(group, _mid_ranks(predictions, group) * positive)
    above = ranks - positives * (positives + 1) / 2
    return np.divide(above, pairs, np.full(len(rows), np.nan), where=pairs > 0), rows


def _mid_ranks(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the rank of each row in its group, from 1 upwards; ties share their mean rank."""
    order = np.lexsort((values, group))
    sorted_group, sorted_values = group[order], values[order]
    new_group = np.append(True, sorted_group[1:] != sorted_group[:-1])
    new_value = new_group | np.append(True, sorted_values[1:] != sorted_values[:-1])
    starts = np.flatnonzero(new_value)
    lengths = np.diff(np.append(starts, len(values)))
    first_of_group = np.flatnonzero(new_group)[np.cumsum(new_group) - 1]
    middle = np.repeat(starts + (lengths + 1) / 2, lengths) - first_of_group
    ranks = np.empty(len(values))
    ranks[order] = middle
    return ranks


class _Ranked(NamedTuple):
    """Rows in the order of groups and falling predictions; ``place`` counts from 0 in a group."""

    group: np.ndarray
    label: np.ndarray
    place: np.ndarray


def _ranked(labels: np.ndarray, predictions: np.ndarray, groups: Groups) -> _Ranked:
    labels, predictions = _columns(labels, predictions, groups)
    group = np.unique(groups, return_inverse=True)[1]
    order = np.lexsort((-predictions, group))  # stable: ties keep the order of rows
    group = group[order]
    starts = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    place = np.arange(len(group)) - starts[group]
    return _Ranked(group, labels[order].astype(np.float64), place)
