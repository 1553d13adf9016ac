"""Sizes and SHA-256 of files: what says that a copy is still what was written."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the size and SHA-256 of every file below a folder, but of hidden ones, by its name."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [path.relative_to(folder) for path in files]
    return {
        name.as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for name, path in zip(names, files, strict=True)
        if not any(part.startswith(".") for part in name.parts)
    }


def fault(path: Path, size: int, digest: str) -> str:
    """Return what is wrong with a file; empty if nothing is, or if nothing is known of it.

    Args:
        path: The file.
        size: Expected length in bytes; 0 if it is not known.
        digest: Expected SHA-256; empty if it is not known.
    """
    if not path.is_file():
        return "is missing"
    found = path.stat().st_size
    if size not in (0, found):
        return f"has {found} bytes instead of {size}"
    own = sha256(path) if digest else ""
    return "" if own == digest else f"has SHA-256 {own} instead of {digest}"


def first_fault(folder: Path, known: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the first file that is not as `digests` found it, and why; empty if all are."""
    for name, facts in known.items():
        if reason := fault(folder / name, facts["bytes"], facts["sha256"]):
            return f"{folder / name} {reason}"
    return ""
