"""Metrics against their definitions, written plainly."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from sixfold.core import UserError
from sixfold.recsys import metrics


def table(seed: int, rows: int = 60, levels: int = 9):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows).astype(np.float64)
    predictions = rng.integers(1, levels, rows) / levels
    return labels, predictions, rng.integers(0, 8, rows)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_auc_is_the_share_of_ordered_pairs(seed):
    labels, predictions, _ = table(seed)
    pairs = predictions[labels == 1][:, None] - predictions[labels == 0][None]
    assert metrics.auc(labels, predictions) == pytest.approx(((np.sign(pairs) + 1) / 2).mean())


@pytest.mark.parametrize("seed", range(3))
def test_gauc_weighs_the_groups_that_have_both_classes(seed):
    labels, predictions, groups = table(seed, rows=40)
    labels[groups == 3] = 1
    aucs, rows = [], []
    for group in np.unique(groups):
        mine = groups == group
        if len(set(labels[mine])) == 2:
            aucs.append(roc_auc_score(labels[mine], predictions[mine]))
            rows.append(mine.sum())
    value, used, left_out = metrics.grouped_auc(labels, predictions, groups)
    assert value == pytest.approx(np.average(aucs, weights=rows))
    assert (used, left_out) == (len(aucs), len(np.unique(groups)) - len(aucs))
    assert metrics.average_auc(labels, predictions, groups) == pytest.approx(np.mean(aucs))


def test_groups_may_be_named_by_text_and_large_numbers():
    labels, predictions, groups = table(0)
    expected = metrics.grouped_auc(labels, predictions, groups)
    for names in (groups.astype(str), groups.astype(np.uint64) + np.uint64(2**64 - 9)):
        assert metrics.grouped_auc(labels, predictions, names) == expected


def test_one_class_leaves_auc_undefined_and_the_other_scores_go_on():
    predictions = np.array([0.2, 0.4])
    found = metrics.score_predictions(np.zeros(2), predictions, np.array([0, 1]))
    assert set(found.values) == {"logloss", "groups", "groups_left_out"}
    assert found.values["groups_left_out"] == 2
    assert found.undefined["auc"] == "all 2 labels are 0"
    assert "auc undefined: all 2 labels are 0" in str(found)


def test_certain_and_wrong_predictions_have_a_finite_logloss():
    assert metrics.logloss(np.ones(1), np.zeros(1)) == pytest.approx(-np.log(1e-7))


def test_calibration_is_mean_prediction_over_mean_label():
    labels, predictions = np.array([1.0, 0, 0, 0]), np.array([0.5, 0.5, 0.5, 0.5])
    assert metrics.calibration(labels, predictions) == 2


def test_delongs_error_is_that_of_the_bootstrap():
    rng = np.random.default_rng(0)
    labels = (rng.random(400) < 0.4).astype(np.float64)
    first = labels * 0.8 + rng.normal(size=400)
    second = 0.7 * first + rng.normal(size=400)
    found = metrics.auc_difference(labels, first, second)
    assert found.value == pytest.approx(
        roc_auc_score(labels, first) - roc_auc_score(labels, second)
    )
    draws = [rng.integers(0, 400, 400) for _ in range(400)]
    spread = np.std(
        [metrics.auc(labels[d], first[d]) - metrics.auc(labels[d], second[d]) for d in draws]
    )
    assert found.error == pytest.approx(spread, rel=0.15)
    assert found.low < found.value < found.high


def test_equal_predictions_do_not_differ():
    labels, predictions, _ = table(1)
    assert metrics.auc_difference(labels, predictions, predictions)[:2] == (0, 0)
    assert np.isnan(metrics.auc_difference(np.ones(3), predictions[:3], predictions[:3]).p)


@pytest.mark.parametrize("name", ["auc", "logloss", "calibration"])
def test_lists_and_tensors_score_as_arrays_do(name):
    labels, predictions = [1, 0, 1, 0], [0.9, 0.5, 0.25, 0.125]
    score = getattr(metrics, name)
    right = score(np.array(labels), np.array(predictions))
    assert score(labels, predictions) == right
    assert score(torch.tensor(labels), torch.tensor(predictions, dtype=torch.bfloat16)) == (
        pytest.approx(right, abs=0.01)
    )
    with pytest.raises(UserError, match="1 of 4 predictions are NaN or infinite"):
        score(labels, [0.5, 0.5, np.nan, 0.5])
    with pytest.raises(UserError, match="should be columns of one length"):
        score(labels, predictions[:3])
