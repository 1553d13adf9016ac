"""What the tasks share that train FinalMLP at its published settings on whole sets."""

from pathlib import Path

from sixfold.core.pipeline.claim import Claim, Comparison, Curve, Measurement, Metric
from sixfold.core.pipeline.task import Source
from sixfold.recsys.data.libfm import LibFMSet
from sixfold.recsys.data.movielens_small import SCHEMA, read_movielens_small
from sixfold.recsys.tasks.ctr import CtrData, published_auc
from sixfold.recsys.tasks.splits import write_splits

LABELS = {"finalmlp": "FinalMLP", "dualmlp": "DualMLP"}
SYNTHETIC = "MovieLens latest-small, rating of 4 or more, instead of the published set"


def prepare_set(libfm: LibFMSet, data: CtrData, source: Source, folder: Path) -> None:
    """Write the official splits, encoded, or those that stand in."""
    real = source == "real"
    splits = libfm.read() if real else read_movielens_small()
    schema = (libfm.schema if real else SCHEMA).model_copy(update={"min_count": data.min_count})
    write_splits(folder, splits._asdict(), schema)


def published_claim(title: str) -> Claim:
    """Return the claim of FinalMLP over DualMLP, each at its own settings."""
    return Claim(
        title=title,
        text="FinalMLP (arXiv:2304.00902) and DualMLP at the settings of the official records: "
        "Adam, the rate divided by ten after each epoch without a better validation AUC, two such "
        "in a row end the training, best weights. The training file comes from its owner; "
        "without it the published figures are not measured.",
        metrics={
            "auc": Metric("AUC", digits=4),
            "logloss": Metric("logloss", digits=4, better="lower"),
        },
        comparisons=[Comparison("finalmlp", "dualmlp")],
        labels=LABELS,
        curve=Curve("valid_auc", "validation AUC"),
        caption="Test rows",
    )


def published_figures(**auc: float) -> list[Measurement]:
    """Return the published AUC of the test rows by entry."""
    return [published_auc(LABELS[entry], entry, value) for entry, value in auc.items()]
