"""A conditional SineNet learns from files with a number a trajectory, and forecasts by it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flow_files import h5, noise, smoke, well

from sixfold.core import UserError, train
from sixfold.core.weights.convert import from_pretrained
from sixfold.pde.data.conditioned import AtOneStep, Pairs, epoch_pairs, parameter_of
from sixfold.pde.data.files import read, trajectories
from sixfold.pde.data.layouts import open_flows
from sixfold.pde.fields.forecast import rollout
from sixfold.pde.models.sinenet import SYSTEM
from sixfold.pde.own_data import run_sinenet

TINY = ["hidden_channels=2", "num_waves=1", "mult=1.5", "time_history=1"]
BY_TIME = [*TINY, "conditioning=add"]
BY_BOTH = [*TINY, "conditioning=scale_shift", "condition_on_parameter=true"]


def attempt(data: Path, out: Path, settings: list[str], **options: Any) -> Any:
    options = {"rollout_steps": 2, "valid_trajectories": 2, **options}
    return train(
        "pde/sinenet",
        data=data,
        out=out,
        set=settings,
        options=options,
        steps=3,
        batch=4,
        threads=1,
    )


@pytest.fixture
def flows(tmp_path) -> Path:
    return smoke(tmp_path / "flows.h5", {"train": 3, "valid": 2}, sides=(16, 16))


@pytest.mark.parametrize("settings", [BY_TIME, BY_BOTH], ids=["time", "time and buoyancy"])
def test_trained_saved_and_rolled_out(settings, flows, tmp_path, capsys):
    attempt(flows, tmp_path / "run", settings)
    assert "3 trajectories to train on, 2 for validation" in capsys.readouterr().out
    model: Any = from_pretrained(tmp_path / "run", SYSTEM)
    assert model.config.parameter_name == "buo_y"
    run_sinenet(flows, tmp_path / "o.h5", weights=str(tmp_path / "run"), steps=3, trajectory=4)
    given, (made,) = (trajectories(open_flows(f)) for f in (flows, tmp_path / "o.h5"))
    parameter = 0.1 if model.config.condition_on_parameter else None  # of valid's second
    with torch.no_grad():
        expected = rollout(AtOneStep(model, parameter), read(given[4], 0, 1)[None], 3)[0]
        other = rollout(AtOneStep(model, parameter and 0.9), read(given[4], 0, 1)[None], 3)[0]
    torch.testing.assert_close(read(made, 0, 3), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(other, expected) == (parameter is None)
    with h5(tmp_path / "o.h5") as file:
        assert file["valid/buo_y"][()] == pytest.approx([0.1])


def test_a_sample_has_the_time_and_the_number_of_its_trajectory(flows, tmp_path):
    model: Any = attempt(flows, tmp_path / "run", BY_BOTH)
    given = trajectories([b for b in open_flows(flows) if b.split == "train"])
    pairs = Pairs(given, model.config, model.normalizer)
    assert len(pairs) == 18
    batch = pairs.at(range(18), seed=3)
    for history, future, time, parameter in zip(*batch.values(), strict=True):
        row = round(10 * float(parameter))
        values = (read(given[row], 0, 6) - model.normalizer.mean[0]) / model.normalizer.sd[0]
        places = [(values == frame).flatten(1).all(1).nonzero() for frame in (history, future)]
        (before,), (after,) = places[0].tolist()[0], places[1].tolist()[0]
        assert after - before == float(time) >= 1


def test_pairs_are_drawn_as_published():
    """Ends are uniform, starts fall as 1 / (s + 1) up to the end."""
    pairs = epoch_pairs([9] * 20_000, 1, 1, torch.Generator().manual_seed(0))
    assert torch.equal(pairs[:, 0].bincount(), torch.full((20_000,), 9))
    ends = pairs[:, 2].bincount()[1:].double()
    torch.testing.assert_close(
        ends / ends.sum(), torch.full((8,), 1 / 8).double(), rtol=0.02, atol=0
    )
    starts = pairs[pairs[:, 2] == 4, 1].bincount().double()
    weights = 1 / torch.arange(1.0, 5).double()
    torch.testing.assert_close(starts / starts.sum(), weights / weights.sum(), rtol=0.04, atol=0)


@pytest.mark.parametrize(("history", "future"), [(1, 1), (3, 2), (4, 2)])
def test_no_pair_leaves_its_trajectory(history, future):
    frames = [6, 11]
    pairs = epoch_pairs(frames * 500, history, future, torch.Generator().manual_seed(0))
    which, start, end = pairs.unbind(1)
    assert bool((start >= 0).all())
    assert bool((start + history <= end).all())
    assert bool((end + future <= torch.tensor(frames * 500)[which]).all())


def test_a_missing_number_is_named(flows, tmp_path):
    attempt(flows, tmp_path / "run", BY_BOTH)
    with h5(flows, "r+") as file:
        file["valid/buo_y"][1] = np.nan
    with pytest.raises(UserError, match=r"trajectory 1: buo_y is nan, no finite number"):
        attempt(flows, tmp_path / "other", BY_BOTH)
    with h5(flows, "r+") as file:
        del file["train/buo_y"], file["valid/buo_y"]
    lacks = (
        r"has no 'buo_y', the number of each trajectory .* it has: dt; add it, or train on another"
    )
    with pytest.raises(UserError, match=lacks):
        attempt(flows, tmp_path / "other", BY_BOTH)
    with pytest.raises(UserError, match=lacks):
        run_sinenet(flows, tmp_path / "o.h5", weights=str(tmp_path / "run"))
    assert not (tmp_path / "o.h5").exists()


def test_another_number_is_named_in_the_settings(tmp_path):
    well(tmp_path / "shear.hdf5", count=3, sides=(16, 32))
    settings = [*BY_BOTH, "parameter_name=reynolds"]
    model = attempt(tmp_path / "shear.hdf5", tmp_path / "run", settings, fields="velocity")
    found = [parameter_of(one, model.config) for one in trajectories(open_flows(tmp_path))]
    assert found == [0.0, 100.0, 200.0]
    with h5(tmp_path / "own.h5", "w") as file:
        file["flow"], file["reynolds"] = noise(2, 4, 16, 16), np.array([3.0, 4.0])
    mine = trajectories(open_flows(tmp_path / "own.h5", ["flow"], "ntxy"))
    assert [parameter_of(one, model.config) for one in mine] == [3.0, 4.0]


def test_a_number_lies_beside_the_fields_of_its_split(flows, tmp_path):
    with h5(flows, "r+") as file:
        file["train"].move("buo_y", "lift")
        file["valid"].move("buo_y", "lift")
        file["valid/name"] = [b"a", b"b"]
    model = attempt(flows, tmp_path / "run", [*BY_BOTH, "parameter_name=lift"])
    found = [parameter_of(one, model.config) for one in trajectories(open_flows(flows))]
    assert found == pytest.approx([0.0, 0.1, 0.2, 0.0, 0.1])
    with pytest.raises(UserError, match=r"has no 'name', .* it has: dt, lift; add it"):
        attempt(flows, tmp_path / "other", [*BY_BOTH, "parameter_name=name"])


def test_the_only_trajectory_of_a_file_has_a_number_without_axes(flows, tmp_path):
    model = attempt(flows, tmp_path / "run", [*BY_BOTH])
    with h5(tmp_path / "own.h5", "w") as file:
        file["flow"], file["buo_y"] = noise(4, 16, 16), 0.25
    (mine,) = trajectories(open_flows(tmp_path / "own.h5", ["flow"], "txy"))
    assert parameter_of(mine, model.config) == 0.25
