"""Blocks that must end soon: neither busy for ever, nor waiting for ever."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def soon(what: str, busy_s: float, wall_s: float = 600) -> Iterator[None]:
    """Fail if a block takes too long.

    The failure is no ``Exception``, which the block might catch.

    Args:
        what: What is tried, for the message.
        busy_s: Most seconds of the processor's time, which a busy machine does not lengthen.
        wall_s: Most seconds by the clock: a block that waits takes no processor.
    """

    def stop(number: int, _: object) -> None:
        busy = number == signal.SIGPROF
        kind, limit = ("of the processor's time", busy_s) if busy else ("by the clock", wall_s)
        pytest.fail(f"{what}: more than {limit:g} seconds {kind}")

    before = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, busy_s)
    signal.setitimer(signal.ITIMER_REAL, wall_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
