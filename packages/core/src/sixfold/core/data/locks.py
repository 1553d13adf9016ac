"""One process at a time: locks that the kernel gives back when their holder dies.

A lock is a file ``.<name>.lock`` beside a place, or ``.lock`` inside one that is a mounted volume,
which other machines may have mounted under another folder. It is removed when it is given back.
"""

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

LOCK = ".lock"
_ASK_EVERY_S, _SAY_AFTER_S = 0.05, 1.0
_SAID_LATER = (errno.ENOTDIR, errno.EEXIST, errno.ENOSPC, errno.ENAMETOOLONG)  # by the writer


@dataclass
class _Lock:
    handle: int | None  # None where there can be no locks
    holders: int = 0


_locks: dict[tuple[int, Path], _Lock] = {}  # by process and file: a fork holds none of them


@contextmanager
def held(path: Path, work: str) -> Iterator[None]:
    """Hold the lock of a file or folder; wait, and say so, while another process does.

    A process may hold a lock several times. Where there can be no locks, a line says so.

    Args:
        path: Place that only one process may write, whether it exists or not.
        work: What is done there, for the line that is printed while waiting.
    """
    place = lock_file(path)
    key = os.getpid(), place
    if key not in _locks:
        _locks[key] = _Lock(_acquire(place, path, work))
    lock = _locks[key]
    lock.holders += 1
    try:
        yield
    finally:
        lock.holders -= 1
        if not lock.holders and os.getpid() == key[0]:
            del _locks[key]
            if lock.handle is not None:
                _release(place, lock.handle)


def lock_file(path: Path) -> Path:
    """Return the lock of a place, the same one for each name of it."""
    real = Path(os.path.realpath(path))  # of a loop of links what there is: writing fails later
    if is_mount(real):
        return real / LOCK
    name = os.fsencode(real.name)
    short = real.name if len(name) < 200 else hashlib.sha256(name).hexdigest()
    return real.with_name(f".{short}{LOCK}")


def try_lock(handle: int) -> bool:
    """Lock an open file or folder until it is closed; return False if another process has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_mount(folder: Path) -> bool:
    """Return whether a volume is mounted at a folder, which so cannot be replaced."""
    if os.path.ismount(folder):
        return True
    table = Path("/proc/self/mountinfo")  # knows also a folder of the same disk mounted there
    name = os.fsencode(folder).replace(b" ", b"\\040")
    return table.is_file() and any(
        line.split()[4:5] == [name] for line in table.read_bytes().splitlines()
    )


def _acquire(place: Path, path: Path, work: str) -> int | None:
    began, said = time.monotonic(), False
    while True:
        handle = None
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            if try_lock(handle) and _is_at(handle, place):
                return handle
        except OSError as error:
            if error.errno not in _SAID_LATER:
                reason = f"{path} cannot be locked ({error.strerror})"
                print(f"{reason}: make sure that no other process writes there", flush=True)
            if handle is not None:
                os.close(handle)
            return None
        os.close(handle)
        if not said and time.monotonic() - began > _SAY_AFTER_S:
            print(f"waiting: another process holds {path} ({work})", flush=True)
            said = True
        time.sleep(_ASK_EVERY_S)


def _release(place: Path, handle: int) -> None:
    with suppress(OSError):  # the folder may be gone, or renamed
        if _is_at(handle, place):
            place.unlink()
    os.close(handle)


def _is_at(handle: int, place: Path) -> bool:
    """Return whether an open file still has its name: its last holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(place))
    except FileNotFoundError:
        return False
