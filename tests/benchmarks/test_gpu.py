"""The GPU script: every system has its rows, and a part that fails does not stop the next."""

import os
import subprocess
import sys
from importlib.metadata import distributions, entry_points
from pathlib import Path

import gpu_packages
import pytest
import systems_gpu
from kernel_tests_gpu import Table

from sixfold.core.system import domains

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = {f"{name}/{s.name}": s for name, module in domains().items() for s in module.SYSTEMS}
STAND_IN = """#!/usr/bin/env bash
case "$*" in
  *kernels_gpu.py*) exit 3 ;;
  *systems_gpu.py*) touch "${@: -1}/systems.md" ;;
esac
"""


def test_a_system_without_a_case_is_named_with_the_reason():
    known = next(iter(systems_gpu.CASES))
    rows = systems_gpu.plan({"wireless/new": SYSTEMS[known]})
    assert len(rows) == 4
    assert {row["note"] for row in rows.values()} == {systems_gpu.NO_CASE}
    assert all(row["time, ms"] is None and row["equal"] is None for row in rows.values())


def test_a_system_that_fails_leaves_the_others_their_rows(monkeypatch):
    path = "speech/tf_transformer"
    broken = systems_gpu.Case(lambda *_: {}, lambda m, b: b["gone"], lambda m, b: b["gone"])
    monkeypatch.setitem(systems_gpu.CASES, "speech/frcrn", broken)
    systems = {"speech/frcrn": SYSTEMS[path], path: SYSTEMS[path]}
    written: list[int] = []
    rows = systems_gpu.plan(systems)
    failed = systems_gpu.measure_all(rows, systems, "cpu", lambda: written.append(1), rehearse=True)
    assert failed == 4
    assert len(written) == len(rows) == 8
    notes = [row["note"] for row in rows.values()]
    assert notes == ["KeyError: 'gone'"] * 4 + [systems_gpu.NO_GPU] * 4


def test_entry_points_are_found_as_after_an_installation(tmp_path):
    projects = [ROOT / "kernels", *sorted((ROOT / "packages").glob("*/"))]
    gpu_packages.write_entry_points(tmp_path, projects)
    points = [p for d in distributions(path=[str(tmp_path)]) for p in d.entry_points]
    assert points
    found = {(point.name, point.value) for point in points}
    assert found >= {(p.name, p.value) for p in entry_points(group="sixfold.domains")}


def test_tests_that_did_not_run_are_counted(tmp_path):
    table = Table(tmp_path / "page.md", "command")
    table.collected = {"tests/test_a.py::one", "tests/test_a.py::two", "tests/test_b.py::three"}
    table.outcomes = {"tests/test_a.py::one": "passed", "tests/test_b.py::three": "failed"}
    table.failures = {"tests/test_b.py::three": "assert 1 < 0"}
    table.write()
    text = (tmp_path / "page.md").read_text()
    assert "- failed: `tests/test_b.py::three`: assert 1 < 0" in text
    assert "| tests/test_a.py | 1 | 0 | 0 | 1 |" in text
    assert "| tests/test_b.py | 0 | 1 | 0 | 0 |" in text


def test_a_part_that_fails_does_not_stop_the_next(tmp_path):
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text(STAND_IN)
    python.chmod(0o755)
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    command = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), "--rehearse", "tables"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    parts = (tmp_path / "tables" / "parts.md").read_text().splitlines()[4:]
    assert [line.split(" | ")[0].strip("| ") for line in parts] == [
        "kernel_tests_gpu",
        "kernels_gpu",
        "systems_gpu",
    ]
    ends = [line.split(" | ")[-1].strip("| ") for line in parts]
    assert ends == ["well", "failed, exit status 3", "well"]
    assert (tmp_path / "tables" / "systems.md").exists()


@pytest.mark.slow
def test_every_system_is_rehearsed(tmp_path):
    script = ROOT / "benchmarks" / "systems_gpu.py"
    command = [sys.executable, str(script), "--rehearse", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "systems.md").read_text()
    assert all(text.count(f"| {path} |") == 4 for path in SYSTEMS)
    assert systems_gpu.NO_CASE not in text
    assert systems_gpu.CUT not in text
