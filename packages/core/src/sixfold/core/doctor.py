"""What ``sixfold doctor`` prints: what this installation has, finds, and runs fused."""

import importlib
import os
import pkgutil
import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from types import ModuleType

import torch

from sixfold.core.config import UserError
from sixfold.core.data.fetch import Dataset, available, cache_folder, mirror_folders
from sixfold.core.system import domains, installed_versions
from sixfold.core.weights.published import list_weights

Row = tuple[str, str]  # a label, and what is to be said of it


def diagnose() -> Iterator[Row]:
    """Yield the rows of the report, the quickly known first."""
    yield "python", platform.python_version()
    yield "torch", torch.__version__
    yield from installed_versions().items()
    yield from _devices()
    yield from _kernels()
    yield "cache", _cache()
    try:
        mirrors = mirror_folders()
    except UserError as error:
        yield "mirror", f"{error}; data and weights were not looked for"
    else:
        folders = ", ".join(map(str, mirrors))
        yield "mirror", folders or "none (SIXFOLD_MIRROR names folders to use in place)"
        for name, module in domains().items():
            yield from _data(name, module)
            yield from _weights(name, module)
    yield from _optional_packages()


def _devices() -> Iterator[Row]:
    usable = len(os.sched_getaffinity(0))
    yield "cpu", f"{usable} cores, {torch.get_num_threads()} threads of PyTorch"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    built = f"PyTorch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    yield "cuda", ", ".join(names) or f"no device ({built})"


def _kernels() -> Iterator[Row]:
    if find_spec("sixfold.kernels") is None:
        yield "kernels", "sixfold-kernels is not installed"
        return
    status = importlib.import_module("sixfold.kernels.status")
    reason, names = status.reference_reason(), ", ".join(status.FUSED)
    if reason is None:
        yield "fused kernels", f"{names}, of CUDA tensors"
    else:
        yield "fused kernels", f"none: {reason} ({names} run their references)"


def _cache() -> str:
    folder = cache_folder()
    if not folder.is_dir():
        return f"{folder}, not made yet (SIXFOLD_CACHE names another)"
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return f"{folder}, {size / 2**20:.1f} MiB"


def _data(name: str, module: ModuleType) -> Iterator[Row]:
    """Yield where the published data are that the domain's tasks need by default."""
    package = importlib.import_module(f"{module.__name__}.tasks")
    found: dict[str, str] = {}
    for entry in pkgutil.iter_modules(package.__path__):
        task = getattr(importlib.import_module(f"{package.__name__}.{entry.name}"), "TASK", None)
        if task is not None:
            found |= {dataset.name: _place(dataset) for dataset in task.datasets(task.data())}
    yield f"{name} data", _grouped(found)


def _place(dataset: Dataset) -> str:
    cached = cache_folder() / dataset.name
    if all((cached / file.path).is_file() for file in dataset.files):
        return "cache"
    return "mirror" if available(dataset) else "not here"


def _weights(name: str, module: ModuleType) -> Iterator[Row]:
    found = {
        key: "here" if here else "not here"
        for system in module.SYSTEMS
        for key, here in list_weights(system).items()
    }
    yield f"{name} weights", _grouped(found) or "none are published by name"


def _grouped(places: dict[str, str]) -> str:
    """Return the names by place: ``mirror: a, b; not here: c``."""
    names = {place: [k for k, p in places.items() if p == place] for place in places.values()}
    return "; ".join(f"{place}: {', '.join(names[place])}" for place in sorted(names))


def _optional_packages() -> Iterator[Row]:
    for name in installed_versions():
        for extra, packages in _extras(name).items():
            text = ", ".join(f"{package} {_version(package)}" for package in packages)
            yield f"{name.removeprefix('sixfold-')}[{extra}]", text


def _extras(name: str) -> dict[str, list[str]]:
    """Return the packages that each extra of a distribution brings, but for its tests."""
    found: dict[str, list[str]] = {}
    for line in requires(name) or ():
        match = re.match(r"([\w.-]+).*;.*\bextra == ['\"]([\w-]+)['\"]", line)
        if match and match[2] != "test":
            found.setdefault(match[2], []).append(match[1])
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
