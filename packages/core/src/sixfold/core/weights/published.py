"""Published weights by name: fetched from cache, mirror or official home, like any other file."""

from dataclasses import replace
from pathlib import Path

from sixfold.core.config import UserError
from sixfold.core.data.fetch import Dataset, available, fetch
from sixfold.core.messages import shorten
from sixfold.core.system import System

# Text files with the name of a folder's checkpoint, as ClearerVoice's trainer writes them.
NOTES = ("last_best_checkpoint", "last_checkpoint")
ENDINGS = {".bin", ".ckpt", ".pt", ".pth", ".safetensors", ".tar"}


def find_weights(name: str | Path, system: System) -> Path:
    """Return a checkpoint by its path or, if there is no such path, by its published name.

    Of a folder it is the checkpoint that ``last_best_checkpoint`` in it names, or the only one.

    Raises:
        UserError: there is neither, or the file cannot be had; says where to put it.
    """
    if not isinstance(name, str | Path):
        raise UserError(
            f"a checkpoint is given by its path or name, got {type(name).__name__}; fill a model "
            "with a state dict by model.load_state_dict"
        )
    path = Path(name)
    try:
        if path.is_dir():
            return _find_in(path)
        if path.exists():
            return _find_in(path.parent) if path.name in NOTES else path
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise UserError(f"{shorten(str(name), 100)} cannot be read: {error.strerror}") from None
    if str(name) not in system.weights:
        known = ", ".join(system.weights) or "none are known"
        raise UserError(
            f"there is no checkpoint {name}; give the path of a file, or the name of published "
            f"weights of {system.name}: {known}"
        )
    dataset = _dataset(system, str(name))
    return fetch(dataset) / dataset.files[0].path


def _find_in(folder: Path) -> Path:
    note = next((folder / name for name in NOTES if (folder / name).is_file()), None)
    if note is not None:
        with note.open("rb") as file:
            found = folder / file.read(255).decode(errors="replace").strip()
        if found.is_file():
            return found
        raise UserError(f"{note} names {found.name}, which is not in {folder}; put it there")
    found = sorted(file for file in folder.iterdir() if file.suffix in ENDINGS)
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise UserError(f"{folder} is a folder; give the path of one of its checkpoints: {names}")
    return found[0]


def list_weights(system: System) -> dict[str, bool]:
    """Return the names of a system's published weights, and whether each needs no download."""
    return {name: available(_dataset(system, name)) for name in system.weights}


def _dataset(system: System, name: str) -> Dataset:
    file = system.weights[name]
    folder, _, rest = file.path.partition("/")
    home = file.url or f"the authors of {system.paper}"
    return Dataset(folder, home, file.licence, system.paper, (replace(file, path=rest),))
