"""What is special about the speech pipeline: its experiments, their data, its report."""

from pathlib import Path
from typing import Literal

from sixfold.core.config import Config
from sixfold.core.data.fetch import Dataset
from sixfold.speech.data import enhancement as enhancement_data
from sixfold.speech.data import multichannel as multichannel_data
from sixfold.speech.data import separation as separation_data
from sixfold.speech.data.recordings import DATASETS, LIBRI2MIX, SPATIALIZED, Source
from sixfold.speech.tasks import enhancement, multichannel, separation
from sixfold.speech.tasks.report import write_report as report

__all__ = ["TASKS", "DataConfig", "datasets", "prepare", "report"]

TASKS = {
    "enhancement": enhancement.TASK,
    "separation": separation.TASK,
    "multichannel": multichannel.TASK,
}


class DataConfig(Config):
    """The ``data:`` block of pipelines/speech/params.yaml.

    Args:
        source: "real", "builtin", or "auto": real where cache or mirror hold it.
        seed: Of the test mixtures, the rooms and the generated noise.
        enhancement: Noisy speech.
        separation: Two speakers at once.
        multichannel: Noisy, reverberant speech at an array.
    """

    source: Literal["auto", "real", "builtin"] = "auto"
    seed: int = 0
    enhancement: enhancement_data.EnhancementData = enhancement_data.EnhancementData()
    separation: separation_data.SeparationData = separation_data.SeparationData()
    multichannel: multichannel_data.MultichannelData = multichannel_data.MultichannelData()


def datasets(data: DataConfig) -> list[Dataset]:
    """Return the sets that real data need."""
    return [*DATASETS.values(), LIBRI2MIX, SPATIALIZED]


def prepare(data: DataConfig, source: Source, folder: Path) -> None:
    """Write the prepared data of every experiment, each all or nothing.

    Raises:
        UserError: see the experiments' own.
    """
    enhancement_data.prepare(data.enhancement, source, data.seed, folder / "enhancement")
    separation_data.prepare(data.separation, source, data.seed, folder / "separation")
    multichannel_data.prepare(data.multichannel, source, data.seed, folder / "multichannel")
