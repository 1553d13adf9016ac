"""GNNPipe: bytes against graph parallelism, and whether old embeddings cost convergence.

Convergence is computed by one process, which gives the numbers of any number of them. Bytes are
counted by real processes, 2 and 4, in two epochs each.
"""

import contextlib
import io
import json
import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import PositiveInt
from torch.multiprocessing.spawn import start_processes

from sixfold.core.config import Config, Threads
from sixfold.core.data.fetch import Dataset
from sixfold.core.pipeline.claim import (
    Claim,
    Comparison,
    Curve,
    Measurement,
    Metric,
    Scores,
    score_of,
)
from sixfold.core.pipeline.figures import curve_figure
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.measure import count_parameters
from sixfold.core.pipeline.page import Section, Table
from sixfold.core.pipeline.report import Outcome
from sixfold.core.pipeline.task import Source, Task
from sixfold.core.weights.convert import save_pretrained
from sixfold.graphs.data.catalog import dataset, find_graph
from sixfold.graphs.data.prepared import read_graph, read_manifest, write_graphs
from sixfold.graphs.data.validate import Data
from sixfold.graphs.models.gnnpipe import SYSTEM, GNNPipe, GNNPipeConfig
from sixfold.graphs.models.gnnpipe.traffic import expected_traffic

TRAFFIC = "traffic"
PROCESSES = (2, 4)
DEPTHS = (8, 16)


class PipelineData(Config):
    """The ``data:`` block.

    Args:
        graph: Key of `sixfold.graphs.data.catalog.GRAPHS`; synthetic data has digits instead.
    """

    graph: str = "squirrel_filtered"


class PipelineTraining(Config):
    """The ``train:`` block.

    Args:
        steps: Epochs, of one optimiser step each.
        threads: Threads of the CPU.
    """

    steps: PositiveInt
    threads: Threads | None = 1


def datasets(data: PipelineData) -> Sequence[Dataset]:
    """Return the published graph."""
    return [dataset(find_graph(data.graph))]


def prepare(data: PipelineData, source: Source, folder: Path) -> None:
    """Write the graph with its splits."""
    write_graphs([data.graph] if source == "real" else ["digits"], source, folder)


def graph_of(folder: Path, split: int) -> Data:
    """Return the prepared graph."""
    (name,) = read_manifest(folder)["graphs"]
    return read_graph(folder, name, split)


def train(job: Job[PipelineData]) -> None:
    """Train one way of dividing the graph on the split of the seed's number."""
    torch.set_num_threads(job.train.threads or torch.get_num_threads())
    data = graph_of(job.prepared, job.seed)
    model = GNNPipe(_config(job.model, data, epochs=job.train.steps, seed=job.seed))
    model.fit(data, folder=job.run)
    save_pretrained(job.weights, model, SYSTEM.name, model.config)


def evaluate(job: Job[PipelineData], samples: Path | None) -> Scores:
    """Return the accuracy of the test nodes, in per cent."""
    trained: Any = job.trained()
    return {"accuracy": trained.score(graph_of(job.prepared, job.seed))}


