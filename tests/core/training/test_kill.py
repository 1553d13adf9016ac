"""A run that is killed with SIGKILL, at any moment, ends as if nothing had happened."""

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

HERE = Path(__file__).parent
KINDS = ["supervised", "multi_task", "full_batch", "layer_local", "alternating"]


class Server:
    """toys.py, which forks a process for each training."""

    def __init__(self, folder):
        self.log = folder / "log"
        self.process: Any = subprocess.Popen(
            [sys.executable, str(HERE.parent / "support" / "toys.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(HERE.parents[1] / "support")},
        )
        assert self.process.stdout.readline() == "ready\n"

    def start(self, kind, folder, fsync=0):
        job = {"kind": kind, "folder": str(folder), "fsync": fsync, "log": str(self.log)}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def wait(self):
        return int(self.process.stdout.readline())

    def run(self, kind, folder, fsync=0):
        self.start(kind, folder, fsync)
        return self.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.process.stdin.close()
    server.process.wait(10)


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory):
    """kind -> (folder, seconds) of an uninterrupted training, made once."""
    made = {}

    def get(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind) / "whole"
            began = time.monotonic()
            assert server.run(kind, folder) == 0, server.log.read_text()
            made[kind] = folder, time.monotonic() - began
        return made[kind]

    return get


def outcome(folder):
    """Everything that a run leaves, byte by byte, but times."""
    files = {"curve": (folder / "curve.csv").read_bytes(), "DONE": (folder / "DONE").read_bytes()}
    (last,) = (folder / "ckpt").glob("step-*")
    files |= {path.name: path.read_bytes() for path in last.glob("*.safetensors")}
    state = json.loads((last / "state.json").read_text())
    state["objects"].get("progress", {}).pop("elapsed_s", None)
    return files | {"state": json.dumps(state, sort_keys=True), "last": last.name}


def finish_and_compare(server, kind, folder, whole):
    assert server.run(kind, folder) == 0, server.log.read_text()
    expected = outcome(whole)
    found = outcome(folder)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def kill_at_random(server, kind, tmp_path, whole, seed):
    uninterrupted, seconds = whole(kind)
    chance = random.Random(f"{kind}{seed}")
    folder = tmp_path / "killed"
    for _ in range(50):  # a training that ended before its kill proves nothing: start over
        pid = server.start(kind, folder)
        time.sleep(chance.uniform(0.2, 0.9) * seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if server.wait() == -signal.SIGKILL:
            break
        folder = folder.with_name(folder.name + "-again")
    else:
        pytest.fail("no kill came in time")
    finish_and_compare(server, kind, folder, uninterrupted)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_a_random_moment_ends_bit_for_bit_equal(server, whole, tmp_path, kind):
    kill_at_random(server, kind, tmp_path, whole, seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_while_saving_ends_bit_for_bit_equal(server, whole, tmp_path, kind):
    folder = tmp_path / "killed"
    assert server.run(kind, folder, fsync=random.Random(kind).randrange(20, 60)) == -signal.SIGKILL
    finish_and_compare(server, kind, folder, whole(kind)[0])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 7))
@pytest.mark.parametrize("kind", KINDS)
def test_killed_again_and_again(server, whole, tmp_path, kind, seed):
    kill_at_random(server, kind, tmp_path, whole, seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_many_times_in_one_run(server, whole, tmp_path, kind):
    chance, folder, kills = random.Random(kind), tmp_path / "killed", 0
    while server.run(kind, folder, fsync=chance.randrange(12, 40)) == -signal.SIGKILL:
        kills += 1
        assert kills < 100
    assert kills >= 3
    finish_and_compare(server, kind, folder, whole(kind)[0])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_exits_with_its_number(server, whole, tmp_path, number, status):
    uninterrupted, _ = whole("supervised")
    folder = tmp_path / "stopped"
    pid = server.start("supervised", folder)
    while not (folder / "curve.csv").is_file():
        time.sleep(0.002)
    os.kill(pid, number)
    assert server.wait() == status
    rows = (folder / "curve.csv").read_text().splitlines()
    (newest,) = (folder / "ckpt" / "latest").read_text().split()
    assert newest == f"step-{int(rows[-1].split(',')[0]):08d}"  # not a step was lost
    finish_and_compare(server, "supervised", folder, uninterrupted)
