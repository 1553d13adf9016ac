"""Run jobs side by side, each in a process of its own that ends when its parent does.

Processes are forked, because each would need seconds to import PyTorch anew.
"""

import io
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from sixfold.core.config import UserError


def max_workers(jobs: int, threads: int | None) -> int:
    """Return how many jobs of so many threads this machine runs at once; None is all threads.

    One where there is a GPU, which jobs would have to share.
    """
    if threads is None or torch.cuda.is_available():
        return 1
    return max(1, min(jobs, len(os.sched_getaffinity(0)) // threads))


def run_parallel(function: Callable[..., object], jobs: Mapping[str, tuple], at_once: int) -> None:
    """Call a function with each job's arguments; what it prints is led by the job's name.

    However this process ends, the jobs are asked to end by SIGTERM, and end.

    Args:
        function: Called in one of the new processes, each of which does one job after the other.
        jobs: Arguments by name.
        at_once: Processes.

    Raises:
        SystemExit: a job failed, and said why, or this process was asked to end.
    """
    context = multiprocessing.get_context("fork")
    waiting = context.SimpleQueue()
    for name in [*jobs, *[None] * at_once]:
        waiting.put(name)
    running: dict[int, BaseProcess] = {}
    before = signal.signal(signal.SIGTERM, _end)
    try:
        for _ in range(at_once):
            process = context.Process(target=_work, args=(function, jobs, waiting))
            # One that is asked to end as soon as it is forked would unwind the stack of its parent.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
            running[process.sentinel] = process
        while running:
            for sentinel in connection.wait(list(running)):
                process = running.pop(sentinel)  # type: ignore[arg-type]
                process.join()
                if process.exitcode:
                    raise SystemExit(abs(process.exitcode))
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join()
        signal.signal(signal.SIGTERM, before)


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _work(function: Callable[..., object], jobs: Mapping[str, tuple], waiting: Any) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os.setsid()  # Ctrl-C is the parent's to answer, or a job would be told twice
    torch.set_num_threads(1)  # until the job says otherwise: the parent's threads were not forked
    threading.Thread(target=_end_with_parent, daemon=True).start()
    out = sys.stdout
    while (name := waiting.get()) is not None:
        try:
            with redirect_stdout(_Led(name, out)):
                function(*jobs[name])
        except (UserError, OSError) as error:
            print(f"sixfold: {name}: {error}", file=sys.stderr)
            sys.exit(2)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


class _Led(io.TextIOBase):
    """Writes lines, each led by a name, and is no terminal: bars would write over each other."""

    def __init__(self, name: str, out: io.TextIOBase | object) -> None:
        self.name, self.out, self.begun = name, out, ""

    def write(self, text: str) -> int:
        *lines, self.begun = (self.begun + text).split("\n")
        for line in lines:
            self.out.write(f"{self.name}: {line}\n")  # type: ignore[attr-defined]
        self.out.flush()  # type: ignore[attr-defined]
        return len(text)
