"""Processes whose descendants can be found, and calls in forked processes."""

import contextlib
import io
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Self

from sixfold.core import UserError


class Marked:
    """A process in a session of its own; a mark in their environment tells its descendants.

    As a context it ends all of them.
    """

    def __init__(self, command: list[str], folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.log = folder / f"{self.mark}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | {"FAULT_MARK": self.mark},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_heed_signals,
            )

    def family(self) -> list[int]:
        """List the living processes with the mark."""
        wanted, found = f"FAULT_MARK={self.mark}".encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found

    def gone(self, seconds: float = 120) -> bool:
        """Wait until no process of the family is left."""
        return wait_for(lambda: self.process.poll() is not None and not self.family(), seconds)

    def signal(self, *numbers: int) -> None:
        """Send signals to the process group, as a terminal does."""
        for number in numbers:
            os.killpg(self.process.pid, number)
            time.sleep(0.05)

    def end(self) -> None:
        """Kill the family."""
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def text(self) -> str:
        """What it printed."""
        return self.log.read_text(errors="replace")

    @property
    def tracebacks(self) -> list[str]:
        """Lines that no user should see."""
        words = ("Traceback", "Exception ignored", "Error:", "panicked")
        return [line for line in self.text.splitlines() if any(word in line for word in words)]


def _heed_signals() -> None:
    """Undo what `nohup` and ``&`` ignore, so that the suite may run under them."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def wait_for(holds: Callable[[], object], seconds: float = 300) -> bool:
    """Wait until something holds; return whether it did in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.05)
    return False


def together(*calls: Callable[[], object], seconds: float = 300) -> list[str]:
    """Make calls at once, each in a forked process; return how each ended.

    Returns:
        For each ``done``, ``UserError: ...``, another exception's name and text, or ``hangs``.
    """
    pipes = [_forked(call) for call in calls]
    ends = []
    for pid, pipe in pipes:
        finished = wait_for(lambda pid=pid: os.waitpid(pid, os.WNOHANG)[0], seconds)
        if not finished:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        with os.fdopen(pipe, errors="replace") as stream:
            text = stream.read() if finished else "hangs"
        ends.append(text or "killed")
    return ends


def _forked(call: Callable[[], object]) -> tuple[int, int]:
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            call()
        text = "done"
    except UserError as error:
        text = f"UserError: {error}"
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
    os.write(write, text.encode(errors="replace")[:60_000])
    os._exit(0)
