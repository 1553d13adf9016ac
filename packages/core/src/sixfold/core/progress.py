"""Progress of long work besides training: one display for a command, however deep its parts."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SHOW_AFTER_S = 2.0
LINE_EVERY_S = 10.0

_open_bar: Any = None  # of the outermost `progress` of this process, which the inner ones join


@contextmanager
def progress(label: str, total: float) -> Iterator[Callable[[float], None]]:
    """Show how much of some work is done, once it takes longer than two seconds.

    A bar on a terminal, else a line every ten seconds. Inside another one it is a bar below that
    one's.

    Args:
        label: What is done, e.g. the name of a file.
        total: Amount of work, in any unit.

    Yields:
        Function to call with every further amount that is done.
    """
    if sys.stdout.isatty():
        with _bar() as bar:
            task = bar.add_task(label, total=total)
            try:
                yield lambda amount: bar.advance(task, amount)
            finally:
                bar.remove_task(task)
    else:
        yield _lines(label, total)


@contextmanager
def _bar() -> Iterator[Any]:
    global _open_bar
    if _open_bar is not None:
        yield _open_bar
        return
    from rich.progress import Progress, TimeElapsedColumn

    _open_bar = Progress(*Progress.get_default_columns(), TimeElapsedColumn(), transient=True)
    timer = threading.Timer(SHOW_AFTER_S, _open_bar.start)  # the first part may take longer
    timer.daemon = True
    timer.start()
    try:
        yield _open_bar
    finally:
        timer.cancel()
        _open_bar.stop()
        _open_bar = None


def _lines(label: str, total: float) -> Callable[[float], None]:
    began = shown = time.monotonic()
    done = 0.0

    def advance(amount: float) -> None:
        nonlocal done, shown
        done += amount
        now = time.monotonic()
        first = shown == began
        if done < total and now - shown > (SHOW_AFTER_S if first else LINE_EVERY_S):
            shown = now
            left = (now - began) * (total - done) / done if done else None
            text = "begun" if left is None else f"{100 * done / total:.0f} %, {left:.0f} s left"
            print(f"{label}: {text}", flush=True)

    return advance
