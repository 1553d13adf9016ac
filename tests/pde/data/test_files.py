"""Flows are read from files of every layout as they were written, and no more than is asked for."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from flow_files import compressible, h5, incompressible, noise, reaction, smoke, well

from sixfold.core import UserError
from sixfold.pde.data.files import open_file, pieces, read, time_step, times, trajectories
from sixfold.pde.data.layouts import open_flows


def everything(path: Path, **options) -> list[torch.Tensor]:
    found = trajectories(open_flows(path, **options))
    return [read(one, 0, one.frames) for one in found]


def bytes_read() -> int:
    text = Path("/proc/self/io").read_text()
    return int(text.split("rchar:")[1].split()[0])


def test_smoke_is_read_by_group_with_each_shards_own_number(tmp_path):
    """The released loader takes the first shard's number for all, and splits by file name."""
    smoke(tmp_path / "a_train_h5", {"train": 9})  # no ending, so no file of the set
    first = smoke(tmp_path / "valid_1.h5", {"train": 3})
    second = smoke(tmp_path / "train_2.h5", {"train": 1, "valid": 2, "test": 1})
    blocks = open_flows(tmp_path)
    found = {(block.file, block.split): block.trajectories for block in blocks}
    assert found == {
        (first, "train"): 3, (second, "train"): 1, (second, "valid"): 2, (second, "test"): 1,
    }  # fmt: skip
    assert blocks[0].channels == ("u", "vx", "vy")
    last = trajectories([b for b in blocks if b.split == "valid"])[1]
    with h5(second) as file:
        expected = np.stack([file["valid"][name][1] for name in ("u", "vx", "vy")], 1)
    assert np.array_equal(read(last, 0, 6), expected)
    assert np.array_equal(read(last, 2, 4), expected[2:4])
    assert time_step(last) == 6.0


def test_components_stored_last_are_found_and_a_slice_reads_no_more(tmp_path):
    path = incompressible(tmp_path / "ns.h5", frames=100, side=32)
    one = trajectories(open_flows(path))[1]
    assert one.block.channels == ("particles.0", "velocity.0", "velocity.1")
    open_flows(path)
    before = bytes_read()
    found = read(one, 40, 60)
    taken = bytes_read() - before
    with h5(path) as file:
        assert np.array_equal(found[:, 1:], np.moveaxis(file["velocity"][1, 40:60], -1, 1))
        assert np.array_equal(found[:, 0], file["particles"][1, 40:60, ..., 0])
    assert taken < 1.3 * found.numel() * 4, "more than these frames was read"
    found_times = times(one)
    assert found_times is not None
    assert np.allclose(found_times, 0.005 * np.arange(100))


def test_the_compressible_file_of_pdebench_is_read(tmp_path):
    path = compressible(tmp_path / "cfd.h5")
    one = trajectories(open_flows(path))[2]
    assert one.block.channels == ("density", "pressure", "Vx", "Vy")
    assert one.block.sides == (8, 10)
    with h5(path) as file:
        assert np.array_equal(read(one, 1, 3)[:, 3], file["Vy"][2, 1:3])
    assert time_step(one) == pytest.approx(0.05)


def test_a_group_a_trajectory_is_read(tmp_path):
    found = trajectories(open_flows(reaction(tmp_path / "reaction.h5")))
    assert len(found) == 3
    assert found[0].frames == 101
    assert found[1].block.channels == ("data.0", "data.1")
    with h5(tmp_path / "reaction.h5") as file:
        expected = np.moveaxis(file["0001/data"][5:9], -1, 1)
    assert np.array_equal(read(found[1], 5, 9), expected)


def test_sinenets_compressible_and_shallow_water_files_are_read(tmp_path):
    with h5(tmp_path / "cns.h5", "w") as file:
        for seed in ("seed_0", "seed_1"):
            for name in ("D", "P", "Vx", "Vy"):
                file[f"valid/{seed}/{name}"] = noise(2, 21, 8, 8, 1)
    with h5(tmp_path / "swe.h5", "w") as file:
        file["u"], file["v"] = noise(2, 88, 1, 6, 12), noise(2, 88, 1, 6, 12)
        file["pres"] = noise(2, 88, 6, 12)
        velocity = file["v"][1, 4::8, 0]
    blocks = open_flows(tmp_path / "cns.h5")
    assert [(block.split, block.trajectories) for block in blocks] == [("valid", 2), ("valid", 2)]
    assert read(trajectories(blocks)[3], 0, 21).shape == (21, 4, 8, 8)
    one = trajectories(open_flows(tmp_path / "swe.h5"), first=4, every=8)[1]
    assert one.frames == 11  # the published two-day steps
    assert one.block.channels == ("pres", "u", "v")
    assert np.array_equal(read(one, 0, 11)[:, 2], velocity)


