"""SIGKILL of `sixfold train`: the parent, a child, all; no orphan stays, the end is the same."""

import contextlib
import os
import random
import signal
import time

import pytest
from processes import Marked, wait_for
from toy_pipelines import SIXFOLD, outcome, prepared, temporary

pytestmark = pytest.mark.slow

KILLS = 9
CHANGES = {
    "seeds: [0]": "seeds: [0, 1]",
    "steps: 16, batch: 1, learning_rate: 1.0e-2": "ckpt_every: 2, steps: 60, batch: 1, "
    "learning_rate: 1.0e-2",
}
TRAIN = [SIXFOLD, "train", "speech/enhancement"]


def test_whoever_is_killed_the_end_is_the_same(tmp_path):
    whole = prepared(tmp_path / "whole", "speech", changes=CHANGES)
    command = Marked(TRAIN, whole)
    assert command.process.wait(600) == 0, command.text
    right = outcome(whole, "speech")
    here, chance = (
        prepared(tmp_path / "killed", "speech", like=whole, changes=CHANGES),
        random.Random(1),
    )
    curves = "pipelines/speech/runs/enhancement/frcrn/*/curve.csv"

    def rows() -> int:
        return sum(file.read_bytes().count(b"\n") for file in here.glob(curves))

    kills = 0
    for number in range(3 * KILLS):
        if kills == KILLS:
            break
        command, before = Marked(TRAIN, here), rows()
        if chance.random() < 0.3:
            time.sleep(chance.uniform(0.5, 8))  # also while it imports, opens, forks
        else:
            wait_for(lambda b=before, c=command: rows() > b + 4 or c.process.poll() is not None)
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
    command = Marked(TRAIN, here)
    assert command.process.wait(600) == 0, command.text
    assert outcome(here, "speech") == right
    assert temporary(here) == []
    print(f"{kills} kills of parents, children and families")
