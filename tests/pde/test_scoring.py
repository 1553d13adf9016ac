"""Rollouts are scored against true flows from the frame on at which they begin."""

import shutil

import numpy as np
import pytest
import torch
from flow_files import h5, noise, smoke

from sixfold.core import UserError
from sixfold.pde.data.files import trajectories
from sixfold.pde.data.layouts import open_flows
from sixfold.pde.data.rollout_files import rollout_file
from sixfold.pde.metrics import rollout_error
from sixfold.pde.scoring import score

STEPS = 6  # two more than the true flow has


@pytest.fixture
def pair(tmp_path):
    """Write a true flow, and rollouts of it with a tenth of noise."""
    true = smoke(tmp_path / "true.h5", {"test": 2, "valid": 1}, frames=6)
    blocks = open_flows(true)
    given = trajectories(blocks)
    with rollout_file(tmp_path / "made.h5", blocks, given, 2, STEPS, None) as writer:
        for one in given:
            writer.write(one, 0, torch.from_numpy(noise(STEPS, 3, 8, 8)))
    return true, tmp_path / "made.h5"


def fields_of(path, start: int, stop: int) -> torch.Tensor:
    with h5(path) as file:
        parts = [
            np.stack([file[split][name][:, start:stop] for name in ("u", "vx", "vy")], 2)
            for split in ("test", "valid")
        ]
    return torch.from_numpy(np.concatenate(parts))


def test_the_error_is_that_of_the_metric_as_far_as_there_is_a_truth(pair, tmp_path, capsys):
    true, made = pair
    expected = rollout_error(fields_of(made, 0, 4), fields_of(true, 2, 6))
    found = score(true, made)
    assert found["scaled_l2"] == pytest.approx(expected.error, rel=1e-5)
    assert found["steps"] == 4
    assert found["scaled_l2_last"] == pytest.approx(float(expected.curve[-1]), rel=1e-5)
    assert 0 < found["spectrum"] < found["scaled_l2"]
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 + 4 + 5
    score(true, made, out=tmp_path / "curve.csv")
    rows = (tmp_path / "curve.csv").read_text().splitlines()
    assert [float(row.split(",")[1]) for row in rows[1:]] == pytest.approx(
        expected.curve.tolist(), rel=1e-4
    )


def test_a_flow_scored_against_itself_is_perfect(pair):
    found = score(pair[0], pair[0])
    assert found.pop("steps") == 6
    assert set(found.values()) == {0.0}


def test_the_spectrum_does_not_know_where_things_are(tmp_path):
    """A shifted flow has the spectrum of the true one, half of it half its amplitudes."""
    smoke(tmp_path / "true.h5", {"test": 1})
    for name, change in (("shifted", lambda x: np.roll(x, 3, 2)), ("half", lambda x: 0.5 * x)):
        shutil.copy(tmp_path / "true.h5", tmp_path / f"{name}.h5")
        with h5(tmp_path / f"{name}.h5", "r+") as file:
            for field in ("u", "vx", "vy"):
                file["test"][field][...] = change(file["test"][field][()])
    shifted, half = (score(tmp_path / "true.h5", tmp_path / f"{n}.h5") for n in ("shifted", "half"))
    assert shifted["spectrum"] < 1e-5 < 1 < shifted["scaled_l2"]
    assert half["spectrum"] == pytest.approx(0.5, rel=1e-5)
    assert half["scaled_l2"] == pytest.approx(0.5, rel=1e-5)


def test_rollouts_of_different_lengths_are_scored_together(tmp_path):
    for name, frames in (("a", 3), ("b", 6)):
        for folder in ("true", "made"):
            (tmp_path / folder).mkdir(exist_ok=True)
            smoke(tmp_path / folder / f"{name}.h5", {"test": 1}, frames=frames)
    found = score(tmp_path / "true", tmp_path / "made", out=tmp_path / "curve.csv")
    assert found["steps"] == 6
    alone = score(tmp_path / "true" / "b.h5", tmp_path / "made" / "b.h5")
    assert found["scaled_l2_last"] == pytest.approx(alone["scaled_l2_last"], rel=1e-6)


def test_what_does_not_match_is_refused(pair, tmp_path):
    true, made = pair
    with pytest.raises(UserError, match=r"true.h5 is the input"):
        score(true, made, out=true)
    smoke(tmp_path / "other.h5", {"test": 1})
    with pytest.raises(UserError, match=r"other.h5 has 1 trajectories, .*true.h5 3; roll out all"):
        score(true, tmp_path / "other.h5")
    smoke(tmp_path / "finer.h5", {"test": 2, "valid": 1}, sides=(16, 8))
    with pytest.raises(UserError, match=r"vy on \(16, 8\) points, .* on \(8, 8\) points"):
        score(true, tmp_path / "finer.h5")
    smoke(tmp_path / "short.h5", {"test": 2, "valid": 1}, frames=2)
    with pytest.raises(UserError, match="ends before the rollout begins"):
        score(tmp_path / "short.h5", made)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    smoke(tmp_path / "a" / "x.h5", {"test": 1})
    smoke(tmp_path / "b" / "y.h5", {"test": 1})
    with pytest.raises(UserError, match=r"no partner of that name for .*x.h5, .*y.h5"):
        score(tmp_path / "a", tmp_path / "b")