def traffic(prepared: Path, samples: Path | None) -> Scores:
    """Have real processes train for two epochs, and count what they send in one.

    Returns:
        For pipeline, graph and hybrid parallelism, the bytes of an epoch by number of processes
        and layers: ``<way>_<n>_<layers>`` what was sent between processes besides gradients of
        weights, ``..._weights`` these, and ``..._formula`` what all should be together; and
        ``off_formula``, the largest difference of the two.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        # Forked from a process that has imported everything once, and never trained anything.
        multiprocessing.set_forkserver_preload([__name__, "torch_geometric"])
        for processes in PROCESSES:
            start_processes(
                count, (processes, prepared, Path(scratch)), processes, start_method="forkserver"
            )
            found |= json.loads((Path(scratch) / f"{processes}.json").read_text(encoding="utf-8"))
    sums = {k: found[k] + found[f"{k}_weights"] for k in found if f"{k}_weights" in found}
    return found | {"off_formula": max(abs(sums[k] - found[f"{k}_formula"]) for k in sums)}


def count(rank: int, processes: int, folder: Path, scratch: Path) -> None:
    """Count the bytes of one process of `traffic`."""
    torch.set_num_threads(1)
    meeting = (scratch / f"meeting-{processes}").as_uri()
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    data, found = graph_of(folder, 0), {}
    for way, number in {"pipeline": 1, "hybrid": 2, "graph": processes}.items():
        if way == "hybrid" and number == processes:
            continue
        chunks = processes if way == "graph" else 4 * processes
        for depth in DEPTHS:
            torch.manual_seed(0)
            given = {"architecture": "gcn", "hidden": 64, "layers": depth}
            config = GNNPipeConfig.parse(given | {"ways": number, "chunks": chunks}, TRAFFIC)
            with contextlib.redirect_stdout(io.StringIO()):
                model = GNNPipe(_config(config, data, epochs=2, seed=0)).fit(data)
            sent, key = model.bytes_sent, f"{way}_{processes}_{depth}"
            found[key] = sent["layer"] + sent["graph"]
            found[f"{key}_weights"] = sent["weight"]
            found[f"{key}_formula"] = sum(model.bytes_expected.values())
    if rank == 0:
        (scratch / f"{processes}.json").write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


def paper_gib(way: str) -> float:
    """Return the GiB of an epoch on Squirrel (5201 nodes), 8 processes, 32 layers of width 1000.

    Args:
        way: pipeline (8 stages) or graph (8 parts with 11547 mirrors, as logged by the authors).
    """
    cuts, parts = ((1000,) * 7, 1) if way == "pipeline" else ((), 8)
    sent = expected_traffic(
        nodes=5201,
        travelling=cuts,
        aggregated=(1000,) * 32,
        mirrors=0 if parts == 1 else 2 * 11547,
        parameters=0,
        ways=parts,
    )
    return sum(sent.values()) / 2**30


def _config(config: Any, data: Data, epochs: int, seed: int) -> GNNPipeConfig:
    sizes = {"features": data.x.shape[1], "classes": int(data.y.max()) + 1}
    return config.model_copy(update=sizes | {"epochs": epochs, "seed": seed})


def traffic_section(outcome: Outcome) -> Iterator[Section]:
    """Show the bytes of an epoch by processes and layers."""
    (sent,) = outcome.results[TRAFFIC]["seeds"].values()
    ways, sizes = ("pipeline", "hybrid", "graph"), [(p, d) for p in PROCESSES for d in DEPTHS]
    rows = [
        {"processes": p, "layers": d}
        | {way: sent.get(f"{way}_{p}_{d}", "-") for way in ways}
        | {"graph / pipeline": round(sent[f"graph_{p}_{d}"] / sent[f"pipeline_{p}_{d}"], 2)}
        for p, d in sizes
    ]
    caption = "Bytes of an epoch between processes, besides gradients of weights, GCN of width 64"
    stages = {
        f"{way}, {d} layers": [(PROCESSES, [sent[f"{way}_{p}_{d}"] / 2**20 for p in PROCESSES])]
        for way in ("pipeline", "graph")
        for d in DEPTHS
    }
    yield Section(
        f"{outcome.claim.title}: bytes",
        tables=[Table(caption, list(rows[0]), rows)],
        figures=[curve_figure("bytes", "MiB of an epoch", stages, over="processes")],
    )


CLAIM = Claim(
    title="GNNPipe: layers on processes instead of nodes",
    text="The paper (arXiv:2308.10087) claims that dividing layers among processes instead of the "
    "graph sends fewer bytes by a factor of the number of layers, and that training with "
    "embeddings of older epochs converges as well as the full graph. Its numbers on Squirrel, 8 "
    "GPUs, 32 layers, test accuracy of GCNII: graph parallel 34.74 ± 0.32 %, pipeline 38.04 ± "
    "0.57 %; 2.753 against 0.271 GiB an epoch (GCN). Epochs of one machine's processes say nothing "
    "about speed, so none are timed here. The comparison is of non-inferiority, by one point.",
    metrics={"accuracy": Metric("accuracy, %")},
    comparisons=[Comparison("pipeline", "full_batch", margin=1.0)],
    labels={
        "full_batch": "full batch, exact (as graph parallel)",
        "pipeline": "pipeline, all three techniques",
        "no_shuffle": "without shuffled chunks",
        "no_fixed_history": "without fixed history",
        "kept_gradients": "without discarded gradients",
        "no_technique": "without all three",
    },
    curve=Curve("loss", "training loss"),
    caption="Accuracy of the test nodes in per cent, at the best validation accuracy",
)

MEASUREMENTS = [
    Measurement(
        "Bytes of an epoch: largest difference from the formula, 2 and 4 processes",
        published=0.0,
        measure=score_of(TRAFFIC, "off_formula"),
        unit="bytes",
    ),
    *(
        Measurement(
            f"Squirrel, 32 layers of width 1000, 8 processes, by our formula: {way} parallel",
            published=published,
            measure=lambda _, way=way: paper_gib(way),
            tolerance=0.0005,
            unit="GiB an epoch",
        )
        for way, published in (("pipeline", 0.271), ("graph", 2.753))
    ),
    Measurement(
        "Squirrel, GCN of 32 layers: parameters",
        published=32.09,
        measure=lambda _: count_parameters(SYSTEM, SYSTEM.config()).count / 1e6,
        tolerance=0.005,
        unit="million",
        where="the authors' log",
    ),
]

TASK = Task(
    claim=CLAIM,
    data=PipelineData,
    datasets=datasets,
    prepare=prepare,
    synthetic="digits among their nearest neighbours",
    train=train,
    evaluate=evaluate,
    references={TRAFFIC: traffic},
    measurements=MEASUREMENTS,
    settings=PipelineTraining,
    sections=traffic_section,
)
