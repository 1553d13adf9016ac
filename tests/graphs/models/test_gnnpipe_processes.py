"""GNNPipe on 1 to 4 processes over gloo: equal numbers, bytes as by formula, lost ranks.

gnnpipe_workers.py starts all processes once; the tests read the results.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchrun_gnnpipe
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent
ROOT = Path(os.environ.get("SIXFOLD_GOLDEN", HERE.parents[3] / "shared" / "golden"))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    command = [
        sys.executable,
        str(HERE.parent / "support" / "gnnpipe_workers.py"),
        str(folder),
        str(ROOT),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    (folder / "log").write_text(done.stdout + done.stderr)
    return folder


def test_fit_joins_the_processes_that_torchrun_started(tmp_path):
    """Twice in one script; other work in one process alone, with the same numbers."""
    script = HERE.parent / "support" / "torchrun_gnnpipe.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(script), str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    alone = torchrun_gnnpipe.fits()
    for one in (first, second):
        assert [sent["layer"] > 0 for _, sent in one] == [True, True]
        for (logits, _), (expected, _) in zip(one, alone, strict=True):
            assert torch.equal(logits, expected)


def found(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the results of each process of a job; fail if a process failed."""
    files = sorted(folder.glob(f"{name}-*.pt"))
    assert len(files) == int(name[-1]), (folder / "log").read_text()
    return [torch.load(file, weights_only=False) for file in files]


def assert_same(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> None:
    """Compare losses, scores, weights and logits of two trainings."""
    for a, b in zip(one["history"], other["history"], strict=True):
        assert a.keys() == b.keys()
        torch.testing.assert_close(list(a.values()), list(b.values()), rtol=tolerance, atol=0)
    for key in ("state", "logits"):
        torch.testing.assert_close(one[key], other[key], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["pipe2", "pipe3", "pipe4"])
def test_the_number_of_stages_changes_no_bit(ranks, name):
    (alone,) = found(ranks, "pipe1")
    for process in found(ranks, name):
        assert_same(process, alone, 0)


@pytest.mark.parametrize("name", ["ways2", "ways4"])
def test_ways_of_several_processes_compute_what_one_process_does(ranks, name):
    (alone,) = found(ranks, "ways1")
    for process in found(ranks, name):
        assert_same(process, alone, 1e-11)


def test_a_chunk_for_each_way_is_full_batch_training(ranks):
    (whole,), (alone,) = found(ranks, "batch1"), found(ranks, "exact1")
    assert_same(alone, whole, 1e-10)
    for process in found(ranks, "exact4"):
        assert_same(process, whole, 1e-10)


@pytest.mark.parametrize(
    "name", ["pipe1", "pipe2", "pipe3", "pipe4", "ways1", "ways2", "ways4", "exact4"]
)
def test_the_bytes_sent_are_those_of_the_formulas(ranks, name):
    for process in found(ranks, name):
        assert process["sent"] == process["expected"]


def test_the_bytes_are_the_papers(ranks):
    """GCNII of 60 nodes and width 6 in float64: h0 is sent too; W = 1 has no other traffic."""
    for stages in (2, 3, 4):
        sent = found(ranks, f"pipe{stages}")[0]["sent"]
        assert sent == {"layer": 2 * 2 * (stages - 1) * 60 * 6 * 8, "graph": 0, "weight": 0}
    hybrid, graph_parallel = found(ranks, "ways4")[0], found(ranks, "ways2")[0]
    parameters = sum(value.numel() for value in hybrid["state"].values())
    assert hybrid["sent"]["weight"] == 2 * parameters * 8
    assert hybrid["sent"]["layer"] == 2 * 60 * 6 * 8
    assert hybrid["sent"]["graph"] == graph_parallel["sent"]["graph"] > 0
    assert graph_parallel["sent"]["layer"] == 0


@pytest.mark.skipif(not ROOT.is_dir(), reason=f"no golden cases: {ROOT} does not exist")
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_golden_on_several_stages(ranks, processes):
    stages = found(ranks, f"golden{processes}")
    assert all(stage.keys() == stages[0].keys() for stage in stages)
    for key in stages[0]:
        folder, _, part = key.partition("|")
        given = load_file(Path(folder) / "io.safetensors")
        expected = {k.removeprefix(f"{part}/"): v for k, v in given.items() if k.startswith(part)}
        merged = {k: v for stage in stages for k, v in stage[key].items()}
        assert merged.keys() == expected.keys()
        torch.testing.assert_close(merged, expected, rtol=1e-9, atol=1e-9)


def test_a_lost_process_ends_the_others_with_a_clear_error(ranks):
    (survivor,) = [torch.load(file) for file in ranks.glob("killed-*.pt")]
    assert survivor["error"].startswith("rank 0 lost its connection with rank 1")
    assert "start the same command again with the same folder" in survivor["error"]
    assert survivor["seconds"] < 30


@pytest.mark.parametrize("name", ["resumed2", "resumed3"])
def test_a_run_resumes_bit_for_bit_also_on_more_stages(ranks, name):
    whole = found(ranks, "whole2")[0]
    for process in found(ranks, name):
        assert [row["epoch"] for row in process["history"]] == [4, 5, 6]
        assert_same(process, whole | {"history": whole["history"][3:]}, 0)
