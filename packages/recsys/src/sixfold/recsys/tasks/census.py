"""Census-Income: tabular data without sequences, several tasks and one, official split."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sixfold.core import Config
from sixfold.core.pipeline.claim import Claim, Comparison, Curve, Metric, Scores
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.task import Source, Task
from sixfold.recsys.data.catalog import DATASETS
from sixfold.recsys.data.census import LABELS, SCHEMA, generate_census, read_census
from sixfold.recsys.metrics import auc, logloss
from sixfold.recsys.tables.memory import EncodedTable
from sixfold.recsys.tasks.splits import Training, predict, read_split, train_seed, write_splits

TRAIN_SHARE = 0.9  # of the official training rows; the others are for validation


class CensusData(Config):
    """The ``data:`` block: there is nothing to set."""


def prepare(data: CensusData, source: Source, folder: Path) -> None:
    """Write the official test rows, and the training rows in two parts, by chance."""
    del data
    pool, test = read_census() if source == "real" else generate_census()
    order = np.random.default_rng(0).permutation(len(pool))
    cut = int(TRAIN_SHARE * len(pool))
    splits: dict[str, pl.DataFrame] = {
        "train": pool[np.sort(order[:cut])],
        "valid": pool[np.sort(order[cut:])],
        "test": test,
    }
    write_splits(folder, splits, SCHEMA)


def train(job: Job[CensusData]) -> None:
    """Train one seed on the labels of its settings."""
    settings: Any = job.model
    train_seed(job, score, settings.labels)


def evaluate(job: Job[CensusData], samples: Path | None) -> Scores:
    """Score one seed on the test rows."""
    del samples
    return score(job.trained(), read_split(job.prepared, "test"))


def score(model: Any, table: EncodedTable) -> Scores:
    """Return AUC and logloss of each label, None of one that the model does not predict."""
    found = predict(model, table)
    values: Scores = {}
    for name, metric in (("auc", auc), ("logloss", logloss)):
        for label in LABELS:
            known = label in found
            values[f"{name}_{label}"] = metric(table.arrays[label], found[label]) if known else None
    return values


INCOME, MARRIED = "auc_income", "auc_never_married"
CLAIM = Claim(
    title="Census-Income: one task and several",
    text="Census-Income (KDD), the public set of the paper of MMoE: is the income above 50,000, "
    "and was the person never married? All 39 other columns are features, but for the instance "
    "weight; the official test rows, a tenth of the training rows for validation, "
    "the same four epochs for all, last weights. Without sequences DTRN is its weights of fields "
    "for each task (TRM) in front of an MMoE. Claims of three papers are asked on rows that none "
    "of them was made for: does a second task help (MMoE over a DNN), do experts (MMoE over "
    "Shared-Bottom, PLE over MMoE) and DTRN's weights of fields; do gates and bilinear fusion "
    "(FinalMLP over DualMLP); do two cross networks (FCN over ECN, LCN and DCNv2)?",
    metrics={
        INCOME: Metric("AUC, income", digits=4),
        MARRIED: Metric("AUC, never married", digits=4),
        "logloss_income": Metric("logloss, income", digits=4, better="lower"),
        "logloss_never_married": Metric("logloss, never married", digits=4, better="lower"),
    },
    comparisons=[
        *(
            Comparison(*pair, metric=metric)
            for pair in (("mmoe", "shared_bottom"), ("ple", "mmoe"), ("dtrn", "mmoe"))
            for metric in (INCOME, MARRIED)
        ),
        Comparison("mmoe", "dnn"),
        Comparison("finalmlp", "dualmlp"),
        Comparison("finalmlp", "dnn"),
        Comparison("fcn", "ecn"),
        Comparison("fcn", "lcn"),
        Comparison("fcn", "dcnv2"),
    ],
    labels={
        "shared_bottom": "Shared-Bottom",
        "mmoe": "MMoE",
        "ple": "PLE",
        "dtrn": "DTRN (TRM)",
        "finalmlp": "FinalMLP",
        "dualmlp": "DualMLP",
        "fcn": "FCN",
        "ecn": "ECN",
        "lcn": "LCN",
        "dcnv2": "DCNv2",
        "dnn": "DNN",
    },
    curve=Curve(f"valid_{INCOME}", "validation AUC, income"),
    caption="Test rows",
)

TASK = Task(
    claim=CLAIM,
    data=CensusData,
    datasets=lambda data: [DATASETS["census_income"]],
    prepare=prepare,
    synthetic="generated rows of the same columns instead of Census-Income",
    train=train,
    evaluate=evaluate,
    settings=Training,
)
