"""Click-through rates on a fifth of Frappe: what gates, fusion and cross networks bring, paired.

Every system has the same schedule and its last weights count: with early stopping on so few rows
the first noise would end a training, and the order of systems would be that of their luck.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from sixfold.core import Config
from sixfold.core.data.atomic import atomic_folder
from sixfold.core.data.fetch import Dataset, available, fetch
from sixfold.core.pipeline.claim import (
    Claim,
    Comparison,
    Curve,
    Metric,
    Scores,
    parameter_counts,
)
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.page import Section, Table
from sixfold.core.pipeline.report import Outcome
from sixfold.core.pipeline.task import Source, Task
from sixfold.core.training.distributed import rank
from sixfold.core.training.fit import FitConfig, derive_seed, fit
from sixfold.core.training.run import Run
from sixfold.core.weights.convert import from_pretrained, save_pretrained
from sixfold.recsys.data import frappe, movielens_small
from sixfold.recsys.data.catalog import DATASETS
from sixfold.recsys.layers.optimizers import ranking_adam
from sixfold.recsys.metrics import auc, auc_difference, grouped_auc, logloss
from sixfold.recsys.models.fcn import ECN_SYSTEM
from sixfold.recsys.models.fcn import SYSTEM as FCN_SYSTEM
from sixfold.recsys.models.finalmlp import DUALMLP
from sixfold.recsys.models.finalmlp import SYSTEM as FINALMLP
from sixfold.recsys.tables.encoder import Encoder
from sixfold.recsys.tables.memory import EncodedTable
from sixfold.recsys.tables.predicting import BATCH, probabilities

LABEL, GROUP = "label", "group"
PREDICTIONS = "predictions.npy"


class CtrData(Config):
    """The ``data:`` block.

    Args:
        min_count: Number of times that the training rows must hold a value to give it an id.
    """

    min_count: int = 1


class Training(FitConfig):
    """The ``train:`` block.

    Args:
        embedding_l2: Regulariser of the embedding tables; see
            `sixfold.recsys.layers.optimizers.regularizer`.
        net_l2: Regulariser of all other parameters.
    """

    embedding_l2: float | str = 0.0
    net_l2: float | str = 0.0


def datasets(data: CtrData) -> list[Dataset]:
    """Return the published set."""
    del data
    return [DATASETS["frappe_x1"]]


def prepare(data: CtrData, source: Source, folder: Path) -> None:
    """Write the splits, their vocabularies, and BARS' figures where they are to be had."""
    real = source == "real"
    splits = frappe.read_frappe_small() if real else movielens_small.read_movielens_small()
    schema = (frappe.SCHEMA if real else movielens_small.SCHEMA).model_copy(
        update={"min_count": data.min_count}
    )
    encoder = Encoder.fit(schema, splits.train)
    with atomic_folder(folder) as partial:
        for name, rows in splits._asdict().items():
            arrays = EncodedTable.read(rows, encoder).arrays
            # whose ids are those of the data: people unknown in training are groups too
            arrays[GROUP] = rows["user"].to_numpy().astype(np.int32)
            save_file(arrays, partial / f"{name}.safetensors")
        facts = {
            "rows": {name: len(rows) for name, rows in splits._asdict().items()},
            "fields": [field.model_dump(mode="json") for field in encoder.fields],
            "encoder": encoder.digest(),
            "bars": _bars(),
        }
        (partial / "manifest.json").write_text(json.dumps(facts, indent=1) + "\n")


def _bars() -> dict[str, dict[str, float]]:
    """Return BARS' test scores of Frappe_x1 by system, if cache or mirror hold them."""
    if not available(DATASETS["bars_ctr_results"]):
        return {}
    file = fetch(DATASETS["bars_ctr_results"]) / "test_results.csv"
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return {
        row["run"]: {"auc": float(row["test_AUC"]), "logloss": float(row["test_logloss"])}
        for row in rows
        if row["dataset"] == "frappe_x1"
    }


