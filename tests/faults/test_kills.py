"""SIGKILL at random moments: every kind of training of every domain ends bit for bit the same."""

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy_pipelines import PARAMS, outcome, prepared, temporary

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
KILLS = 3  # of each kind; there are 19 kinds
CASES = [
    (domain, task)  # one object a domain, by which pytest knows that it can keep the server
    for file in sorted(PARAMS.glob("*.yaml"))
    for domain in [file.stem]
    for task in yaml.safe_load(file.read_text())["tasks"]
]
HANGS_S = 900


class Server:
    """training_server.py, which forks a process for each training."""

    def __init__(self, domain: str, folder: Path) -> None:
        self.log = folder / "server.log"
        script = str(HERE / "support" / "training_server.py")
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
        self.process: Any = subprocess.Popen(
            [sys.executable, script, domain, str(folder)],
            env=os.environ | {"PYTHONPATH": str(HERE.parent / "support")},
            start_new_session=True,
            **pipes,
        )

    def answer(self) -> str:
        stream = self.process.stdout
        assert select.select([stream], [], [], HANGS_S)[0], f"no answer in {HANGS_S} s"
        return stream.readline().decode().strip()

    def start(self, folder: Path, task: str) -> int:
        job = {"folder": str(folder), "task": task, "log": str(self.log)}
        self.process.stdin.write(f"{json.dumps(job)}\n".encode())
        return int(self.answer())

    def run(self, folder: Path, task: str) -> int:
        self.start(folder, task)
        return int(self.answer())

    def killed(self, folder: Path, task: str, moment: Callable[[], bool]) -> bool:
        """Kill a training at a moment; return whether it was still running."""
        pid = self.start(folder, task)
        while not moment() and not is_over(pid):
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return int(self.answer()) == -signal.SIGKILL

    def end(self) -> None:
        """Kill it and the trainings that it forked."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


def is_over(pid: int) -> bool:
    """Return whether a process has ended, whether or not its parent knows."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def saved(root: Path) -> set[str]:
    """Name the checkpoints of a repository."""
    folders = root.glob("pipelines/*/runs/**/ckpt/step-*")
    return {str(folder.relative_to(root)) for folder in folders}


def moments(root: Path, seconds: float, chance: random.Random) -> Iterator[Callable[[], bool]]:
    """Yield moments of trainings: the first at any time, the others about a newly saved state."""
    end = time.monotonic() + chance.uniform(0.05, 0.8) * seconds
    yield lambda: time.monotonic() > end
    while True:
        before, late = saved(root), chance.uniform(0, 0.02)

        def is_saved(before=before, late=late) -> bool:
            found = bool(saved(root) - before)
            time.sleep(late if found else 0)
            return found

        yield is_saved


@pytest.fixture(scope="module")
def served(request, tmp_path_factory):
    """A domain, a repository with its prepared data, and its server."""
    root = prepared(tmp_path_factory.mktemp(request.param) / "whole", request.param)
    server = Server(request.param, root)
    try:
        assert server.answer() == "ready"
        yield request.param, root, server
    finally:
        server.end()


@pytest.mark.parametrize(("served", "task"), CASES, indirect=["served"], scope="module")
def test_killed_at_random_moments_a_training_ends_the_same(served, task, tmp_path):
    domain, whole, server = served
    assert server.run(whole, task) == 0, server.log.read_text()
    right = outcome(whole, domain, task)
    assert len(right) >= 4
    again = prepared(tmp_path / "again", domain, like=whole)
    began = time.monotonic()
    assert server.run(again, task) == 0, server.log.read_text()
    seconds = time.monotonic() - began
    assert outcome(again, domain, task) == right
    kills, met, chance = 0, set(), random.Random(task)
    here = prepared(tmp_path / "0", domain, like=whole)
    at = moments(here, seconds, chance)
    for number in range(1, 10 * KILLS):
        if kills == KILLS:
            break
        if server.killed(here, task, next(at)):
            kills += 1
            met |= saved(here)
        else:  # it was done before: begin another one
            assert outcome(here, domain, task) == right
            here = prepared(tmp_path / str(number), domain, like=whole)
            at = moments(here, seconds, chance)
    assert kills == KILLS
    assert met
    assert server.run(here, task) == 0, server.log.read_text()
    found = outcome(here, domain, task)
    assert [name for name in right if found.get(name) != right[name]] == []
    assert found.keys() == right.keys()
    assert temporary(here) == []
    print(f"{domain}/{task}: {kills} kills, {len(met)} checkpoints met, {seconds:.1f} s")
