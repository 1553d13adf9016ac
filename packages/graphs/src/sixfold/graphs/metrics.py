"""Metrics: accuracy in per cent, ROC-AUC and F1 between 0 and 1, R2 and squared error."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

from sixfold.core import UserError
from sixfold.core.config import unknown_name_error
from sixfold.core.data.tensors import check_one_shape

Kind = Literal["multiclass", "multilabel", "regression", "links"]

METRICS: Mapping[Kind, tuple[str, ...]] = {  # the first one is the default
    "multiclass": ("accuracy", "f1_macro", "f1_micro", "roc_auc"),
    "multilabel": ("f1_micro", "f1_macro", "roc_auc"),
    "regression": ("r2", "mse"),
    "links": ("roc_auc", "f1", "accuracy"),
}


def measure(
    metric: str | None,
    kind: Kind,
    outputs: Float[Tensor, "item ..."],
    y: Shaped[Tensor, "item ..."],
) -> float:
    """Compute a metric by its name.

    Args:
        metric: Name, one of ``METRICS`` of the kind; the first of these if not given.
        kind: Kind of y.
        outputs: Class scores, logits of labels, predicted numbers, or probabilities of links. The
            ROC-AUC of classes takes their probabilities.
        y: Classes, labels and numbers for each output (NaN are left out), or whether each pair is a
            link.

    Raises:
        UserError: there is no such metric.
    """
    name = METRICS[kind][0] if metric is None else metric
    if name not in METRICS[kind]:
        raise UserError(unknown_name_error(f"target {kind}", "metric", name, METRICS[kind]))
    if name == "roc_auc":
        classes = outputs.shape[1] if kind == "multiclass" else 0
        return roc_auc(outputs, functional.one_hot(y, classes) if classes else y)
    if name in ("r2", "mse"):
        return r2(outputs, y) if name == "r2" else mean_squared_error(outputs, y)
    if name == "accuracy" and kind == "multiclass":
        return accuracy(outputs, y)
    threshold = 0.5 if kind == "links" else 0.0
    decided = outputs.argmax(1) if kind == "multiclass" else outputs > threshold
    if name == "accuracy":
        return 100 * float((decided == (y > 0.5)).double().mean())
    return f1(decided, y, "macro" if name == "f1_macro" else "micro")


def accuracy(class_scores: Float[Tensor, "node classes"], y: Int[Tensor, " node"]) -> float:
    """Return the percentage of nodes whose label has the highest score."""
    found = class_scores.argmax(1)
    check_one_shape("the predicted classes and y", found, y)
    return 100 * int((found == y).sum()) / len(y)


def roc_auc(scores: Float[Tensor, "item ..."], labels: Shaped[Tensor, "item ..."]) -> float:
    """Return the area under the ROC curve: 0.5 is chance, 1 is perfect.

    Of several columns it is the mean over those that have both labels, without NaN in them.
    """
    from sklearn.metrics import roc_auc_score

    found = []
    for column, truth in zip(_columns(scores), _columns(labels), strict=True):
        known = ~truth.isnan()
        if len(truth[known].unique()) == 2:
            found.append(roc_auc_score(_array(truth[known]), _array(column[known])))
    if not found:
        raise UserError("the ROC-AUC needs both labels among what is scored; score more nodes")
    return float(sum(found) / len(found))


def f1(
    predicted: Shaped[Tensor, "item ..."],
    y: Shaped[Tensor, "item ..."],
    average: Literal["macro", "micro"],
) -> float:
    """Return the F1 score: the harmonic mean of precision and recall.

    Args:
        predicted: Classes; or for each column whether it has the label.
        y: Classes; or labels 0 and 1, without the NaN among them.
        average: Way to average: macro is the mean over classes or columns, micro counts all alike.
    """
    from sklearn.metrics import f1_score

    options: Any = {"zero_division": 0.0}
    if predicted.dtype != torch.bool:
        return float(f1_score(_array(y), _array(predicted), average=average, **options))
    pairs = list(zip(_columns(predicted), _columns(y), strict=True))
    if average == "micro":
        pairs = [(predicted.flatten(), y.flatten().double())]
    known = [(guess[~truth.isnan()], truth[~truth.isnan()]) for guess, truth in pairs]
    scores = [f1_score(_array(t), _array(p), **options) for p, t in known if len(t)]
    return float(sum(scores) / len(scores))


def r2(outputs: Float[Tensor, "node out"], y: Float[Tensor, "node out"]) -> float:
    """Return the share of explained variance, averaged over columns, without NaN in y."""
    from sklearn.metrics import r2_score

    check_one_shape("outputs and y", outputs, y)
    pairs = [(y[~y.isnan()], p[~y.isnan()]) for p, y in zip(outputs.T, y.T, strict=True)]
    scores = [r2_score(_array(truth), _array(guess)) for truth, guess in pairs if len(truth) > 1]
    if not scores:
        raise UserError("R2 needs two nodes or more to score; choose others: score(data, nodes)")
    return float(sum(scores) / len(scores))


def mean_squared_error(outputs: Float[Tensor, "node out"], y: Float[Tensor, "node out"]) -> float:
    """Return the mean of squared errors, without NaN in y."""
    check_one_shape("outputs and y", outputs, y)
    return float((outputs - y)[~y.isnan()].double().square().mean())


def _columns(values: Shaped[Tensor, "item ..."]) -> list[Tensor]:
    """Split into columns, of which labels are float64 so that they may be NaN."""
    columns = list(values.T) if values.ndim == 2 else [values]
    return [column if column.dtype == torch.bool else column.double() for column in columns]


def _array(values: Tensor) -> Any:
    return values.detach().cpu().numpy()
