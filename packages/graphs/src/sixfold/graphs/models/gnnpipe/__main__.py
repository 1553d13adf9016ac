"""Train GNNPipe from a shell, on as many processes as torchrun starts."""

import sys
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import App, Parameter

from sixfold.core import UserError
from sixfold.core.training.distributed import barrier, launch, rank, world_size
from sixfold.graphs.data.load import load_graph
from sixfold.graphs.data.synthetic import block_model, digits_graph
from sixfold.graphs.metrics import METRICS
from sixfold.graphs.models.gnnpipe.config import GNNPipeConfig
from sixfold.graphs.models.gnnpipe.estimator import GNNPipe

app = App(name="sixfold.graphs.models.gnnpipe", version_flags=[])
SYNTHETIC = {"digits": digits_graph, "blocks": block_model}


@app.default
def fit(
    graph: str,
    *,
    config: Annotated[GNNPipeConfig | None, Parameter(name="*")] = None,
    folder: Path | None = None,
    checkpoint_every: int | None = None,
    timeout_s: float = 600.0,
) -> None:
    """Train on a graph; the number of processes is ways times stages.

    Args:
        graph: Published graph such as cora or squirrel, synthetic data (digits or blocks), or a
            file of your own, whose weights and predictions are written to the folder.
        config: Settings; see `sixfold show graphs/gnnpipe`.
        folder: Run folder; the same command resumes a killed training. For a file of your own it
            is runs/gnnpipe if not given.
        checkpoint_every: Number of epochs between checkpoints, besides one about every minute.
        timeout_s: Maximum time to wait for another process, in seconds.
    """
    config = config or GNNPipeConfig()
    if graph not in SYNTHETIC and (Path(graph).suffix or Path(graph).is_dir()):
        fit_file(Path(graph), config, folder or Path("runs/gnnpipe"), checkpoint_every, timeout_s)
        return
    with launch():
        device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
        if rank() > 0:
            barrier()  # the first process fills the cache that the others read
        data: Any = (SYNTHETIC[graph]() if graph in SYNTHETIC else load_graph(graph)).to(device)
        if rank() == 0:
            barrier()
        model = GNNPipe(config).to(device)
        options = {"folder": folder, "checkpoint_every": checkpoint_every, "timeout_s": timeout_s}
        model.fit(data, **options)
        if rank() == 0:
            _print_summary(model, data)


def fit_file(
    graph: Path, config: GNNPipeConfig, out: Path, checkpoint_every: int | None, timeout_s: float
) -> None:
    """Train on a file of one's own; the first process writes weights and predictions."""
    from sixfold.graphs.own_data import train_file  # which imports every system

    options = {"checkpoint_every": checkpoint_every, "timeout_s": timeout_s}
    with launch():
        model = train_file(GNNPipe, config, graph, out, **options)
        if rank() == 0:
            _print_traffic(model)


def _print_summary(model: GNNPipe, data: Any) -> None:
    _print_traffic(model)
    print(f"test {METRICS[model.config.target][0]}: {model.score(data):.2f}", flush=True)


def _print_traffic(model: GNNPipe) -> None:
    stages = world_size() // model.config.ways
    if model.history:
        print(
            f"trained: loss {model.history[-1]['loss']:.4f} in epoch {model.history[-1]['epoch']}"
        )
        for kind, count in model.bytes_sent.items():
            print(f"{kind}: {count} bytes an epoch, {model.bytes_expected[kind]} by formula")
        print(f"idle: {model.bubble_fraction(max(1, stages)):.0%} of an epoch, if stages are even")


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2."""
    try:
        app()
    except (UserError, OSError) as error:
        print(f"sixfold.graphs.models.gnnpipe: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
