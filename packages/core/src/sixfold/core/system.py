"""A published system as a value, and how installed domains are found."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoints, distributions, entry_points
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sixfold.core.config import Config, UserError, unknown_name_error
from sixfold.core.data.fetch import File

if TYPE_CHECKING:  # the command's help needs no PyTorch
    from torch import Tensor, nn


@dataclass(frozen=True)
class System:
    """What the command line, the tests and the pipelines need to know of one published system.

    Args:
        name: Name that users type after the domain, e.g. ``frcrn``.
        paper: Place of publication.
        config: Class of the settings; the defaults are the published base size.
        build: Function that makes the module from the settings.
        convert: Function from an official checkpoint to (settings, state dict); raises on
            leftovers.
        published: Published sizes by name: settings and the paper's parameter count.
        weights: Published checkpoints by name; the path is ``<name>/<file>`` in caches and mirrors.
        weights_settings: Settings that a published checkpoint does not hold, by its name.
        run: ``module:function`` behind ``sixfold run``, imported only when called.
        train: ``module:function`` behind ``sixfold train <domain>/<system> --data``, likewise; see
            `sixfold.core.own_data.training`.
        export: ``module:function`` from a loaded model to the `Exportable` of `export`.
    """

    name: str
    paper: str
    config: type[Config]
    build: "Callable[[Any], nn.Module]"
    convert: "Callable[[Mapping[str, Tensor]], tuple[Config, dict[str, Tensor]]]"
    published: Mapping[str, tuple[Config, int]] = field(default_factory=dict)
    weights: Mapping[str, File] = field(default_factory=dict)
    weights_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    run: str | None = None
    train: str | None = None
    export: str | None = None


def _points() -> EntryPoints:
    return entry_points(group="sixfold.domains")


def installed_versions() -> dict[str, str]:
    """Return the version of every installed distribution of sixfold, in alphabetical order."""
    found = {one.metadata["Name"]: one.version for one in distributions()}
    return {name: found[name] for name in sorted(found) if name.startswith("sixfold-")}


def domains() -> dict[str, ModuleType]:
    """Import and return the installed domains by name, in alphabetical order."""
    return {point.name: point.load() for point in sorted(_points(), key=lambda point: point.name)}


def domain(name: str) -> ModuleType:
    """Import one installed domain.

    Raises:
        UserError: it is not installed.
    """
    points = {point.name: point for point in _points()}
    if name not in points:
        installed = ", ".join(sorted(points)) or "none"
        raise UserError(
            f"no domain {name!r} is installed (installed: {installed}); "
            f"try: pip install sixfold-{name}"
        )
    return points[name].load()


def find_system(path: str) -> System:
    """Return the system written ``domain/system``, e.g. ``speech/frcrn``.

    Raises:
        UserError: the domain is not installed or has no such system.
    """
    domain_name, slash, name = path.partition("/")
    if not slash:
        written = [f"{key}/{s.name}" for key, found in domains().items() for s in found.SYSTEMS]
        near = [text for text in written if path in text.split("/")] or written
        raise UserError(f"a system is written domain/system, e.g. {', '.join(near)}; got {path!r}")
    systems = {system.name: system for system in domain(domain_name).SYSTEMS}
    if name not in systems:
        raise UserError(unknown_name_error(domain_name, "system", name, systems))
    return systems[name]


def is_system(path: str) -> bool:
    """Return whether a text is ``domain/system`` of an installed domain."""
    domain_name, _, name = path.partition("/")
    point = next((point for point in _points() if point.name == domain_name), None)
    return point is not None and any(system.name == name for system in point.load().SYSTEMS)


def load_function(target: str) -> Callable[..., Any]:
    """Import ``module:function``."""
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)
