"""Write files and folders all or nothing: a reader, or a crash, meets the old content or the new.

What is written lies in a scratch folder beside its place until the disk has all of it. The name of
a scratch folder cannot be guessed, nobody else may enter it, and its writer holds a lock on it:
those of killed processes are removed by the next one that writes beside them.
"""

import errno
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sixfold.core.config import UserError
from sixfold.core.data.locks import LOCK, held, is_mount, try_lock

PREFIX, SUFFIX = ".sixfold-", ".tmp"
BEFORE = ".before"  # holds, within a scratch folder, what is about to be replaced
KEPT_IN_MOUNTS = (LOCK, "lost+found")
FULL_BYTES = 1 << 16  # a disk with less is full, whatever a library says of its failed write


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file, and the folders above it; text becomes UTF-8.

    Raises:
        UserError: the disk is full or cannot be written; an older file is untouched.
    """
    with atomic_file(path) as partial:
        if isinstance(content, str):  # names of files may hold what is no UTF-8
            content = content.encode(errors="backslashreplace")
        partial.write_bytes(content)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Lend a temporary path of the same name; what is written there takes the place of ``path``.

    Raises:
        UserError: as `check_file_place`, or the disk is full or cannot be written; what was there
            before is untouched.
    """
    check_file_place(path)
    with explain_write_errors(path), scratch_folder(path.parent) as scratch:
        partial = scratch / path.name
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)


def check_file_place(path: Path) -> None:
    """Refuse a path at which a file would replace something else, such as /dev/null.

    Raises:
        UserError: a folder, a pipe or a device is there.
    """
    if path.exists() and not path.is_file():
        kind = "folder" if path.is_dir() else "pipe or a device"
        raise UserError(f"{path} is a {kind}; give the name of a file")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Lend an empty folder that takes the place of ``path``, as `atomic_file` lends a file.

    A link to a folder stays one. A mounted volume is not replaced but filled, file by file.
    """
    place = Path(os.path.realpath(path)) if path.is_symlink() else path
    filled = place.is_dir() and is_mount(place.resolve())
    with (
        explain_write_errors(path),
        scratch_folder(place if filled else place.parent) as scratch,
    ):
        partial = scratch / place.name
        partial.mkdir()
        yield partial
        for file in (*sorted(partial.rglob("*")), partial):
            _sync(file)
        if filled:
            _fill(place, partial, scratch)
        else:
            _replace(place, partial, scratch)
        _sync(place.parent)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Lend a folder of this process's own below ``parent``, gone with its content afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    _tidy_once(parent.resolve())
    scratch, handle = _make_scratch(parent)
    _lent.add(scratch)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        _lent.discard(scratch)
        os.close(handle)


def remove_scratch() -> None:
    """Remove what this process has lent, before it ends without unwinding."""
    for scratch in tuple(_lent):
        _put_back(scratch, scratch.parent)
        shutil.rmtree(scratch, ignore_errors=True)


def tidy(parent: Path) -> None:
    """Remove what killed processes of this user left in a folder; put back what they took away."""
    for scratch in parent.glob(f"{PREFIX}*{SUFFIX}"):
        with suppress(OSError):  # another process tidies too
            handle = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(handle).st_uid == os.geteuid() and try_lock(handle):
                    _put_back(scratch, parent)
                    shutil.rmtree(scratch, ignore_errors=True)
            finally:
                os.close(handle)


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Re-raise the error of a failed write as a UserError that states the free space."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        place = next(parent for parent in path.absolute().parents if parent.is_dir())
        free = shutil.disk_usage(place).free
        if not isinstance(error, OSError) and free > FULL_BYTES:
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:150]
        if free <= FULL_BYTES:  # libraries in C say "system error" and the like
            reason = os.strerror(errno.ENOSPC)
        raise UserError(
            f"cannot write {path}: {reason} ({free / 1e6:.1f} MB free); "
            "what was there before is untouched"
        ) from error


_lent: set[Path] = set()  # scratch folders that this process is using
_tidy_once = functools.cache(tidy)  # a folder may hold a hundred thousand files


def _make_scratch(parent: Path) -> tuple[Path, int]:
    while True:
        scratch = Path(tempfile.mkdtemp(SUFFIX, PREFIX, parent))
        with suppress(FileNotFoundError):  # another process found it before it was locked
            handle = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
            with suppress(OSError):  # no locks here, so nobody tidies either
                if not try_lock(handle):
                    os.close(handle)
                    continue
            if scratch.is_dir():
                return scratch, handle
            os.close(handle)


def _put_back(scratch: Path, parent: Path) -> None:
    """Put back what a process was killed over, between its two renames."""
    for before in (scratch / BEFORE).glob("*"):
        if not (parent / before.name).exists():
            os.rename(before, parent / before.name)


def _replace(place: Path, new: Path, scratch: Path) -> None:
    before = scratch / BEFORE / place.name
    with held(place, "replacing it"):  # there are two steps
        if place.is_dir():
            before.parent.mkdir()
            os.rename(place, before)
        try:
            os.replace(new, place)
        except BaseException:
            if before.exists():
                os.rename(before, place)
            raise


def _fill(place: Path, new: Path, scratch: Path) -> None:
    (scratch / BEFORE).mkdir()
    for old in place.iterdir():
        if old.name not in (*KEPT_IN_MOUNTS, scratch.name):
            os.rename(old, scratch / BEFORE / old.name)
    for file in sorted(new.iterdir()):
        os.replace(file, place / file.name)


def _sync(path: Path) -> None:
    """Wait until the disk has the content of a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