def read(prepared: Path, split: str) -> EncodedTable:
    """Read a prepared split.

    It was encoded there, so that the processes that train need no polars: it does not survive the
    fork that makes them.
    """
    return EncodedTable(load_file(prepared / f"{split}.safetensors"))


def train(job: Job[CtrData]) -> None:
    """Train one seed, with a look at the validation rows once an epoch."""
    fields = json.loads((job.prepared / "manifest.json").read_text(encoding="utf-8"))["fields"]
    values = job.model.model_dump() | {"fields": fields}  # the sizes of the tables are the data's
    config = job.system.config.parse(values, job.system.name)
    torch.manual_seed(derive_seed(job.seed, "init"))
    model: Any = job.system.build(config)
    rows, valid = read(job.prepared, "train"), read(job.prepared, "valid")
    settings = job.train.model_copy(update={"eval_every": -(-len(rows) // job.train.batch)})

    def evaluate(trained: Any) -> Mapping[str, float]:
        p, truth = predict(trained, valid), valid.arrays[LABEL]
        return {"valid_auc": auc(truth, p), "valid_logloss": logloss(truth, p)}

    identity = {"model": config.model_dump(mode="json"), "train": job.train.model_dump(mode="json")}
    run = Run.open(job.run, identity | {"seed": job.seed}, job.identity)
    make = ranking_adam(embedding=job.train.embedding_l2, net=job.train.net_l2)
    loss = model.batch_loss
    fit(run, model, rows, loss, settings, seed=job.seed, evaluate=evaluate, optimizer=make)
    if rank() == 0:
        save_pretrained(job.weights, model, job.system.name, config)


def evaluate(job: Job[CtrData], samples: Path | None) -> Scores:
    """Score one seed on the test rows; the first also leaves the mean predictions of all seeds."""
    test, valid = read(job.prepared, "test"), read(job.prepared, "valid")
    if samples is not None:
        weights = sorted(job.weights.parent.glob("seed-*.safetensors"))
        found = [predict(from_pretrained(file, job.system), test) for file in weights]
        np.save(samples / PREDICTIONS, np.mean(found, 0).astype(np.float32))
    model = job.trained()
    valid_auc = auc(valid.arrays[LABEL], predict(model, valid))
    return scores(test, predict(model, test)) | {"valid_auc": valid_auc}


def predict(model: Any, table: EncodedTable) -> np.ndarray:
    """Return the probabilities of the rows of a table."""
    return probabilities(model, table.batches(BATCH))[LABEL]


def scores(test: EncodedTable, predictions: np.ndarray) -> Scores:
    """Score predictions of the test rows."""
    truth, groups = test.arrays[LABEL], test.arrays[GROUP]
    return {
        "auc": auc(truth, predictions),
        "logloss": logloss(truth, predictions),
        "gauc": grouped_auc(truth, predictions, groups)[0],
    }


def score_popularity(prepared: Path, samples: Path | None) -> Scores:
    """Score each item by its share of positives among the training rows, one more of each added."""
    del samples
    known, test = read(prepared, "train").arrays, read(prepared, "test")
    size = int(max(known["item"].max(), test.arrays["item"].max())) + 1
    positives = np.bincount(known["item"], known[LABEL], size)
    shares = (positives + 1) / (np.bincount(known["item"], minlength=size) + 2)
    return scores(test, shares[test.arrays["item"]])


PAIRS = (
    ("finalmlp", "dualmlp"),
    ("finalmlp", "dnn"),
    ("finalmlp", "finalmlp_no_gates"),
    ("finalmlp", "finalmlp_sum"),
    ("fcn", "ecn"),
    ("fcn", "lcn"),
    ("lcn", "crossnetv2_bn"),
    ("fcn", "fcn_bce"),
)

CLAIM = Claim(
    title="FinalMLP and FCN: click-through rates",
    text="FinalMLP (arXiv:2304.00902) claims that gates on each stream's input and a bilinear "
    "fusion make two MLPs better than any explicit model of interactions; FCN (arXiv:2407.13349) "
    "that an exponential and a linear cross network with a loss for each beat either alone, and "
    "both CrossNetV2. Here all learn from a fifth of Frappe (the official validation split; the "
    "training split is not public), with one table width and one schedule: 9 epochs at 1e-3, 3 at "
    "1e-4, 1 at 1e-5, last weights. The scores are not those of BARS, which trains on four times "
    "as many rows. Batch norm may be what sets LCN above CrossNetV2: the control with it is here. "
    "While both weights of the published Tri-BCE are active its derivative by the fused loss is "
    "negative as long as the losses are above a half; `detached` takes the weights as constants.",
    metrics={
        "auc": Metric("AUC", digits=4),
        "logloss": Metric("logloss", digits=4, better="lower"),
        "gauc": Metric("AUC within users", digits=4),
    },
    comparisons=[Comparison(*pair) for pair in PAIRS],
    labels={
        "popularity": "popularity of the item",
        "finalmlp": "FinalMLP",
        "finalmlp_no_gates": "FinalMLP without gates",
        "finalmlp_sum": "FinalMLP, summed",
        "dualmlp": "DualMLP",
        "dnn": "DNN",
        "fcn": "FCN",
        "fcn_bce": "FCN, plain cross-entropy",
        "fcn_detached": "FCN, weights detached",
        "ecn": "ECN",
        "lcn": "LCN",
        "crossnetv2": "CrossNetV2",
        "crossnetv2_bn": "CrossNetV2 with batch norm",
        "dcnv2": "DCNv2",
        "lr": "logistic regression",
        "fm": "FM",
    },
    curve=Curve("valid_auc", "validation AUC"),
    caption="Test rows",
)


def sections(outcome: Outcome) -> Iterator[Section]:
    """Show the paired differences of the mean predictions, and BARS' figures as theirs."""
    folders = {key: outcome.samples(key) for pair in PAIRS for key in pair}
    yield difference_section(outcome.claim.label, outcome.run.prepared, folders)
    if bars := outcome.manifest["bars"]:
        rows = [
            {"run of BARS": run, "AUC": f"{s['auc']:.4f}", "logloss": f"{s['logloss']:.4f}"}
            for run, s in sorted(bars.items(), key=lambda item: -item[1]["auc"])[:12]
        ]
        text = "Trained on 202,027 rows, four times as many as here; measured by BARS, not here."
        table = Table("The best test results of BARS on Frappe_x1", list(rows[0]), rows)
        yield Section(f"{outcome.claim.title}: BARS", text, tables=[table])


def difference_section(
    label: Callable[[str], str], prepared: Path, samples: Mapping[str, Path]
) -> Section:
    """Compare the mean predictions over seeds of each pair, with DeLong's interval.

    Args:
        label: Name of an entry for people.
        prepared: Folder of the prepared data.
        samples: Folder of what each entry left; a pair of which one left nothing is passed over.
    """
    truth = read(prepared, "test").arrays[LABEL]
    rows = []
    for pair in PAIRS:
        files = [samples[key] / PREDICTIONS for key in pair]
        if all(file.is_file() for file in files):
            found = auc_difference(truth, *map(np.load, files))
            rows.append(
                {
                    "pair": " - ".join(map(label, pair)),
                    "difference": f"{found.value:+.4f}",
                    "95 % interval": f"{found.low:+.4f} to {found.high:+.4f}",
                    "p": f"{found.p:.3f}",
                }
            )
    columns = ["pair", "difference", "95 % interval", "p"]
    table = Table("AUC of the mean predictions, the test rows drawn again (DeLong)", columns, rows)
    text = "The interval is that of other test rows; the table above has that of other seeds."
    return Section(f"{CLAIM.title}: paired differences", text, tables=[table])


TASK = Task(
    claim=CLAIM,
    data=CtrData,
    datasets=datasets,
    prepare=prepare,
    synthetic="MovieLens latest-small, rating of 4 or more, instead of Frappe",
    train=train,
    evaluate=evaluate,
    references={"popularity": score_popularity},
    measurements=parameter_counts(FINALMLP, DUALMLP, FCN_SYSTEM, ECN_SYSTEM),
    settings=Training,
    sections=sections,
)
