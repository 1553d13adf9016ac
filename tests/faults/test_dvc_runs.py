"""`dvc repro` killed, interrupted, twice at once: no orphans, and the results are the same."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import Marked, wait_for
from toy_pipelines import make, outcome, temporary

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DVC = str(Path(sys.executable).with_name("dvc"))
REPRO = [DVC, "repro", "pipelines/speech/dvc.yaml:train@enhancement"]
LONG = {"steps: 16, batch: 1, learning_rate: 1.0e-2": "steps: 150, batch: 1, learning_rate: 1.0e-2"}


def repository(folder: Path) -> Path:
    """Make a repository of git and DVC that holds the toy pipeline of speech."""
    make(folder, "speech", changes=LONG)
    here = folder / "pipelines" / "speech"
    (here / "dvc.yaml").write_bytes((ROOT / "pipelines/speech/dvc.yaml").read_bytes())
    params = here / "params.yaml"
    params.write_text("source: builtin\n" + params.read_text())
    for command in (["git", "init", "-q"], [DVC, "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def ours(command: Marked) -> list[str]:
    """Return the tracebacks that go through sixfold: dvc's own are not ours."""
    parts = command.text.split("Traceback (most recent call last)")[1:]
    return [part for part in parts if "/sixfold/" in part]


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    root = repository(tmp_path_factory.mktemp("dvc") / "whole")
    command = Marked(REPRO, root)
    assert command.process.wait(600) == 0, command.text
    assert command.gone()
    again = Marked(REPRO, root)
    assert again.process.wait(300) == 0, again.text
    assert "Running stage 'pipelines/speech/dvc.yaml:train" not in again.text
    return outcome(root, "speech")


@pytest.mark.parametrize(
    ("numbers", "whom"),
    [
        ([signal.SIGKILL], "dvc"),
        ([signal.SIGKILL], "all"),
        ([signal.SIGINT], "group"),
        ([signal.SIGINT] * 2, "group"),
        ([signal.SIGTERM], "dvc"),
    ],
    ids=str,
)
def test_stopped_it_leaves_nobody_and_ends_the_same(tmp_path, right, numbers, whom):
    root = repository(tmp_path / "repository")
    command = Marked(REPRO, root)
    assert wait_for(lambda: list(root.glob("pipelines/speech/runs/*/*/*/curve.csv")), 600)
    time.sleep(0.3)
    for number in numbers:
        pids = {"dvc": [command.process.pid], "all": command.family(), "group": []}[whom]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if whom == "group":
            command.signal(number)
    assert command.gone(), command.family()
    assert ours(command) == []
    again = Marked(REPRO, root)
    assert again.process.wait(600) == 0, again.text
    assert outcome(root, "speech") == right
    assert temporary(root / "pipelines") == []


def test_two_at_once(tmp_path, right):
    root = repository(tmp_path / "repository")
    both = [Marked(REPRO, root), Marked(REPRO, root)]
    codes = [command.process.wait(600) for command in both]
    assert 0 in codes  # the other one may find the lock of dvc taken
    assert [ours(command) for command in both] == [[], []]
    assert outcome(root, "speech") == right
