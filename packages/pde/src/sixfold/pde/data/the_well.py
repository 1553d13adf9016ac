"""The layout of The Well: fields by tensor rank, with attributes that say what they vary along."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sixfold.core import UserError
from sixfold.core.messages import shorten
from sixfold.pde.data.files import SPACE, Stored
from sixfold.pde.fields.convolution import Modes, Padding

RANKS = {"t0_fields": "", "t1_fields": "c", "t2_fields": "cc"}
PADDING: Mapping[str, Padding] = {"PERIODIC": "circular", "WALL": "zeros", "OPEN": "replicate"}


def well_fields(path: Path, file: Any) -> tuple[list[Stored], tuple[Stored, ...], Modes | None]:
    """Find the fields, the coordinates, and the padding that the boundaries ask for.

    Raises:
        UserError: the file does not say what its axes are.
    """
    try:
        return _find(path, file)
    except UserError:
        raise
    except (AttributeError, TypeError, ValueError) as error:  # of what attributes hold
        raise UserError(
            f"{path}: its attributes do not describe fields as those of The Well do "
            f"({shorten(str(error), 80)}); copy it again, or name --fields and --axes"
        ) from None


def _find(path: Path, file: Any) -> tuple[list[Stored], tuple[Stored, ...], Modes | None]:
    dimensions = file["dimensions"]
    names = [_text(name) for name in dimensions.attrs.get("spatial_dims", ())]
    if not 2 <= len(names) <= len(SPACE):
        raise UserError(
            f"{path}: the attribute spatial_dims of dimensions is {names}; give the names of two "
            "or three axes, as The Well does"
        )
    letters = dict(zip(names, SPACE, strict=False))
    fields = []
    for group, components in RANKS.items():
        for name in _ordered(file, group):
            attributes = file[group][name].attrs
            varying = attributes.get("dim_varying", [True] * len(names))
            space = "".join(k for k, v in zip(letters.values(), varying, strict=True) if v)
            axes = _prefix(attributes, time=True) + space + components
            fields.append(Stored(f"{group}/{name}", axes))
    coordinates = [Stored("dimensions/time", "t")] * ("time" in dimensions)
    for name, letter in letters.items():
        if name in dimensions:
            axes = _prefix(dimensions[name].attrs, sample=False) + letter
            coordinates.append(Stored(f"dimensions/{name}", axes))
    for name in file.get("scalars", ()):
        axes = _prefix(file["scalars"][name].attrs)
        coordinates.append(Stored(f"scalars/{name}", axes))
    return fields, tuple(coordinates), _padding(path, file, letters)


def _prefix(attributes: Any, *, sample: bool = True, time: bool = False) -> str:
    """Return the letters of trajectory and time, as attributes or else defaults say."""
    varies = (attributes.get("sample_varying", sample), attributes.get("time_varying", time))
    return "".join(letter for letter, wanted in zip("nt", varies, strict=True) if wanted)


def _ordered(file: Any, group: str) -> list[str]:
    """Return the fields of a group in the order of its attribute, if it has one."""
    if group not in file:
        return []
    named = [_text(name) for name in file[group].attrs.get("field_names", ())]
    return [name for name in named if name in file[group]] or list(file[group])


def _padding(path: Path, file: Any, letters: Mapping[str, str]) -> Modes | None:
    """Return the padding of x and y; None where the file does not say it."""
    found: dict[str, Padding] = {}
    for condition in file.get("boundary_conditions", {}).values():
        kind = _text(condition.attrs.get("bc_type", ""))
        if kind not in PADDING:
            raise UserError(
                f"{path}: the boundary {condition.name} is {kind!r}; known are {', '.join(PADDING)}"
            )
        for name in condition.attrs.get("associated_dims", ()):
            found[letters.get(_text(name), "")] = PADDING[kind]
    both = found.get("x"), found.get("y")
    return both if None not in both else None  # type: ignore[return-value]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
