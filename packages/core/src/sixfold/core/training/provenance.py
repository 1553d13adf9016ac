"""What a run folder belongs to: the config, the code and the data; and which folder to use."""

import itertools
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sixfold.core.config import UserError
from sixfold.core.data.atomic import KEPT_IN_MOUNTS, atomic_folder


def open_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Leave at ``folder`` a run of this identity: the one that is there, or a fresh one.

    A fresh folder appears under its name only when it is complete; what is no run is left alone.

    Raises:
        UserError: the folder holds something else, or another run that cannot be renamed.
    """
    record = folder / "provenance.json"
    try:
        begun = record.is_file()
    except OSError as error:  # the name is too long, or it may not be looked at
        where = f"{str(folder)[:150]!r}"
        raise UserError(f"{where} cannot be a run folder: {error.strerror}; give another") from None
    if begun:
        known = read_record(record)
        pairs = ((part, (known or {}).get(part), identity[part]) for part in identity)
        differ = [key for part, old, new in pairs for key in _differing(old, new, part)]
        if not differ:
            for rest in (folder / "ckpt").glob(".*"):  # of a save that was killed
                shutil.rmtree(rest) if rest.is_dir() else rest.unlink()
            return
        damaged = f"is no run that can be gone on with: {record.name} is damaged"
        archive_run(folder, f"differs in {', '.join(differ)}" if known is not None else damaged)
    elif folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; a run needs a folder")
    elif folder.exists() and any(file.name not in KEPT_IN_MOUNTS for file in folder.iterdir()):
        raise UserError(
            f"{folder} is no run folder (no provenance.json) and not empty; give another"
        )
    facts = {
        "git": _git_revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sixfold-core": version("sixfold-core"),
    }
    with atomic_folder(folder) as partial:
        (partial / "ckpt").mkdir()
        (partial / "provenance.json").write_text(to_text(facts | dict(identity)), encoding="utf-8")


def archive_run(folder: Path, why: str) -> None:
    """Rename a run folder, not a link to it, to the first free ``.old-<n>``, and say why.

    Raises:
        UserError: the folder is a mounted volume, or its parent cannot be written.
    """
    real = Path(os.path.realpath(folder)) if folder.is_symlink() else folder
    archive = next(p for n in itertools.count(1) if not (p := Path(f"{real}.old-{n}")).exists())
    try:
        real.rename(archive)
    except OSError as error:
        raise UserError(
            f"{folder} {why}, and cannot be renamed ({error.strerror}); give another, or empty it"
        ) from None
    print(f"archived: {folder} {why}; it is now {archive}", flush=True)


def read_record(path: Path) -> dict[str, Any] | None:
    """Read a JSON file of a run folder; None if it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested without end
        return None
    return found if isinstance(found, dict) else None


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint folders, oldest first; none is opened."""
    found = {}
    for path in (folder / "ckpt").glob("step-*"):
        if match := re.fullmatch(r"step-(\d+)(?:-phase-(\d+))?", path.name):
            found[int(match[1]), int(match[2] or 0)] = path
    return [found[place] for place in sorted(found)]


def to_text(values: Mapping[str, Any]) -> str:
    """Write as JSON, sorted, with a newline at the end."""
    return json.dumps(values, indent=1, sort_keys=True) + "\n"


def _differing(a: Any, b: Any, place: str) -> list[str]:
    """List the dotted keys in which two plain settings differ."""
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        return [] if a == b else [place]
    keys = sorted({*a, *b}, key=str)
    return [k for n in keys for k in _differing(a.get(n, ...), b.get(n, ...), f"{place}.{n}")]


def _git_revision() -> str | None:
    try:
        command = ["git", "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None
