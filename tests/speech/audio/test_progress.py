"""Progress is shown from two seconds on, on terminals and in logs."""

import io
import threading

import pytest
import torch
from rich.console import Console

from sixfold.speech.audio import progress


def test_a_long_run_prints_its_progress_to_a_log(monkeypatch, capsys):
    ticks = iter(range(0, 1000, 3))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(ticks))
    blocks = [torch.zeros(1, 100)] * 10
    passed = list(progress._with_lines(blocks, 1000, "enhancing"))
    assert len(passed) == 10
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "enhancing: 10 %, 27 s left",
        "enhancing: 50 %, 15 s left",
        "enhancing: 90 %, 3 s left",
    ]


def test_a_short_run_prints_no_progress(capsys):
    list(progress._with_lines([torch.zeros(1, 100)] * 10, 1000, "enhancing"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("delay", [0.0, 60.0], ids=["long", "short"])
def test_a_long_run_shows_a_progress_bar_on_a_terminal(monkeypatch, delay):
    timer = threading.Timer
    monkeypatch.setattr(progress.threading, "Timer", lambda _, start: timer(delay, start))
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    bar = progress._with_bar([torch.zeros(1, 100)] * 4, 400, "separating", console)
    next(bar)
    if delay == 0:
        for thread in threading.enumerate():
            if isinstance(thread, timer):
                thread.join()
    list(bar)
    assert ("100%" in screen.getvalue()) == (delay == 0)
    assert ("separating" in screen.getvalue()) == (delay == 0)
