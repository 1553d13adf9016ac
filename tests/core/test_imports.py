"""Importing is cheap: a domain costs little more than torch, and core loads no heavy library."""

import importlib.util
import os
import re
import statistics
import subprocess
import sys

import pytest

HEAVY = {"lightning", "lightning_fabric", "matplotlib", "pandas", "torchvision", "triton"}


def cpu_seconds(module: str) -> float:
    """Import in a fresh process; time on the CPU says the same whatever else the machine does."""
    before = os.times()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    after = os.times()
    return sum(getattr(after, k) - getattr(before, k) for k in ("children_user", "children_system"))


@pytest.mark.skipif(
    not importlib.util.find_spec("sixfold.speech"), reason="core alone is installed"
)
def test_a_domain_imports_in_at_most_one_and_a_half_times_the_time_of_torch():
    rounds = [(cpu_seconds("torch"), cpu_seconds("sixfold.speech")) for _ in range(3)]
    alone, domain = map(statistics.median, zip(*rounds, strict=True))
    assert domain <= 1.5 * alone


def imported(statement: str) -> set[str]:
    """Return the top-level packages that a fresh process imports."""
    command = [sys.executable, "-X", "importtime", "-c", statement]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stderr.splitlines()
    names = [re.fullmatch(r"import time: +\d+ \| +\d+ \| +(\w+)[\w.]*", line) for line in lines]
    return {name[1] for name in names if name}


def test_core_imports_nothing_heavy():
    found = imported("from sixfold.core import Config, System, from_pretrained")
    assert {"sixfold", "torch"} <= found
    assert not found & HEAVY


def test_the_help_of_the_command_needs_no_torch():
    pytest.importorskip("cyclopts", reason="comes with sixfold-core[pipeline]")
    found = imported("from sixfold.core.cli import build_app; build_app()")
    assert "cyclopts" in found
    assert not found & (HEAVY | {"torch", "numpy"})


def test_the_list_of_imports_is_complete():
    assert "json" in imported("import json.decoder")
