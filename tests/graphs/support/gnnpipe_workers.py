"""Train GNNPipe on several processes: the script that test_gnnpipe_processes.py starts.

The script forks the processes of each job before autograd is used, so that torch is imported once.
Results are written to <folder>/<job>-<rank>.pt.
"""

import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import golden_gnnpipe as golden
import torch
import torch.distributed as dist

from sixfold.core.training.distributed import rank
from sixfold.graphs.data.synthetic import block_model
from sixfold.graphs.models.gnnpipe import GNNPipe, RankFailedError
from sixfold.graphs.models.gnnpipe.training import Training

PIPE = {"architecture": "gcnii", "chunks": 6, "dropout": 0.3, "epochs": 4, "history_period": 2}
WAYS = {"architecture": "sage", "chunks": 6, "dropout": 0.3, "epochs": 4, "ways": 2}
EXACT = {"architecture": "resgcn", "chunks": 4, "dropout": 0.0, "epochs": 3, "ways": 4}
RESUMED = {"architecture": "gcn", "chunks": 4, "dropout": 0.5, "epochs": 6, "history_period": 2}
FITS = {  # name: processes, settings
    **{f"pipe{n}": (n, PIPE) for n in (1, 2, 3, 4)},
    **{f"ways{n}": (n, WAYS) for n in (1, 2, 4)},
    "exact1": (1, EXACT),
    "exact4": (4, EXACT),
    "batch1": (1, EXACT | {"chunks": 1, "ways": 1}),
    "whole2": (2, RESUMED),
}


def graph() -> Any:
    """Draw a directed graph in float64."""
    made = block_model(nodes=60, classes=3, features=8, degree=6.0, signal=1.0, seed=1)
    made.edge_index = made.edge_index[:, torch.arange(made.edge_index.shape[1]) % 5 > 0]
    made.x = made.x.double()
    return made


def fit(settings: dict, folder: Path | None = None) -> dict[str, Any]:
    torch.manual_seed(0)
    sizes = {"hidden": 6, "layers": 5, "features": 8, "classes": 3, "evaluate_every": 2}
    options: dict[str, Any] = {**settings, **sizes, "learning_rate": 0.01}
    model, data = GNNPipe(**options).double(), graph()
    model.fit(data, folder=folder, checkpoint_every=3, timeout_s=60)
    sent = {"sent": model.bytes_sent, "expected": model.bytes_expected}
    return sent | {"history": model.history, "state": model.state_dict(), "logits": model(data)}


def die_in_the_fifth_epoch(folder: Path) -> dict[str, Any]:
    """End process 1 abruptly; return the error of process 0 and the seconds until then."""
    run_epoch = Training.run_epoch

    def dying(self: Training, epoch: int) -> float:
        if epoch == 4 and rank() == 1:
            os._exit(9)
        return run_epoch(self, epoch)

    Training.run_epoch = dying
    start = time.monotonic()
    try:
        fit(RESUMED, folder)
    except RankFailedError as error:
        return {"error": str(error), "seconds": time.monotonic() - start}
    return {"error": "", "seconds": 0.0}


VARIANTS = {  # by number of processes: each variant somewhere
    2: ["all", "none"],
    3: ["no_discard_grad", "no_shuffle"],
    4: ["all", "no_fix_history"],
}


def golden_results(root: Path, processes: int) -> dict[str, Any]:
    found = {}
    for file in sorted((root / "gnnpipe").rglob("io.safetensors")):
        settings = golden.read(file.parent)[0]
        for name in settings["models"]:
            if processes > settings["num_layers"]:
                continue
            for variant in VARIANTS[processes]:
                found[f"{file.parent}|{name}/{variant}"] = golden.results(
                    file.parent, name, variant
                )
    return found


def launch(folder: Path, name: str, processes: int, action: Callable[[], Any]) -> None:
    children = []
    for number in range(processes):
        if child := os.fork():
            children.append(child)
            continue
        status = 1
        try:
            if processes > 1:
                store, limit = f"file://{folder / name}.store", timedelta(seconds=60)
                dist.init_process_group(
                    "gloo", init_method=store, rank=number, world_size=processes, timeout=limit
                )
            torch.save(action(), folder / f"{name}-{number}.pt")
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)  # without the clean-up of the parent
    for child in children:
        os.waitpid(child, 0)


def main(folder: Path, root: Path) -> None:
    graph()  # imports that every process would repeat: torch_geometric's,
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))]).step()  # and the optimisers'
    for name, (processes, settings) in FITS.items():
        launch(folder, name, processes, lambda settings=settings: fit(settings))
    for processes in (2, 3, 4) if root.is_dir() else ():
        name = f"golden{processes}"
        launch(folder, name, processes, lambda n=processes: golden_results(root, n))
    launch(folder, "killed", 2, lambda: die_in_the_fifth_epoch(folder / "run"))
    if (folder / "run").is_dir():
        shutil.copytree(folder / "run", folder / "run3")
        launch(folder, "resumed2", 2, lambda: fit(RESUMED, folder / "run"))
        launch(folder, "resumed3", 3, lambda: fit(RESUMED, folder / "run3"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
