"""Rollouts lie in the layout of the file that they begin in, with its coordinates and times."""

from pathlib import Path

import numpy as np
import pytest
import torch
from flow_files import compressible, h5, incompressible, noise, reaction, smoke, well

from sixfold.core import UserError
from sixfold.pde.data.files import read, time_step, times, trajectories
from sixfold.pde.data.layouts import open_flows
from sixfold.pde.data.rollout_files import rollout_file

STEPS, HISTORY = 5, 2
MAKERS = {
    "smoke": lambda path: smoke(path, {"train": 2, "test": 1}),
    "compressible": compressible,
    "incompressible": lambda path: incompressible(path, frames=4, side=8),
    "reaction": lambda path: reaction(path, frames=4),
    "well": well,
    "own": lambda path: own(path),
}
NAMED = {"fields": ["depth", "flow"], "axes": "yxct"}


def own(path: Path) -> Path:
    with h5(path, "w") as file:
        file["flow"], file["depth"] = noise(4, 6, 2, 3), noise(4, 6, 3)
    return path


def write(source: Path, output: Path, *, only: int | None = None, **options) -> list[torch.Tensor]:
    """Write random rollouts, two frames and then the rest, and return them."""
    blocks = open_flows(source, **options)
    given = trajectories(blocks)
    given = given if only is None else [given[only]]
    made = []
    with rollout_file(output, blocks, given, HISTORY, STEPS, None) as writer:
        for one in given:
            frames = torch.randn(STEPS, len(one.block.channels), *one.block.sides)
            writer.write(one, 0, frames[:2])
            writer.write(one, 2, frames[2:])
            made.append(frames)
    return made


@pytest.mark.parametrize("layout", MAKERS)
def test_what_is_written_is_read_back_in_the_same_layout(layout, tmp_path):
    source, output = MAKERS[layout](tmp_path / "a.h5"), tmp_path / "b.h5"
    options = NAMED if layout == "own" else {}
    made = write(source, output, **options)
    (old, *_), (new, *_) = open_flows(source, **options), open_flows(output, **options)
    assert (new.layout, new.channels, new.sides) == (old.layout, old.channels, old.sides)
    assert (new.split, new.padding) == (old.split, old.padding)
    found = trajectories(open_flows(output, **options))
    assert len(found) == len(made)
    for one, expected in zip(found, made, strict=True):
        assert torch.equal(read(one, 0, STEPS), expected)
    first, before = found[0], trajectories([old])[0]
    if layout == "own":
        return
    clock, known, spacing = times(first), times(before), time_step(before)
    assert clock is not None
    assert known is not None
    assert spacing is not None
    assert np.allclose(clock, known[HISTORY] + spacing * np.arange(STEPS))
    with h5(output) as file:
        assert file.attrs["sixfold_first_frame"] == HISTORY


def test_coordinates_and_attributes_are_kept(tmp_path):
    well(tmp_path / "a.h5")
    write(tmp_path / "a.h5", tmp_path / "b.h5")
    with h5(tmp_path / "a.h5") as old, h5(tmp_path / "b.h5") as new:
        for name in ("dimensions/x", "dimensions/y", "scalars/reynolds"):
            assert np.array_equal(old[name], new[name])
        assert new.attrs["dataset_name"] == "shear"
        assert new["boundary_conditions/x"].attrs["bc_type"] == "WALL"
        assert all(new["t0_fields/height"].attrs["dim_varying"])
        assert new["t0_fields/mask"].attrs["time_varying"]
    compressible(tmp_path / "c.h5")
    write(tmp_path / "c.h5", tmp_path / "d.h5")
    with h5(tmp_path / "c.h5") as old, h5(tmp_path / "d.h5") as new:
        assert np.array_equal(old["x-coordinate"], new["x-coordinate"])
        assert new.attrs["eta"] == 1e-8


def test_of_one_trajectory_only_its_own_coordinates_are_kept(tmp_path):
    smoke(tmp_path / "a.h5", {"train": 3, "test": 1})
    (made,) = write(tmp_path / "a.h5", tmp_path / "b.h5", only=2)
    (block,) = open_flows(tmp_path / "b.h5")
    assert (block.split, block.trajectories) == ("train", 1)
    assert torch.equal(read(trajectories([block])[0], 0, STEPS), made)
    with h5(tmp_path / "b.h5") as file:
        assert file["train/buo_y"][()] == pytest.approx([0.1])
        assert file["train/x"].shape == (1, 8)
    reaction(tmp_path / "c.h5", frames=4)
    write(tmp_path / "c.h5", tmp_path / "d.h5", only=2)
    with h5(tmp_path / "d.h5") as file:
        assert list(file) == ["0002"]


def test_fields_that_were_not_chosen_stay_away(tmp_path):
    smoke(tmp_path / "a.h5", {"train": 2})
    write(tmp_path / "a.h5", tmp_path / "b.h5", fields=["vx"])
    with h5(tmp_path / "b.h5") as file:
        assert "u" not in file["train"]
        assert file["train/vx"].shape == (2, STEPS, 8, 8)
    well(tmp_path / "c.h5")  # one of its fields has no more axes than coordinates do
    write(tmp_path / "c.h5", tmp_path / "d.h5", fields=["velocity"], only=1)
    (block,) = open_flows(tmp_path / "d.h5")
    assert block.channels == ("velocity.0", "velocity.1")


def test_an_error_leaves_no_file_and_a_single_frame_needs_a_time_step(tmp_path):
    source = smoke(tmp_path / "a.h5", {"train": 2}, frames=1)
    blocks = open_flows(source)
    given = trajectories(blocks)

    def fail(step_time: float | None) -> None:
        with rollout_file(tmp_path / "b.h5", blocks, given, 1, STEPS, step_time):
            raise UserError("stopped")

    with pytest.raises(UserError, match="stopped"):
        fail(6.0)
    with pytest.raises(UserError, match="has one frame, so the times of its rollout are unknown"):
        fail(None)
    assert list(tmp_path.iterdir()) == [source]


def test_numbers_of_trajectories_stay_with_them(tmp_path):
    """Also those that the layout does not have, so that a rollout can be gone on from."""
    source = smoke(tmp_path / "a.h5", {"train": 3, "test": 2})
    with h5(source, "r+") as file:
        file["train/lift"], file["test/lift"] = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0])
    write(source, tmp_path / "b.h5", only=1)
    with h5(tmp_path / "b.h5") as file:
        assert file["test/lift"][()].tolist() == [5.0]
        assert file["test/buo_y"][()] == pytest.approx([0.1])
        assert "train" not in file
