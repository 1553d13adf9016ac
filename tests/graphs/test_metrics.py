"""Metrics are those of scikit-learn; labels that are not known are left out."""

import pytest
import torch
from sklearn import metrics as sklearn

from sixfold.core import UserError
from sixfold.graphs.metrics import METRICS, accuracy, f1, mean_squared_error, measure, r2, roc_auc


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_classes():
    scores, y = torch.randn(50, 4).softmax(1), torch.randint(4, (50,))
    predicted = scores.argmax(1)
    assert measure(None, "multiclass", scores, y) == pytest.approx(
        100 * sklearn.accuracy_score(y, predicted)
    )
    for average in ("macro", "micro"):
        expected = sklearn.f1_score(y, predicted, average=average)
        assert measure(f"f1_{average}", "multiclass", scores, y) == pytest.approx(expected)
    expected = sklearn.roc_auc_score(
        y, scores.double() / scores.double().sum(1, True), multi_class="ovr"
    )
    assert measure("roc_auc", "multiclass", scores, y) == pytest.approx(expected)


def test_labels():
    logits, y = torch.randn(50, 3), torch.randint(2, (50, 3)).float()
    for average in ("macro", "micro"):
        expected = sklearn.f1_score(y, logits > 0, average=average)
        assert measure(f"f1_{average}", "multilabel", logits, y) == pytest.approx(expected)
    expected = sklearn.roc_auc_score(y, logits)
    assert measure("roc_auc", "multilabel", logits, y) == pytest.approx(expected)
    unknown = torch.rand(50, 3) < 0.3
    kept = ~unknown
    y[unknown] = torch.nan
    assert measure(None, "multilabel", logits, y) == pytest.approx(
        sklearn.f1_score(y[kept], logits[kept] > 0)
    )
    columns = [sklearn.roc_auc_score(y[k, i], logits[k, i]) for i, k in enumerate(kept.T)]
    assert measure("roc_auc", "multilabel", logits, y) == pytest.approx(sum(columns) / 3)


def test_numbers():
    outputs, y = torch.randn(50, 2), torch.randn(50, 2)
    assert measure(None, "regression", outputs, y) == pytest.approx(sklearn.r2_score(y, outputs))
    assert measure("mse", "regression", outputs, y) == pytest.approx(
        sklearn.mean_squared_error(y, outputs)
    )
    y[:9] = torch.nan
    assert measure(None, "regression", outputs, y) == pytest.approx(
        sklearn.r2_score(y[9:], outputs[9:])
    )


def test_links():
    probabilities, y = torch.rand(50), torch.randint(2, (50,)).float()
    assert measure(None, "links", probabilities, y) == pytest.approx(
        sklearn.roc_auc_score(y, probabilities)
    )
    assert measure("f1", "links", probabilities, y) == pytest.approx(
        sklearn.f1_score(y, probabilities > 0.5)
    )
    assert measure("accuracy", "links", probabilities, y) == pytest.approx(
        100 * sklearn.accuracy_score(y, probabilities > 0.5)
    )


def test_a_class_that_is_not_there_has_no_roc_auc():
    scores, y = torch.rand(20, 3), torch.randint(2, (20,))
    expected = [sklearn.roc_auc_score(y == i, scores[:, i]) for i in range(2)]
    assert measure("roc_auc", "multiclass", scores, y) == pytest.approx(sum(expected) / 2)
    with pytest.raises(UserError, match="needs both labels"):
        roc_auc(torch.rand(4), torch.ones(4))


def test_nothing_predicted_is_no_warning():
    assert f1(torch.zeros(4, dtype=torch.bool), torch.ones(4), "micro") == 0


@pytest.mark.parametrize("kind", METRICS)
def test_other_metrics_are_refused_by_name(kind):
    with pytest.raises(UserError, match=f"target {kind} has no metric 'f2'; .*it has: "):
        measure("f2", kind, torch.rand(2, 2), torch.rand(2, 2))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("score", [accuracy, mean_squared_error, r2])
def test_other_shapes_are_not_broadcast(score):
    with pytest.raises(UserError, match="y should have one shape"):
        score(torch.ones(1, 3), torch.ones(4, 3))
