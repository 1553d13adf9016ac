"""What a run folder belongs to: the config, the code and the data; and which folder to use."""

import hashlib
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sixfold.core.config import UserError
from sixfold.core.training import checkpoint


def digest(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain settings, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def differing(a: Any, b: Any, prefix: str = "") -> list[str]:
    """List the dotted keys in which two plain settings differ."""
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        return [] if a == b else [prefix]
    keys = sorted({*a, *b}, key=str)
    return [
        key
        for k in keys
        for key in differing(a.get(k, ...), b.get(k, ...), f"{prefix}.{k}" if prefix else str(k))
    ]


def open_folder(
    folder: Path, identity: dict[str, Any], resume: Any, allow: Collection[str]
) -> None:
    """Leave at ``folder`` a run of this identity: the one that is there, or a fresh one.

    A fresh folder appears under its name only when it is complete.

    Raises:
        UserError: the folder holds something else; ``resume`` names a run that differs.
    """
    known = _identity(folder)
    if known is not None:
        differ = differing(known, identity)
        if resume != "never" and not differ:
            for rest in (folder / "ckpt").glob(".tmp-*"):
                shutil.rmtree(rest)
            return
        archive_run(folder, f"differs in {', '.join(differ)}" if differ else "is not to be resumed")
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(
            f"{folder} is no run folder (no provenance.json) and not empty; give another"
        )
    for rest in folder.parent.glob(f".{folder.name}.new-*"):
        shutil.rmtree(rest)
    new = folder.with_name(f".{folder.name}.new-{os.getpid()}")
    (new / "ckpt").mkdir(parents=True)
    if isinstance(resume, Path):
        _copy_start(resume, new, identity, allow)
    facts = {
        "git": _git_revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sixfold-core": version("sixfold-core"),
    }
    checkpoint.replace(new / "provenance.json", to_text(facts | identity).encode())
    new.rename(folder)


def archive_run(folder: Path, why: str) -> None:
    """Rename a run folder to the first ``<folder>.old-<n>`` that is free, and say why."""
    aside = next(p for n in itertools.count(1) if not (p := Path(f"{folder}.old-{n}")).exists())
    folder.rename(aside)
    print(f"moved aside: {folder} {why}; it is now {aside}", flush=True)


def _copy_start(path: Path, new: Path, identity: Mapping[str, Any], allow: Collection[str]) -> None:
    """Copy the newest whole checkpoint of another run, and its curve, into a new folder."""
    run = path if _identity(path) else path.parent.parent
    known = _identity(run)
    if known is None:
        raise UserError(f"{path} is neither a run folder nor a checkpoint in one")
    differ = [key for key in differing(known, identity) if key.removeprefix("config.") not in allow]
    if differ:
        raise UserError(f"{path} cannot be resumed from: it differs in {', '.join(differ)}")
    for candidate in reversed(checkpoints(run)) if path == run else [path]:
        try:
            checkpoint.write(new / "ckpt" / candidate.name, checkpoint.read(candidate))
        except checkpoint.CorruptCheckpointError as problem:
            print(f"warning: {candidate} is broken ({problem})", flush=True)
            continue
        if (run / "curve.csv").is_file():
            shutil.copy(run / "curve.csv", new / "curve.csv")
        return
    raise UserError(f"{path} holds no whole checkpoint")


def _identity(folder: Path) -> dict[str, Any] | None:
    path = folder / "provenance.json"
    if not path.is_file():
        return None
    known = json.loads(path.read_text(encoding="utf-8"))
    return {"config": known["config"], "fingerprint": known["fingerprint"]}


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint folders, oldest first; none is opened."""
    found = {}
    for path in (folder / "ckpt").glob("step-*"):
        if match := re.fullmatch(r"step-(\d+)(?:-phase-(\d+))?", path.name):
            found[int(match[1]), int(match[2] or 0)] = path
    return [found[place] for place in sorted(found)]


def _git_revision() -> str | None:
    try:
        command = ["git", "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def to_text(values: Mapping[str, Any]) -> str:
    """Write as JSON, sorted, with a newline at the end."""
    return json.dumps(values, indent=1, sort_keys=True) + "\n"
