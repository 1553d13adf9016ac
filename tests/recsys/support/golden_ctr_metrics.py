"""Golden metrics: scikit-learn's and FuxiCTR's, over groups too."""

import json
import re
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from sixfold.recsys import metrics


def check(folder: Path) -> None:
    """Compare every expected score of a case, to 1e-9."""
    io = load_file(folder / "io.safetensors")
    expected = json.loads((folder / "expected.json").read_text())["expected"]
    assert expected
    for name, value in expected.items():
        found = score(name, io["y_true"], io["y_pred"], io["group"])
        assert found == pytest.approx(value, abs=1e-9), name


def score(name: str, labels, predictions, groups) -> float:
    if match := re.fullmatch(r"NDCG(?:@|\(k=)(\d+)\)?", name):
        return metrics.ndcg(labels, predictions, groups, int(match[1]))
    return {
        "logloss": lambda: metrics.logloss(labels, predictions),
        "AUC": lambda: metrics.auc(labels, predictions),
        "gAUC": lambda: metrics.grouped_auc(labels, predictions, groups)[0],
        "avgAUC": lambda: metrics.average_auc(labels, predictions, groups),
        "MRR": lambda: metrics.mrr(labels, predictions, groups),
    }[name]()