def test_the_well_is_broadcast_and_says_its_padding(tmp_path):
    path = well(tmp_path / "train" / "shear.hdf5")
    one = trajectories(open_flows(tmp_path))[1]
    block = one.block
    assert block.channels == ("pressure", "mask", "height", "velocity.0", "velocity.1")
    assert block.padding == ("zeros", "circular")
    assert block.split == "train"
    found = read(one, 1, 4)
    with h5(path) as file:
        assert np.array_equal(found[:, 0], file["t0_fields/pressure"][1, 1:4])
        mask, height = file["t0_fields/mask"][1], file["t0_fields/height"][1]
        assert np.array_equal(found[:, 3:], np.moveaxis(file["t1_fields/velocity"][1, 1:4], -1, 1))
    assert all(np.array_equal(frame, mask) for frame in found[:, 1])
    assert all(np.array_equal(frame, height[:, None].repeat(6, 1)) for frame in found[:, 2])
    assert time_step(one) == 0.5


def test_endings_in_capitals_are_found(tmp_path):
    smoke(tmp_path / "A.H5", {"train": 1})
    smoke(tmp_path / "b.hdf5", {"train": 2})
    assert len(trajectories(open_flows(tmp_path))) == 3


@pytest.mark.parametrize(("axes", "order"), [("yxct", (3, 2, 1, 0)), ("ctxy", (1, 0, 2, 3))])
def test_any_order_of_axes_is_read(tmp_path, axes, order):
    """The datasets hold (time, component, x, y) in another order."""
    values = noise(4, 2, 6, 8)
    with h5(tmp_path / "own.h5", "w") as file:
        file["flow"] = values.transpose(order)
        file["depth"] = np.ascontiguousarray(values.transpose(order)).take(0, axes.index("c"))
    (found,) = everything(tmp_path / "own.h5", fields=["depth", "flow"], axes=axes)
    assert np.array_equal(found[:, 1:], values)
    assert np.array_equal(found[:, 0], values[:, 0])


def test_fields_of_a_known_layout_are_chosen_in_any_order(tmp_path):
    path = smoke(tmp_path / "a.h5", {"train": 1})
    (all_of_them,), (two,) = everything(path), everything(path, fields=["vy", "u"])
    assert torch.equal(two, all_of_them[:, [2, 0]])


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_every_kind_of_number_becomes_single_precision(tmp_path, dtype):
    values = (10 * noise(1, 3, 4, 4)).astype(dtype)
    with h5(tmp_path / "a.h5", "w") as file:
        file["a"] = values
    (found,) = everything(tmp_path / "a.h5", fields=["a"], axes="ntxy")
    assert found.dtype == torch.float32
    assert np.array_equal(found[:, 0], values[0].astype(np.float32))


def test_a_trajectory_is_gone_through_in_bounded_pieces(tmp_path, monkeypatch):
    path = incompressible(tmp_path / "ns.h5", frames=10)
    one = trajectories(open_flows(path))[0]
    monkeypatch.setattr("sixfold.pde.data.files.PIECE", 3 * 4 * 3 * 16 * 16)
    parts = list(pieces(one))
    assert [len(part) for part in parts] == [3, 3, 3, 1]
    assert torch.equal(torch.cat(parts), read(one, 0, 10))


def test_what_is_not_finite_is_counted_and_named(tmp_path):
    path = smoke(tmp_path / "a.h5", {"train": 2})
    with h5(path, "r+") as file:
        file["train/vx"][1, 3, 2:4, 5] = np.nan
    one = trajectories(open_flows(path))[1]
    read(one, 0, 3)
    with pytest.raises(UserError, match=r"trajectory 1: vx holds 2 values .* frame 3 at \(2, 5\)"):
        read(one, 2, 5)
    with h5(tmp_path / "b.h5", "w") as file:
        file["a"] = np.full((1, 2, 4, 4), 1e300)
    with pytest.raises(UserError, match="32 values that are not finite in single precision"):
        everything(tmp_path / "b.h5", fields=["a"], axes="ntxy")


def broken(path: Path, change) -> Path:
    smoke(path, {"train": 2})
    with h5(path, "r+") as file:
        change(file)
    return path


