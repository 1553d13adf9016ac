"""SIGKILL of `sixfold train`: the parent, a child, all; no orphan stays, the end is the same."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
from processes import Marked, wait_for
from toy_pipelines import SIXFOLD, outcome, prepared, temporary

pytestmark = pytest.mark.slow

KILLS = 6
CHANGES = {
    "seeds: [0]": "seeds: [0, 1]",
    "steps: 16, batch: 1, learning_rate: 1.0e-2": "ckpt_every: 2, steps: 60, batch: 1, "
    "learning_rate: 1.0e-2",
}
TRAIN = [SIXFOLD, "train", "speech/enhancement"]


def test_whoever_is_killed_the_end_is_the_same(tmp_path):
    whole = prepared(tmp_path / "whole", "speech", changes=CHANGES)
    train_to_the_end(whole)
    right = outcome(whole, "speech")
    assert len(right) >= 8
    here = prepared(tmp_path / "killed", "speech", like=whole, changes=CHANGES)
    chance, kills = random.Random(1), 0
    for number in range(KILLS):
        with Marked(TRAIN, here) as command:
            wait_for_a_moment(here, command, chance)
            if command.process.poll() is not None:
                break  # done between two kills
            family = command.family()
            children = [pid for pid in family if pid != command.process.pid]
            victims = ([command.process.pid], children[:1] or family, family)[number % 3]
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            kills += 1
            assert command.gone(), command.family()
    assert kills >= 3
    train_to_the_end(here)
    assert outcome(here, "speech") == right
    assert temporary(here) == []
    print(f"{kills} kills of parents, children and families")


def train_to_the_end(root: Path) -> None:
    """Train and wait."""
    with Marked(TRAIN, root) as command:
        assert command.process.wait(900) == 0, command.text


def wait_for_a_moment(root: Path, command: Marked, chance: random.Random) -> None:
    """Wait for some steps, or for less: while it imports, opens or forks."""

    def rows() -> int:
        curves = root.glob("pipelines/speech/runs/enhancement/frcrn/*/curve.csv")
        return sum(file.read_bytes().count(b"\n") for file in curves)

    before = rows()
    if chance.random() < 0.3:
        time.sleep(chance.uniform(0.5, 8))
    else:
        wait_for(lambda: rows() > before + 4 or command.process.poll() is not None)
