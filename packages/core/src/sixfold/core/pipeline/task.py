"""One experiment of a domain: what its module ``tasks/<name>.py`` says of it, as ``TASK``."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from sixfold.core.config import Config
from sixfold.core.data.fetch import Dataset
from sixfold.core.pipeline.claim import Claim, Measurement, Scores
from sixfold.core.pipeline.job import Job
from sixfold.core.training.fit import FitConfig

Data = TypeVar("Data", bound=Config)
Source = Literal["real", "builtin"]

# The keywords of `Task` that each stage reads: only the code behind those is hashed for it.
STAGES = {
    "prepare": ("data", "datasets", "prepare"),
    "train": ("settings", "train"),
    "evaluate": ("evaluate", "measurements", "references"),
    "report": ("benchmarks", "claim", "sections", "synthetic"),
}


@dataclass(frozen=True)
class Task(Generic[Data]):
    """One experiment: data, training, scores, and the paper's claim.

    Args:
        claim: Claim of the paper and the way it is tested.
        data: Class of the ``data:`` block; its ``memory_bytes()``, if there is one, is what the
            largest arrays will take.
        datasets: Published sets that real data need, for the settings of ``data:``.
        prepare: Function that writes the prepared data to a folder, with a ``manifest.json``.
        synthetic: Description of the synthetic data, for the report.
        train: Function that trains one seed of one entry, from wherever its run folder stands, and
            writes the weights; `sixfold.core.pipeline.job.supervised` makes the usual one.
        evaluate: Function that scores one trained seed, and writes samples for the report to its
            last argument, a folder, if that is not None.
        references: Scores beside the trained systems, such as the input as it is: functions of
            the prepared folder and of the samples' folder or None.
        measurements: Published figures that need no training.
        benchmarks: Names of committed tables in ``benchmarks/results`` for the report.
        settings: Class of the ``train:`` block, with at least ``steps`` and ``threads``.
        sections: Pictures and tables of the task's own for the report.
    """

    claim: Claim
    data: type[Data]
    datasets: Callable[[Data], Sequence[Dataset]]
    prepare: Callable[[Data, Source, Path], None]
    synthetic: str
    train: Callable[[Job[Data]], None]
    evaluate: Callable[[Job[Data], Path | None], Scores]
    references: Mapping[str, Callable[[Path, Path | None], Scores]] = field(default_factory=dict)
    measurements: Sequence[Measurement] = ()
    benchmarks: Sequence[str] = ()
    settings: type[Config] = FitConfig
    sections: Callable[[Any], Iterable[Any]] = lambda outcome: ()
