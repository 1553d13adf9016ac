"""Toy pipelines in folders of their own, and what a training leaves there."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from sixfold.core.pipeline.params import Pipeline

SIXFOLD = str(Path(sys.executable).with_name("sixfold"))
PARAMS = Path(__file__).parent / "pipelines"
PIPELINES = Path(__file__).resolve().parents[3] / "pipelines"
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


def check(name: str, place: tuple = ()) -> set[str]:
    """Check all of params.yaml that is checked before work starts, below the working folder.

    Args:
        name: Name of the pipeline.
        place: Keys of the one value that is new, if the others were checked before: what does not
            depend on it is left out.

    Returns:
        Names of the tasks.

    Raises:
        UserError: a value is wrong.
    """
    tasks = Pipeline.find(name).tasks
    for task in [tasks[key] for key in place[1:2] if key in tasks] or tasks.values():
        assert task.data is not None
        for key in [key for key in place[3:4] if key in task.entries] or task.entries:
            task.seeds(key)
            task.settings(key)
            task.check_size(key)
    return set(tasks)


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
