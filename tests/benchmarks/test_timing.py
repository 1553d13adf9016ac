"""How benchmarks time and report: turns, medians, the page."""

import time

import pytest
import torch
from timing import compare, machine, write_benchmark


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for what a call adds to it."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def takes(*seconds):
        durations = iter(seconds)
        return lambda: now.__setitem__(0, now[0] + next(durations))

    return takes


def test_alternatives_take_turns_and_warm_up():
    calls: list[str] = []
    compare({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, warmup=2)
    assert calls == ["a", "b"] * 5


def test_a_speedup_is_the_median_over_rounds(clock):
    slow, fast = clock(3, 30, 300), clock(1, 15, 100)  # ratios 3, 2, 3 while the machine slows down
    rows = compare({"slow": slow, "fast": fast}, repeats=3, warmup=0)
    assert [row.name for row in rows] == ["slow", "fast"]
    assert [row.median_s for row in rows] == pytest.approx([30, 15])
    assert [row.speedup for row in rows] == pytest.approx([1, 3])


def test_a_benchmark_page_says_how_to_get_its_numbers_again(tmp_path):
    page = tmp_path / "results" / "add.md"
    rows = [{"alternative": "a|b", "ms": 1.23456, "speedup": None}]
    write_benchmark(page, "Adding", "python benchmarks/add.py", rows, note="One thread.")
    text = page.read_text()
    assert text.startswith("# Adding\n\nMachine: ")
    assert machine() in text
    assert f"threads: {torch.get_num_threads()}. Command: `python benchmarks/add.py`." in text
    assert "| a\\|b | 1.235 | not measured |" in text
