"""MovieLensLatest_x1, BARS' split of two million tags: FinalMLP at its published settings."""

from pathlib import Path

from sixfold.core.pipeline.task import Source, Task
from sixfold.recsys.data.libfm import MOVIELENS_TAGS
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
    prepare_set(MOVIELENS_TAGS, data, source, folder)


TASK = Task(
    claim=published_claim("FinalMLP on MovieLens tags"),
    data=CtrData,
    datasets=lambda data: [MOVIELENS_TAGS.whole],
    prepare=prepare,
    synthetic=SYNTHETIC,
    train=train,
    evaluate=evaluate,
    measurements=published_figures(finalmlp=0.971968, dualmlp=0.969843),
    settings=Training,
)
