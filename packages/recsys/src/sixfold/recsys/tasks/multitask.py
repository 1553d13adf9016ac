"""Several tasks on MovieLens-100k: what DTRN brings over networks that see the same sequences.

Every system has the same schedule, and its last weights count. Most people of the test are unknown
in training: what they did before, in their sequences, is what there is to know of them.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from sixfold.core import Config
from sixfold.core.data.atomic import write_atomic
from sixfold.core.data.fetch import Dataset
from sixfold.core.pipeline.claim import Claim, Comparison, Curve, Metric, Scores
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.page import Section, Table
from sixfold.core.pipeline.report import Outcome
from sixfold.core.pipeline.task import Source, Task
from sixfold.recsys.data.catalog import DATASETS
from sixfold.recsys.data.movielens import generate_movielens, read_movielens, schema
from sixfold.recsys.metrics import auc, grouped_auc
from sixfold.recsys.models.dtrn import DTRN
from sixfold.recsys.tables.memory import EncodedTable
from sixfold.recsys.tables.predicting import BATCH
from sixfold.recsys.tasks.splits import (
    GROUP,
    Training,
    item_shares,
    predict,
    read_manifest,
    read_split,
    train_seed,
    write_splits,
)

VIEWS = "views.json"
Label = Literal["like", "love", "dislike"]


class MultiTaskData(Config):
    """The ``data:`` block.

    Args:
        labels: Tasks.
    """

    labels: tuple[Label, ...] = Field(default=("like", "love", "dislike"), min_length=1)


def datasets(data: MultiTaskData) -> list[Dataset]:
    """Return the published set."""
    del data
    return [DATASETS["ml-100k"]]


def prepare(data: MultiTaskData, source: Source, folder: Path) -> None:
    """Write the splits, encoded."""
    splits = read_movielens() if source == "real" else generate_movielens()
    write_splits(folder, splits._asdict(), schema(data.labels))


def train(job: Job[MultiTaskData]) -> None:
    """Train one seed."""
    train_seed(job, score)


def evaluate(job: Job[MultiTaskData], samples: Path | None) -> Scores:
    """Score one seed on the test rows; the first also leaves what its tasks see of them."""
    model, test = job.trained(), read_split(job.prepared, "test")
    if samples is not None and isinstance(model, DTRN):
        write_atomic(samples / VIEWS, json.dumps(mean_views(model, test), indent=1) + "\n")
    return score(model, test)


def score(model: Any, table: EncodedTable) -> Scores:
    """Return AUC and AUC within people of each task, and the means over tasks."""
    return _scores(predict(model, table), table)


def _scores(predictions: Mapping[str, np.ndarray], table: EncodedTable) -> Scores:
    pairs = {label: (table.arrays[label], found) for label, found in predictions.items()}
    groups = table.arrays[GROUP]
    every = {f"auc_{k}": auc(*pair) for k, pair in pairs.items()}
    within = {f"gauc_{k}": grouped_auc(*pair, groups)[0] for k, pair in pairs.items()}
    means = {"auc": float(np.mean([*every.values()])), "gauc": float(np.mean([*within.values()]))}
    return {**means, **every, **within}


@torch.no_grad()
def mean_views(model: DTRN, table: EncodedTable) -> dict[str, Any]:
    """Return the mean weight of each field, and how alike the tasks' interests are.

    Returns:
        ``weights``: mean and standard deviation over rows by task and field; ``likeness``: mean
        cosine of two tasks' interests by behaviour and pair of tasks, over sequences that are not
        empty.
    """
    config, weights, cosines = model.config, [], []
    for batch in table.batches(BATCH):
        views = model.views(batch)
        if views.weights is not None:
            weights.append(views.weights)
        if views.interests is not None:
            v = torch.nn.functional.normalize(views.interests, dim=3)
            cosine = torch.einsum("tbsd,ubsd->bstu", v, v)
            cosines.append(torch.where(v[0].any(2)[..., None, None], cosine, torch.nan))
    found: dict[str, Any] = {"weights": {}, "likeness": {}}
    if weights:
        names = [field.name for field in model.behaviours.plain] + model.behaviours.names
        together = torch.cat(weights, 1)
        parts = zip(config.labels, together.mean(1).tolist(), together.std(1).tolist(), strict=True)
        for label, mean, std in parts:
            pairs = zip(mean, std, strict=True)
            found["weights"][label] = dict(zip(names, pairs, strict=True))
    if cosines and model.config.conditional:
        alike = torch.cat(cosines).nanmean(0)
        for name, matrix in zip(model.behaviours.names, alike, strict=True):
            found["likeness"][name] = {
                f"{a}, {b}": float(matrix[i, j])
                for i, a in enumerate(config.labels)
                for j, b in enumerate(config.labels)
                if i < j
            }
    return found


CENTRAL = ("dtrn", "mmoe_attention_wide")
CLAIM = Claim(
    title="DTRN: several tasks",
    text="DTRN (arXiv:2308.05996) claims that interests of each task in each behaviour sequence "
    "(TIM) and weights of each task for every field (TRM), in front of any multi-task network, "
    "beat the networks alone. The networks alone see no sequences, or their mean. The question "
    "that this leaves open is asked first: DTRN against an MMoE of equal size whose target "
    "attention reads the same sequences. Here: MovieLens-100k, split by time, 80 % for training; "
    "tasks like (4 or 5), love (5), dislike (1 or 2); the last 20 films that a person liked, "
    "disliked, rated. Six in seven test rows are of people whom training does not know. Without "
    "TIM the transformer stays, with norms that all tasks share. The paper's figures and sizes "
    "were not to be had; the scores here are of this repository's definition.",
    metrics={
        "auc": Metric("AUC, mean of tasks", digits=4),
        "auc_like": Metric("AUC, like", digits=4),
        "auc_love": Metric("AUC, love", digits=4),
        "auc_dislike": Metric("AUC, dislike", digits=4),
        "gauc": Metric("AUC within people, mean of tasks", digits=4),
        "gauc_like": Metric("AUC within people, like", digits=4),
        "gauc_love": Metric("AUC within people, love", digits=4),
        "gauc_dislike": Metric("AUC within people, dislike", digits=4),
    },
    comparisons=[
        Comparison(*CENTRAL, every=True),
        Comparison("dtrn", "mmoe_attention"),
        Comparison("dtrn", "mmoe"),
        Comparison("dtrn", "dtrn_no_tim"),
        Comparison("dtrn", "dtrn_no_trm"),
        *(Comparison(f"{k}_attention", k) for k in ("shared_bottom", "mmoe", "ple")),
        Comparison("mmoe", "shared_bottom"),
        Comparison("ple", "mmoe"),
    ],
    labels={
        "popularity": "share of the film's ratings",
        "shared_bottom": "Shared-Bottom",
        "mmoe": "MMoE",
        "ple": "PLE",
        "shared_bottom_attention": "Shared-Bottom, target attention",
        "mmoe_attention": "MMoE, target attention",
        "mmoe_attention_wide": "MMoE, target attention, of DTRN's size",
        "ple_attention": "PLE, target attention",
        "dtrn": "DTRN",
        "dtrn_no_tim": "DTRN without TIM",
        "dtrn_no_trm": "DTRN without TRM",
    },
    curve=Curve("valid_auc", "validation AUC, mean of tasks"),
    caption="Test rows",
)


def score_popularity(prepared: Path, samples: Path | None) -> Scores:
    """Score each film by its share of positives among the training rows."""
    del samples
    known, test = read_split(prepared, "train"), read_split(prepared, "test")
    labels = read_manifest(prepared)["labels"]
    return _scores({label: item_shares(known, test, label) for label in labels}, test)


def sections(outcome: Outcome) -> Iterator[Section]:
    """Show what the tasks of DTRN see differently: weights of fields, interests."""
    file = outcome.samples("dtrn") / VIEWS
    tables = view_tables(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else []
    if tables:
        yield Section(f"{outcome.claim.title}: what each task sees", "First seed.", tables=tables)


def view_tables(views: Mapping[str, Any]) -> list[Table]:
    """Show what `mean_views` found, if anything."""
    tables = []
    if weights := views["weights"]:
        rows = [
            {"field": name, **{k: "{:.2f} ± {:.2f}".format(*w[name]) for k, w in weights.items()}}
            for name in next(iter(weights.values()))
        ]
        caption = "Weights of fields (TRM; 1 is as it is): mean ± std over test rows"
        tables.append(Table(caption, list(rows[0]), rows))
    if likeness := views["likeness"]:
        rows = [
            {"behaviour": name, **{pair: f"{value:.3f}" for pair, value in pairs.items()}}
            for name, pairs in likeness.items()
        ]
        caption = "Interests of two tasks (TIM): mean cosine over test rows; 1 is the same"
        tables.append(Table(caption, list(rows[0]), rows))
    return tables


TASK = Task(
    claim=CLAIM,
    data=MultiTaskData,
    datasets=datasets,
    prepare=prepare,
    synthetic="generated ratings of people and films of three tastes, instead of MovieLens-100k",
    train=train,
    evaluate=evaluate,
    references={"popularity": score_popularity},
    settings=Training,
    sections=sections,
    benchmarks=["dtrn"],
)
