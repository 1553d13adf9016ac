"""Measure a model: parameters, multiply-adds, time and memory; compare alternatives fairly.

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
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sixfold.core.pipeline.report import markdown_table, write_text


class Parameters(NamedTuple):
    """Numbers in a model; a tied one counts once, buffers do not count."""

    count: int
    trainable: int


class Latency(NamedTuple):
    """Seconds of one call, and the threads that it ran with."""

    median_s: float
    min_s: float
    threads: int


class Comparison(NamedTuple):
    """One alternative beside the first: ``speedup`` is the median over rounds of first / this."""

    name: str
    median_s: float
    min_s: float
    speedup: float


def parameters(model: nn.Module) -> Parameters:
    """Count the parameters of a model."""
    every = list(model.parameters())
    return Parameters(
        sum(p.numel() for p in every), sum(p.numel() for p in every if p.requires_grad)
    )


def macs(model: nn.Module, *inputs: Any) -> int:
    """Count the multiply-adds of one forward pass in eval mode.

    Counts matrix products, convolutions and attention, as papers do; not FFTs and element-wise
    arithmetic.
    """
    training = model.training
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.eval()(*inputs)
    finally:
        model.train(training)
    return counter.get_total_flops() // 2


def latency(fn: Callable[[], Any], repeats: int = 20, warmup: int = 3) -> Latency:
    """Time a call; on CUDA until the device has finished."""
    seconds = _rounds([fn], repeats, warmup)[0]
    return Latency(statistics.median(seconds), min(seconds), torch.get_num_threads())


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


def peak_memory(fn: Callable[[], Any], device: str = "cpu") -> int:
    """Return the most bytes of tensors that a call held at once, above what was there before.

    On a CPU this is what torch's allocator hands out; scratch of other libraries is not seen.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        fn()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True, acc_events=True) as profile:
        result = fn()
    del result  # kept until here, so that its release is no event of the call
    held = peak = 0
    profiler: Any = profile.profiler
    for event in profiler.kineto_results.events():  # in the order of time
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


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
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")


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