def replaced(file, name: str, values: np.ndarray) -> None:
    del file[name]
    file[name] = values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("train/vy"), r"looks like PDEArena but lacks train/vy; .*--fields u,vx"),
        (lambda f: replaced(f, "train/vy", noise(2, 6, 8, 9)), "train/vy has 9 points along y, tr"),
        (lambda f: replaced(f, "train/vy", noise(3, 6, 8, 8)), "has 3 trajectories, train/u 2"),
        (lambda f: replaced(f, "train/vx", noise(2, 6, 8)), r"3 axes \(2, 6, 8\), not 4 \(ntxy\)"),
        (lambda f: replaced(f, "train/vx", noise(2, 6, 8, 8) + 1j), "holds complex64; give real"),
        (lambda f: replaced(f, "train/t", np.zeros((2, 5))), "train/t has 5 frames, train/u 6"),
        (lambda f: replaced(f, "train/x", np.zeros((2, 12))), "12 points along x, train/u 8"),
        (lambda f: f.pop("train"), "is in no layout of PDEArena.*it holds no dataset; name"),
    ],
)
def test_files_that_contradict_themselves_are_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        open_flows(broken(tmp_path / "a.h5", change))


def test_101_steps_where_the_text_says_100(tmp_path):
    path = reaction(tmp_path / "a.h5", count=1)
    with h5(path, "r+") as file:
        replaced(file, "0000/grid/t", np.arange(100.0))
    with pytest.raises(UserError, match=r"grid/t has 100 frames, 0000/data 101"):
        open_flows(path)


def test_an_empty_split_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no trajectory in train/u: the split is empty"):
        open_flows(smoke(tmp_path / "a.h5", {"train": 0}))


def test_files_that_cannot_be_read_are_refused(tmp_path):
    path = compressible(tmp_path / "a.h5")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UserError, match=r"a.h5 is no HDF5 file, or is damaged.*truncated"):
        open_flows(path)
    path.write_text("text")
    with pytest.raises(UserError, match="file signature not found"):
        open_flows(path)
    with pytest.raises(UserError, match="there is no file or folder"):
        open_flows(tmp_path / "b.h5")
    path.unlink()
    with pytest.raises(UserError, match=r"holds no file of these kinds: .h5, .hdf5"):
        open_flows(tmp_path)


def test_files_of_other_fields_or_grids_do_not_mix(tmp_path):
    smoke(tmp_path / "a.h5", {"train": 1})
    smoke(tmp_path / "b.h5", {"train": 1}, sides=(8, 16))
    with pytest.raises(UserError, match=r"b.h5 holds u, vx, vy on \(8, 16\) .* on \(8, 8\)"):
        open_flows(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axes": "ntxy"}, "--axes ntxy needs --fields"),
        ({"axes": "nttx", "fields": ["train/u"]}, "should name each axis once"),
        ({"axes": "ntxq", "fields": ["train/u"]}, "should name each axis once"),
        (
            {"axes": "ntxy", "fields": ["train"]},
            "train is a group of buo_y, dt, .*; name a dataset",
        ),
        ({"axes": "ntxy", "fields": ["train/w"]}, "no dataset 'train/w' for --fields"),
        ({"fields": ["w"]}, "has no field 'w' for --fields; it has: u, vx, vy"),
    ],
)
def test_names_that_are_not_there_are_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        open_flows(smoke(tmp_path / "a.h5", {"train": 1}), **options)
    one = open_flows(tmp_path / "a.h5")
    with pytest.raises(UserError, match="has 6 frames, but --first is 6"):
        trajectories(one, first=6)
    for first, every in ((-1, 1), (0, 0), (3, -1)):
        with pytest.raises(UserError, match=f"--first {first} --every {every} names no frames"):
            trajectories(one, first, every)


def test_a_damaged_index_is_named(tmp_path):
    path = smoke(tmp_path / "a.h5", {"train": 2})
    content = bytearray(path.read_bytes())
    for mark in (b"HEAP", b"SNOD", b"TREE"):
        (tmp_path / "b.h5").write_bytes(bytes(content).replace(mark, b"XXXX"))
        with pytest.raises(UserError, match=r"b\.h5 is no HDF5 file, or is damaged"):
            open_flows(tmp_path / "b.h5")


@pytest.mark.parametrize("error", [TypeError, KeyError, ValueError, OSError])
def test_an_error_of_our_own_is_not_taken_for_damage(tmp_path, error):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["u"] = np.zeros(4)
    with pytest.raises(error, match="ours"), open_file(tmp_path / "a.h5"):
        raise error("ours")
    with pytest.raises(UserError, match=r"a\.h5 is no HDF5 file, or is damaged"):  # noqa: SIM117
        with open_file(tmp_path / "a.h5") as file:
            file["v"]
