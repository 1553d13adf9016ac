"""Click-through rates on a fifth of Frappe: what gates, fusion and cross networks bring, paired.

Every system has the same schedule and its last weights count: with early stopping on so few rows
the first noise would end a training, and the order of systems would be that of their luck.
"""

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from pydantic import PositiveInt

from sixfold.core import Config
from sixfold.core.data.fetch import Dataset, available, fetch
from sixfold.core.pipeline.claim import (
    Claim,
    Comparison,
    Curve,
    Measurement,
    Metric,
    Scores,
    parameter_counts,
    score_of,
)
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.page import Section, Table
from sixfold.core.pipeline.report import Outcome
from sixfold.core.pipeline.task import Source, Task
from sixfold.core.weights.convert import from_pretrained
from sixfold.recsys.data import movielens_small
from sixfold.recsys.data.catalog import DATASETS
from sixfold.recsys.data.libfm import FRAPPE, read_frappe_small
from sixfold.recsys.metrics import auc, auc_difference, grouped_auc, logloss
from sixfold.recsys.models.fcn import ECN_SYSTEM
from sixfold.recsys.models.fcn import SYSTEM as FCN_SYSTEM
from sixfold.recsys.models.finalmlp import DUALMLP
from sixfold.recsys.models.finalmlp import SYSTEM as FINALMLP
from sixfold.recsys.tables.memory import EncodedTable
from sixfold.recsys.tasks.splits import (
    GROUP,
    Training,
    item_shares,
    predict,
    read_split,
    train_seed,
    write_splits,
)

LABEL = "label"
PREDICTIONS = "predictions.npy"


class CtrData(Config):
    """The ``data:`` block.

    Args:
        min_count: Number of times that the training rows must hold a value to give it an id.
    """

    min_count: PositiveInt = 1


def datasets(data: CtrData) -> list[Dataset]:
    """Return the published set."""
    del data
    return [DATASETS["frappe_x1"]]


def prepare(data: CtrData, source: Source, folder: Path) -> None:
    """Write the splits, their vocabularies, and BARS' figures where they are to be had."""
    real = source == "real"
    splits = read_frappe_small() if real else movielens_small.read_movielens_small()
    schema = (FRAPPE.schema if real else movielens_small.SCHEMA).model_copy(
        update={"min_count": data.min_count}
    )
    write_splits(folder, splits._asdict(), schema, bars=_bars())


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


def train(job: Job[CtrData]) -> None:
    """Train one seed."""
    train_seed(job, lambda model, valid: scores(valid, predict(model, valid)[LABEL]))


def evaluate(job: Job[CtrData], samples: Path | None) -> Scores:
    """Score one seed on the test rows; the first also leaves the mean predictions of all seeds."""
    test, valid = read_split(job.prepared, "test"), read_split(job.prepared, "valid")
    if samples is not None:
        weights = sorted(job.weights.parent.glob("seed-*.safetensors"))
        found = [predict(from_pretrained(file, job.system), test)[LABEL] for file in weights]
        np.save(samples / PREDICTIONS, np.mean(found, 0).astype(np.float32))
    model = job.trained()
    valid_auc = auc(valid.arrays[LABEL], predict(model, valid)[LABEL])
    return scores(test, predict(model, test)[LABEL]) | {"valid_auc": valid_auc}


def scores(test: EncodedTable, predictions: np.ndarray) -> Scores:
    """Score predictions of the test rows."""
    truth, groups = test.arrays[LABEL], test.arrays[GROUP]
    return {
        "auc": auc(truth, predictions),
        "logloss": logloss(truth, predictions),
        "gauc": grouped_auc(truth, predictions, groups)[0],
    }


def score_popularity(prepared: Path, samples: Path | None) -> Scores:
    """Score each item by its share of positives among the training rows."""
    del samples
    test = read_split(prepared, "test")
    return scores(test, item_shares(read_split(prepared, "train"), test, LABEL))


def published_auc(name: str, entry: str, value: float, tolerance: float = 0.001) -> Measurement:
    """Return a published AUC of the test rows, measured where that entry is trained as published.

    A thousandth: between machines small sets move in the third decimal, as BARS' maintainers say.
    """
    measure, where = score_of(entry, "auc"), "log of the official code"
    return Measurement(f"{name}: test AUC", value, measure, tolerance, where=where, trained=True)


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
    truth = read_split(prepared, "test").arrays[LABEL]
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


# Test AUC of trainings that two cores do not finish: log of the official code, paper's table.
PUBLISHED = {
    "FinalMLP, Criteo_x1": 0.814902,
    "FinalMLP, Avazu_x1": 0.766566,
    "DualMLP, Criteo_x1": 0.814239,
    "DualMLP, Avazu_x1": 0.765685,
    "FCN, Criteo_x4": 0.816216,
    "FCN, Avazu_x4": 0.797029,
    "FCN, KDD12": 0.809823,
    "FCN, KKBox": 0.856015,
    "FCN, MovieLens 1M": 0.907562,
    "FCN, iPinYou (chosen on the test rows)": 0.785676,
    "ECN, Criteo_x4": 0.815572,
    "ECN, Avazu_x4": 0.796564,
    "ECN, KDD12": 0.809071,
    "ECN, KKBox": 0.854016,
    "ECN, iPinYou (chosen on the test rows)": 0.784325,
}

TASK = Task(
    claim=CLAIM,
    data=CtrData,
    datasets=datasets,
    prepare=prepare,
    synthetic="MovieLens latest-small, rating of 4 or more, instead of Frappe",
    train=train,
    evaluate=evaluate,
    references={"popularity": score_popularity},
    measurements=[
        *parameter_counts(FINALMLP, DUALMLP, FCN_SYSTEM, ECN_SYSTEM),
        *(published_auc(name, name, value) for name, value in PUBLISHED.items()),
    ],
    settings=Training,
    sections=sections,
    benchmarks=["finalmlp", "finalmlp_latency", "fcn", "lazy_adam"],
)
