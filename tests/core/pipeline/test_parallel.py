"""Jobs in processes of their own: all done, named, and gone when their parent is."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sixfold.core.pipeline.parallel import max_workers

SCRIPT = """
import signal, sys, time
from pathlib import Path
from sixfold.core import UserError
from sixfold.core.pipeline.parallel import run_parallel

def job(folder, number, seconds):
    done = lambda *_: (Path(folder, f"asked-{number}").touch(), sys.exit(1))
    signal.signal(signal.SIGTERM, done)
    Path(folder, f"began-{number}").touch()
    print("hello")
    if seconds < 0:
        raise UserError("this seed is no good")
    time.sleep(seconds)
    Path(folder, f"ended-{number}").touch()

if __name__ == "__main__":
    folder, *seconds = sys.argv[1:]
    jobs = {f"job {n}": (folder, n, float(s)) for n, s in enumerate(seconds)}
    run_parallel(job, jobs, 2)
"""

SLOW = """
import os, time
fork, children = os.fork, []

def slow_second_fork():
    children.append(child := fork())
    if child == 0 and len(children) == 2:
        time.sleep(0.5)  # when the first has failed already
    return child

os.fork = slow_second_fork
"""


def start(folder: Path, *seconds: float, before: str = "") -> subprocess.Popen:
    script = folder / "script.py"
    script.write_text(before + SCRIPT)
    words = [sys.executable, str(script), str(folder), *map(str, seconds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(*files: Path) -> None:
    end = time.monotonic() + 60
    while not all(file.exists() for file in files):
        assert time.monotonic() < end, files
        time.sleep(0.02)


def test_every_job_is_done_and_named(tmp_path: Path):
    process = start(tmp_path, 0, 0, 0)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert sorted(out.splitlines()) == [f"job {n}: hello" for n in range(3)]
    assert all((tmp_path / f"ended-{n}").exists() for n in range(3))


def test_a_job_that_fails_says_why_and_ends_the_others(tmp_path: Path):
    process = start(tmp_path, -1, 60)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error.splitlines() == ["sixfold: job 0: this seed is no good"]
    assert not list(tmp_path.glob("ended-*"))


def test_a_job_that_is_ended_before_it_began_says_nothing(tmp_path: Path):
    process = start(tmp_path, -1, 60, before=SLOW)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error.splitlines() == ["sixfold: job 0: this seed is no good"]


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_jobs_are_asked_to_end_however_their_parent_ends(tmp_path: Path, number: signal.Signals):
    process = start(tmp_path, 60, 60)
    wait_for(tmp_path / "began-0", tmp_path / "began-1")
    os.kill(process.pid, number)
    process.wait(60)
    wait_for(tmp_path / "asked-0", tmp_path / "asked-1")
    process.communicate(timeout=60)  # the pipes close when the jobs are gone
    assert not list(tmp_path.glob("ended-*"))


def test_as_many_jobs_as_threads_leave_room_for(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert max_workers(8, 2) == 2
    assert max_workers(3, 1) == 3
    assert max_workers(8, 6) == 1
    assert max_workers(8, None) == 1
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert max_workers(8, 1) == 1
