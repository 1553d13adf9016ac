"""Frappe_x1, BARS' split of 288,609 rows: FinalMLP at its published settings."""

from pathlib import Path

from sixfold.core.pipeline.task import Source, Task
from sixfold.recsys.data.libfm import FRAPPE
from sixfold.recsys.tasks.ctr import CtrData, evaluate, train
from sixfold.recsys.tasks.published import (
    SYNTHETIC,
    prepare_set,
    published_claim,
    published_figures,
)
from sixfold.recsys.tasks.splits import Training


def prepare(data: CtrData, source: Source, folder: Path) -> None:
    """Write the splits."""
    prepare_set(FRAPPE, data, source, folder)


TASK = Task(
    claim=published_claim("FinalMLP on Frappe_x1"),
    data=CtrData,
    datasets=lambda data: [FRAPPE.whole],
    prepare=prepare,
    synthetic=SYNTHETIC,
    train=train,
    evaluate=evaluate,
    measurements=published_figures(finalmlp=0.986072, dualmlp=0.984650),
    settings=Training,
)
