"""Metrics: accuracy in per cent, ROC-AUC between 0 and 1."""

from jaxtyping import Float, Int, Shaped
from torch import Tensor


def accuracy(class_scores: Float[Tensor, "node classes"], y: Int[Tensor, " node"]) -> float:
    """Return the percentage of nodes whose label has the highest score."""
    return 100 * int((class_scores.argmax(1) == y).sum()) / len(y)


def roc_auc(scores: Float[Tensor, " edge"], labels: Shaped[Tensor, " edge"]) -> float:
    """Return the area under the ROC curve: 0.5 is chance, 1 is perfect."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels.cpu().numpy(), scores.detach().double().cpu().numpy()))
