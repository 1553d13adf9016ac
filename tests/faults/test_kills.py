"""SIGKILL at random moments: every kind of training of every domain ends bit for bit the same."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy_pipelines import PARAMS, outcome, prepared, temporary

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
KILLS = 3  # of each kind; there are 19 kinds
KINDS = {file.stem: [*yaml.safe_load(file.read_text())["tasks"]] for file in PARAMS.glob("*.yaml")}


class Server:
    """training_server.py, which forks a process for each training."""

    def __init__(self, domain: str, folder: Path) -> None:
        self.log = folder / "server.log"
        script = str(HERE / "support" / "training_server.py")
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process: Any = subprocess.Popen([sys.executable, script, domain, str(folder)], **pipes)
        assert self.answer() == "ready"

    def answer(self) -> str:
        return self.process.stdout.readline().strip()

    def start(self, folder: Path, task: str) -> int:
        job = {"folder": str(folder), "task": task, "log": str(self.log)}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.answer())

    def run(self, folder: Path, task: str) -> int:
        self.start(folder, task)
        return int(self.answer())

    def killed(self, folder: Path, task: str, after_s: float) -> bool:
        """Kill a training after so long; return whether it was still running."""
        pid = self.start(folder, task)
        time.sleep(after_s)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return int(self.answer()) == -signal.SIGKILL


@pytest.fixture(scope="module", params=sorted(KINDS))
def served(request, tmp_path_factory):
    """A domain, a repository with its prepared data, and its server."""
    root = prepared(tmp_path_factory.mktemp(request.param) / "whole", request.param)
    server = Server(request.param, root)
    yield request.param, root, server
    server.process.stdin.close()
    server.process.wait(20)


def test_killed_at_random_moments_every_kind_of_training_ends_the_same(served, tmp_path):
    domain, whole, server = served
    for task in KINDS[domain]:
        assert server.run(whole, task) == 0, server.log.read_text()
        right = outcome(whole, domain, task)
        assert len(right) >= 2
        chance, kills, steps = random.Random(task), 0, set()
        again = prepared(tmp_path / f"{task}-again", domain, like=whole)
        began = time.monotonic()
        assert server.run(again, task) == 0, server.log.read_text()
        seconds = time.monotonic() - began
        assert outcome(again, domain, task) == right
        again = prepared(tmp_path / task, domain, like=whole)
        for _ in range(10 * KILLS):
            if kills == KILLS:
                break
            if server.killed(again, task, chance.uniform(0.05, 0.8) * seconds):
                kills += 1
                steps |= {path.name for path in again.glob("pipelines/*/runs/**/ckpt/step-*")}
            else:  # it was done before: begin another one
                assert outcome(again, domain, task) == right
                again = prepared(Path(f"{again}-"), domain, like=whole)
        assert kills == KILLS
        assert server.run(again, task) == 0, server.log.read_text()
        found = outcome(again, domain, task)
        assert [name for name in right if found.get(name) != right[name]] == []
        assert found.keys() == right.keys()
        assert temporary(again) == []
        print(f"{domain}/{task}: {kills} kills, {len(steps)} checkpoints met, {seconds:.1f} s")
