"""The progress of work on a recording: a bar on a terminal, else lines."""

import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from rich.console import Console

_FIRST_S, _NEXT_S = 2.0, 10.0  # shorter work shows nothing


def with_progress(blocks: Iterable[Tensor], total: int, action: str) -> Iterator[Tensor]:
    """Pass blocks (channels, time) on, and show progress after two seconds.

    Args:
        blocks: Results, made while they are read.
        total: Number of samples per channel in all.
        action: What is done, e.g. "enhancing".
    """
    from rich.console import Console

    console = Console()
    if console.is_terminal:
        return _with_bar(blocks, total, action, console)
    return _with_lines(blocks, total, action)


def _with_bar(
    blocks: Iterable[Tensor], total: int, action: str, console: "Console"
) -> Iterator[Tensor]:
    from rich.progress import Progress, TimeElapsedColumn

    progress = Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=console)
    task = progress.add_task(action, total=total)
    timer = threading.Timer(_FIRST_S, progress.start)  # the first block may take longer than that
    timer.start()
    try:
        for block in blocks:
            yield block
            progress.advance(task, block.shape[1])
    finally:
        timer.cancel()
        timer.join()
        progress.stop()


def _with_lines(blocks: Iterable[Tensor], total: int, action: str) -> Iterator[Tensor]:
    started = time.perf_counter()
    done, due = 0, started + _FIRST_S
    for block in blocks:
        yield block
        done, now = done + block.shape[1], time.perf_counter()
        if now > due and 0 < done < total:
            due, left = now + _NEXT_S, (now - started) * (total - done) / done
            print(f"{action}: {100 * done // total} %, {left:.0f} s left", flush=True)
