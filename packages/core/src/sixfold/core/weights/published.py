"""Published weights by name: fetched from cache, mirror or official home, like any other file."""

from dataclasses import replace
from pathlib import Path

from sixfold.core.config import UserError
from sixfold.core.data.fetch import Dataset, available, fetch
from sixfold.core.system import System


def find_weights(name: str | Path, system: System) -> Path:
    """Return a checkpoint by its path or, if there is no such path, by its published name.

    Raises:
        UserError: there is neither, or the file cannot be had; says where to put it.
    """
    if Path(name).exists():
        return Path(name)
    if str(name) not in system.weights:
        known = ", ".join(system.weights) or "none are known"
        raise UserError(
            f"there is no checkpoint {name}; give the path of a file, or the name of published "
            f"weights of {system.name}: {known}"
        )
    dataset = _dataset(system, str(name))
    return fetch(dataset) / dataset.files[0].path


def list_weights(system: System) -> dict[str, bool]:
    """Return the names of a system's published weights, and whether each needs no download."""
    return {name: available(_dataset(system, name)) for name in system.weights}


def _dataset(system: System, name: str) -> Dataset:
    file = system.weights[name]
    folder, _, rest = file.path.partition("/")
    home = file.url or f"the authors of {system.paper}"
    return Dataset(folder, home, file.licence, system.paper, (replace(file, path=rest),))
