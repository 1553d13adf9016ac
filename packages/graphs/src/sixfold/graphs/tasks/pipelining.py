"""GNNPipe: bytes against graph parallelism, and whether old embeddings cost convergence.

Convergence is computed by one process, which gives the numbers of any number of them. Bytes are
counted by real processes, 2 and 4, in two epochs each.
"""

import contextlib
import io
import json
import multiprocessing
import shutil
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from pydantic import Field, PositiveInt
from torch.multiprocessing.spawn import start_processes

from sixfold.core.config import Config, UserError, unknown_name_error
from sixfold.core.pipeline.params import Job, OwnTask, write_json
from sixfold.core.weights.convert import from_pretrained, save_pretrained
from sixfold.graphs.data.prepared import read_graph, read_manifest
from sixfold.graphs.data.validate import Data
from sixfold.graphs.models.gnnpipe import SYSTEM, GNNPipe, GNNPipeConfig

TRAFFIC = "traffic"
PROCESSES = (2, 4)
DEPTHS = (8, 16)


class PipelineData(Config):
    """The ``pipelining:`` block of the data.

    Args:
        graph: A key of `sixfold.graphs.data.catalog.GRAPHS`; the built-in source has digits
            instead.
    """

    graph: str = "squirrel_filtered"


class PipelineTraining(Config):
    """The ``train:`` block.

    Args:
        steps: Epochs, of one optimiser step each.
        threads: Of the CPU.
    """

    steps: PositiveInt
    threads: int | None = Field(default=1, ge=1)


def graph_of(folder: Path, split: int) -> Data:
    """Return the prepared graph."""
    (name,) = read_manifest(folder)["graphs"]
    return read_graph(folder, name, split)


def train(job: Job) -> None:
    """Train one way of dividing the graph on the split of the seed's number."""
    torch.set_num_threads(job.settings.threads or torch.get_num_threads())
    data = graph_of(job.prepared, job.seed)
    torch.manual_seed(job.seed)
    model = GNNPipe(_config(job.config, data, epochs=job.settings.steps, seed=job.seed))
    model.fit(data, folder=job.run)
    save_pretrained(job.weights.with_suffix(".safetensors"), model, SYSTEM.name, model.config)
    shutil.copyfile(job.run / "curve.csv", job.weights.with_suffix(".csv"))


def evaluate(model: Job | str, folder: Path, samples: Path | None) -> dict[str, float | int | None]:
    """Score a trained network, or count bytes.

    Args:
        model: A trained seed, or the name of the reference: ``traffic``.
        folder: The prepared data.
        samples: Not used: there is nothing to look at but the scores.

    Returns:
        ``accuracy`` of the test nodes in per cent. Of the reference, for pipeline, graph and hybrid
        parallelism, the bytes of an epoch by number of processes and layers: ``<way>_<n>_<layers>``
        what was sent between processes besides gradients of weights, ``..._weights`` these, and
        ``..._formula`` what all should be together.

    Raises:
        UserError: there is no such reference.
    """
    if isinstance(model, str):
        if model != TRAFFIC:
            raise UserError(unknown_name_error("pipelining", "reference", model, (TRAFFIC,)))
        return traffic(folder)
    trained = from_pretrained(model.weights.with_suffix(".safetensors"), SYSTEM)
    assert isinstance(trained, GNNPipe)
    return {"accuracy": trained.score(graph_of(folder, model.seed))}


def traffic(folder: Path) -> dict[str, float | int | None]:
    """Have real processes train for two epochs, and count what they send in one."""
    found: dict[str, float | int | None] = {}
    with tempfile.TemporaryDirectory() as scratch:
        # Forked from a process that has imported everything once, and never trained anything.
        multiprocessing.set_forkserver_preload([__name__, "torch_geometric"])
        for processes in PROCESSES:
            start_processes(
                count, (processes, folder, Path(scratch)), processes, start_method="forkserver"
            )
            found |= json.loads((Path(scratch) / f"{processes}.json").read_text(encoding="utf-8"))
    return found


def count(rank: int, processes: int, folder: Path, scratch: Path) -> None:
    """Do the part of one process of `traffic`."""
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
        write_json(scratch / f"{processes}.json", found)
    dist.destroy_process_group()


def _config(config: GNNPipeConfig, data: Data, epochs: int, seed: int) -> GNNPipeConfig:
    sizes = {"features": data.x.shape[1], "classes": int(data.y.max()) + 1}
    return config.model_copy(update=sizes | {"epochs": epochs, "seed": seed})


TASK = OwnTask(PipelineTraining, train, evaluate, (TRAFFIC,))
