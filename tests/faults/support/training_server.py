"""Train tasks of toy pipelines in forked processes, so that PyTorch is imported once.

Run as ``python training_server.py DOMAIN FOLDER``: it reads names of folders as JSON lines and
forks a child for each, which trains one task there and saves at every second step. What a finished
training imported, the server imports too, so that kills meet trainings and no imports.
"""

import contextlib
import functools
import importlib
import json
import os
import sys
from pathlib import Path

from forks import in_child

MODULES = "modules.txt"


def train(domain: str, task: str) -> None:
    """Train a task of the pipeline in the working folder."""
    from sixfold.core.pipeline import stages
    from sixfold.core.pipeline.params import Pipeline
    from sixfold.core.training.run import Run

    save = Run.checkpoint
    Run.checkpoint = lambda self, position, *_: save(self, position, 2)  # type: ignore[method-assign]
    stages.train(Pipeline.find(domain).task(task), workers=1)
    Path(MODULES).write_text("\n".join(sys.modules))


def import_all(domain: str, folder: Path) -> None:
    """Import what trainings need, and hash the code, before the forks."""
    import lightning_fabric.plugins  # noqa: F401
    import torch
    from lightning_fabric.strategies import model_parallel  # noqa: F401

    from sixfold.core.pipeline.params import Pipeline

    torch.set_num_threads(1)
    os.chdir(folder)
    for task in Pipeline.find(domain).tasks.values():
        for key in task.entries:
            task.job(key, 0)


def main() -> None:
    """Serve until the input ends."""
    domain, folder = sys.argv[1], Path(sys.argv[2])
    import_all(domain, folder)
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        os.chdir(job["folder"])
        child = in_child(job["log"], functools.partial(train, domain, job["task"]))
        print(child, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for name in Path(MODULES).read_text().split() if status == 0 else ():
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        print(status, flush=True)


if __name__ == "__main__":
    main()
