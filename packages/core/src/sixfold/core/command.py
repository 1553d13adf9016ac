"""The door of the command ``sixfold``: signals and streams, set up before anything is imported.

However it is stopped it says so in one line, leaves no temporary file and no traceback: Ctrl-C ends
with 130, SIGTERM with 143, a closed pipe quietly with 141. The second Ctrl-C ends it at once.
"""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CACHES = ("MPLCONFIGDIR", "NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")


class _Stop:
    """What happens on a signal: the first one unwinds, the next ends the process."""

    def __init__(self) -> None:
        self.process, self.number, self.leaving = os.getpid(), 0, False
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and `&` ask for
                signal.signal(number, self.on_signal)
        sys.unraisablehook = self.on_unraisable

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a worker, which has nothing to say
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if self.number or self.leaving or _is_importing(frame):
            self.say()
            self.tidy()
            os._exit(128 + number)
        self.number = number
        self.unwind()

    def unwind(self, *_: object) -> None:
        raise KeyboardInterrupt if self.number == signal.SIGINT else SystemExit(128 + self.number)

    def on_unraisable(self, problem: Any) -> None:
        """Try again a little later where Python cannot raise, such as in a finaliser."""
        if not self.number or not issubclass(problem.exc_type, KeyboardInterrupt | SystemExit):
            sys.__unraisablehook__(problem)
        elif not self.leaving:
            signal.signal(signal.SIGALRM, self.unwind)
            signal.setitimer(signal.ITIMER_REAL, 0.05)

    def say(self) -> None:
        os.write(2, b"sixfold: stopped\n")

    def tidy(self) -> None:
        """Remove temporary files, if anything that makes them has been imported."""
        atomic = sys.modules.get("sixfold.core.data.atomic")
        with suppress(Exception):  # it may be half imported
            if atomic is not None:
                atomic.remove_scratch()


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether a module is being imported: libraries in C and Rust fail loudly over it."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def main() -> None:
    """Run the command line."""
    _open_streams()
    stop = _Stop()
    try:
        status = _run()
    except (KeyboardInterrupt, SystemExit) as leaving:
        code = getattr(leaving, "code", 128 + signal.SIGINT)
        status = code if isinstance(code, int) else int(code is not None)
    except BaseException:
        if not stop.number:
            raise
        status = 0  # whatever an import made of the interruption
    stop.leaving = True  # nothing is left to unwind
    if stop.number:
        status = 128 + stop.number
    if status in [128 + number for number in SIGNALS]:
        stop.say()
    sys.exit(status)


def _run() -> int:
    _do_without_home()
    from sixfold.core.cli import main as run

    try:
        try:
            run()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        status = 128 + signal.SIGPIPE
    except OSError as error:  # of the flush; `run` has answered all others
        print(f"sixfold: standard output: {error.strerror}", file=sys.stderr)
        status = 2
    else:
        return 0
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would try again, and complain
    return status


def _open_streams() -> None:
    """Let everything be printed that a file can be called, in any encoding, also to nowhere."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # or the next file that is opened would be standard output
    os.close(handle)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        getattr(sys, name).reconfigure(errors="backslashreplace")


def _do_without_home() -> None:
    """Give the caches of libraries a folder, and their user a name, where there is none."""
    home = os.path.expanduser("~")
    if os.path.isabs(home) and os.access(home, os.W_OK | os.X_OK):
        return
    import atexit
    import pwd
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix="sixfold-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in CACHES:
        os.environ.setdefault(name, folder)
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("LOGNAME", str(os.getuid()))


if __name__ == "__main__":
    main()
