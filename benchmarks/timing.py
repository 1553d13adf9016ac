"""Time alternatives fairly, and write the table of a benchmark; used by the scripts beside it.

Times on a shared machine drift, so alternatives are timed in turn in one process (A, B, A, B, ...)
and compared round by round.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sixfold.core.data.atomic import write_atomic
from sixfold.core.pipeline.measure import peak_memory
from sixfold.core.pipeline.page import markdown_table


class Comparison(NamedTuple):
    """One alternative beside the first: ``speedup`` is the median over rounds of first / this."""

    name: str
    median_s: float
    min_s: float
    speedup: float


def compare(
    alternatives: Mapping[str, Callable[[], Any]], repeats: int = 20, warmup: int = 3
) -> list[Comparison]:
    """Time alternatives in turn; the first is what the others are compared with."""
    rounds = _rounds(list(alternatives.values()), repeats, warmup)
    rows = []
    for name, seconds in zip(alternatives, rounds, strict=True):
        ratios = [first / this for first, this in zip(rounds[0], seconds, strict=True)]
        median = statistics.median
        rows.append(Comparison(name, median(seconds), min(seconds), median(ratios)))
    return rows


def against_published(
    what: str,
    calls: Mapping[str, Callable[[], Any]],
    repeats: int,
    asked: str,
    memory_of: Callable[[Callable[[], Any]], int] = peak_memory,
) -> dict[str, Any]:
    """Compare time and memory of two calls, ``published`` and ``sixfold``: a row of a table.

    Args:
        what: What is done.
        calls: The two calls, the published one first.
        repeats: Number of rounds.
        asked: What was asked for.
        memory_of: Function that measures the most bytes that a call holds.
    """
    memory = [memory_of(call) for call in calls.values()]
    plain, ours = compare(calls, repeats, warmup=1)
    found = {
        "what": what,
        "threads": torch.get_num_threads(),
        "published, s": round(plain.median_s, 3),
        "sixfold, s": round(ours.median_s, 3),
        "speed-up": f"{ours.speedup:.2f}x",
        "memory, published": f"{memory[0] / 2**20:.0f} MiB",
        "memory, sixfold": f"{memory[1] / 2**20:.0f} MiB",
        "memory ratio": f"{memory[1] / memory[0]:.2f}x",
        "asked for": asked,
    }
    print(found, flush=True)
    return found


def machine() -> str:
    """Name what a number was measured on: processor, cores, accelerator, torch."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next((ln.partition(": ")[2] for ln in lines if ln.startswith("model name")), model)
    parts = [model, f"{os.cpu_count()} cores"]
    parts += [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join([*parts, f"torch {torch.__version__}"])


def write_benchmark(
    path: Path, title: str, command: str, rows: Sequence[Mapping[str, Any]], note: str = ""
) -> None:
    """Write a table of numbers with what is needed to get them again, as a Markdown page."""
    about = f"Machine: {machine()}; threads: {torch.get_num_threads()}. Command: `{command}`."
    parts = [f"# {title}", about, note, markdown_table(rows, list(rows[0]))]
    write_atomic(path, "\n\n".join(part for part in parts if part) + "\n")


def error_line(error: Exception) -> str:
    """Return the kind and the first line of an error, for a row that could not be measured."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _rounds(calls: list[Callable[[], Any]], repeats: int, warmup: int) -> list[list[float]]:
    """Seconds of each call in each round; the calls take turns."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(warmup + repeats):
        for call, times in zip(calls, seconds, strict=True):
            _finish()
            start = time.perf_counter()
            call()
            _finish()
            if turn >= warmup:
                times.append(time.perf_counter() - start)
    return seconds


def _finish() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
