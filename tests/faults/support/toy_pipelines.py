"""Toy pipelines in folders of their own, and what a training leaves there."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

SIXFOLD = str(Path(sys.executable).with_name("sixfold"))
PARAMS = Path(__file__).parent / "pipelines"
LEFT = (
    "weights/**/*.safetensors",
    "curves/**/*.csv",
    "runs/**/curve.csv",
    "runs/**/DONE",
    "runs/**/ckpt/*/*.safetensors",
)


def make(root: Path, domain: str, changes: dict[str, str] | None = None) -> Path:
    """Make a repository that holds a toy pipeline.

    Args:
        root: Folder of the repository, which is made.
        domain: Name of a file in ``pipelines/``.
        changes: Text of its parameters to replace.
    """
    folder = root / "pipelines" / domain
    folder.mkdir(parents=True)
    text = (PARAMS / f"{domain}.yaml").read_text()
    for old, new in (changes or {}).items():
        assert old in text
        text = text.replace(old, new)
    (folder / "params.yaml").write_text(text)
    return root


def prepared(root: Path, domain: str, like: Path | None = None, **changes) -> Path:
    """Make a repository with prepared data, copied from another one if there is one."""
    make(root, domain, **changes)
    if like is None:
        subprocess.run([SIXFOLD, "prepare", domain], cwd=root, check=True, capture_output=True)
    else:
        shutil.copytree(like / "data", root / "data")
    return root


def outcome(root: Path, domain: str, task: str = "*") -> dict[str, str]:
    """Return the hash of everything that trainings leave but times, by name."""
    base = root / "pipelines" / domain
    files = [file for pattern in LEFT for file in base.glob(pattern)]
    named = {str(file.relative_to(base)): file for file in files}
    wanted = {n: f for n, f in named.items() if task in ("*", n.split("/")[1])}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in wanted.items()}


def temporary(root: Path) -> list[str]:
    """List the temporary files and locks below a folder."""
    names = [str(p.relative_to(root)) for p in root.rglob(".*")]
    return [name for name in names if name.endswith((".tmp", ".lock", ".part"))]
