"""What is special about the graphs pipeline: its experiments, their graphs, its report."""

from pathlib import Path
from typing import Literal

from sixfold.core.config import Config
from sixfold.core.data.fetch import Dataset
from sixfold.core.pipeline.params import Source
from sixfold.graphs.data.catalog import dataset, find_graph
from sixfold.graphs.data.prepared import write_graphs
from sixfold.graphs.tasks import forward_learning, mixture, pipelining
from sixfold.graphs.tasks.forward_learning import ForwardData
from sixfold.graphs.tasks.mixture import MixtureData
from sixfold.graphs.tasks.pipelining import PipelineData
from sixfold.graphs.tasks.report import write_report as report

__all__ = ["TASKS", "DataConfig", "datasets", "prepare", "report"]

TASKS = {
    "forward_learning": forward_learning.TASK,
    "mixture": mixture.TASK,
    "pipelining": pipelining.TASK,
}
STAND_INS = {
    "forward_learning": ("digits",),
    "mixture": ("homophilous", "heterophilous"),
    "pipelining": ("digits",),
}


class DataConfig(Config):
    """The ``data:`` block of pipelines/graphs/params.yaml.

    Args:
        source: "real", "builtin", or "auto": real where cache or mirror hold it.
        forward_learning: Which graph.
        mixture: Which graphs.
        pipelining: Which graph.
    """

    source: Literal["auto", "real", "builtin"] = "auto"
    forward_learning: ForwardData = ForwardData()
    mixture: MixtureData = MixtureData()
    pipelining: PipelineData = PipelineData()


def datasets(data: DataConfig) -> list[Dataset]:
    """Return the graphs that real data need."""
    names = [name for graphs in _graphs(data).values() for name in graphs]
    return [dataset(find_graph(name)) for name in dict.fromkeys(names)]


def prepare(data: DataConfig, source: Source, folder: Path) -> None:
    """Write the graphs of every experiment, each all or nothing.

    Raises:
        UserError: a graph cannot be had.
    """
    for task, names in (_graphs(data) if source == "real" else STAND_INS).items():
        write_graphs(names, source, folder / task)


def _graphs(data: DataConfig) -> dict[str, tuple[str, ...]]:
    return {
        "forward_learning": (data.forward_learning.graph,),
        "mixture": data.mixture.graphs,
        "pipelining": (data.pipelining.graph,),
    }
