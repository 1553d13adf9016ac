"""Two gloo processes under torchrun against one process on the same global batches."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sixfold.core.config import UserError
from sixfold.core.training.distributed import share
from sixfold.core.training.run import Run

SCRIPT = Path(__file__).parents[1] / "support" / "torchrun_workers.py"
spec = importlib.util.spec_from_file_location("ranks", SCRIPT)
assert spec is not None
assert spec.loader is not None
ranks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ranks)
NAMES = [training.__name__ for training in ranks.TRAININGS]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The run folders of two processes: one start of torchrun for all tests."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(SCRIPT), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-5000:]
    (folder / "log").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    for training in ranks.TRAININGS:
        training(folder)
    return folder


def final(folder):
    (last,) = (folder / "ckpt").glob("step-*")
    return last


def curve(folder):
    header, *rows = [row.split(",") for row in (folder / "curve.csv").read_text().splitlines()]
    return header, [[float(cell or 0) for cell in row] for row in rows]


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_log_what_one_logs(one, two, name):
    (header, alone), (same, together) = curve(one / name), curve(two / name)
    assert header == same
    assert len(alone) == len(together) >= 3
    for a, b in zip(alone, together, strict=True):
        assert b == pytest.approx(a, rel=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "pipeline"])
def test_two_processes_end_with_the_weights_of_one(one, two, name):
    found = 0
    for path in final(one / name).glob("*.safetensors"):
        if path.stem in ("rng", "optim", "optim0", "optim1"):
            continue
        alone, together = load_file(path), load_file(final(two / name) / path.name)
        assert alone.keys() == together.keys()
        for key in alone:
            torch.testing.assert_close(together[key], alone[key], rtol=1e-6, atol=1e-6)
            found += 1
    assert found >= 4


def test_a_pipeline_of_two_ends_with_the_stages_of_one(one, two):
    alone = load_file(final(one / "pipeline") / "stages.safetensors")
    together = load_file(final(two / "pipeline") / "stages.safetensors")
    for whole, part in (("0.weight", 0), ("0.bias", 0), ("2.weight", 1), ("2.bias", 1)):
        torch.testing.assert_close(
            together[f"ranks/{part}/stage/{whole}"],
            alone[f"ranks/0/stage/{whole}"],
            rtol=1e-6,
            atol=1e-6,
        )


def test_sharded_optimiser_state_is_saved_whole(one, two):
    slots = [load_file(final(f / "sharded") / "optim.safetensors") for f in (one, two)]
    assert slots[0].keys() == slots[1].keys()
    assert all(slots[0][key].shape == slots[1][key].shape for key in slots[0])
    name = "slots/model.0.weight/exp_avg"
    torch.testing.assert_close(slots[1][name], slots[0][name], rtol=1e-5, atol=1e-7)


def test_a_signal_to_one_rank_stops_all_with_a_checkpoint(two):
    assert json.loads((two / "found.json").read_text())["stopped"] == [True, False]
    steps = [path.name for path in (two / "stopped" / "ckpt").glob("step-*")]
    assert steps == ["step-00000016"]  # where the ranks next asked each other


def test_a_sharded_run_was_taken_up_from_its_checkpoint(two):
    assert f"resumed: {two / 'sharded'} at step 3" in (two / "log").read_text()


def test_a_run_of_two_goes_on_with_one_and_says_that_it_is_not_the_same(two, capsys):
    with pytest.raises(SystemExit):
        ranks.stopped(two, after=3)
    said = capsys.readouterr().out
    assert "2 processes before, 1 now" in said
    assert f"resumed: {two / 'stopped'} at step 16" in said
    assert (two / "stopped" / "ckpt" / "latest").read_text() == "step-00000019\n"


def test_gathering_keeps_the_order_of_ranks(two):
    assert json.loads((two / "found.json").read_text())["gathered"] == [[0], [1, 1]]


def test_a_run_under_torchrun_without_launch_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="with launch"):
        Run.open(tmp_path / "run", {}, "f")


def test_shares_partition_the_batch_and_stand_ins_do_not_count():
    for length in range(1, 12):
        for world in (1, 2, 4):
            for accumulate in (1, 2, 3):
                cuts = [share(range(length), r, world, accumulate) for r in range(world)]
                counted = [i for rank in cuts for part, n in rank for i in part[:n]]
                assert sorted(counted) == list(range(length))
                assert len({len(rank) for rank in cuts}) == 1
                assert all(part for rank in cuts for part, _ in rank)
