"""Write files and folders all or nothing: a reader, or a crash, meets the old content or the new.

What is written lies under a temporary name beside its place until the disk has all of it.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sixfold.core.config import UserError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file, and the folders above it; text becomes UTF-8.

    Raises:
        UserError: the disk is full or cannot be written; an older file is untouched.
    """
    with atomic_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Lend an empty folder that takes the place of ``path``, as `atomic_file` lends a file."""
    with atomic_file(path) as partial:
        partial.mkdir()
        yield partial


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Lend a temporary path; what the block writes there takes the place of ``path``.

    Raises:
        UserError: the disk is full or cannot be written; what was there before is untouched.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with explain_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            for file in (*sorted(partial.rglob("*")), partial):
                _sync(file)
            if path.is_dir():
                shutil.rmtree(path)
            os.replace(partial, path)
            _sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):
            partial.unlink()


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Re-raise an OSError as a UserError that states the free space."""
    try:
        yield
    except OSError as error:
        place = next(parent for parent in path.absolute().parents if parent.is_dir())
        free = shutil.disk_usage(place).free / 1e6
        raise UserError(
            f"cannot write {path}: {error.strerror or error} ({free:.1f} MB free); "
            "what was there before is untouched"
        ) from error


def _sync(path: Path) -> None:
    """Wait until the disk has the content of a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
