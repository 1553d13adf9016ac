"""Which datasets of an HDF5 file hold a flow: the layouts of PDEArena, PDEBench and The Well.

A layout is known by the names in a group, never by that of the file. Every group has its own number
of trajectories.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.core import UserError
from sixfold.pde.data.files import ENDINGS, SPACE, Block, Stored, check_axes, open_file
from sixfold.pde.data.the_well import well_fields

SPLITS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
LETTERS = "ntxyzc1"


@dataclass(frozen=True)
class Layout:
    """A published layout of one group.

    Args:
        name: Name.
        marks: Datasets or groups by which it is known.
        fields: Axes of each field, scalars before vectors.
        coordinates: Axes of what else belongs to a trajectory, where it is there.
        optional: Fields of three dimensions, which may be missing.
    """

    name: str
    marks: frozenset[str]
    fields: Mapping[str, str]
    coordinates: Mapping[str, str]
    optional: frozenset[str] = frozenset()


_SMOKE = {"t": "nt", "x": "nx", "y": "ny", "dt": "n", "dx": "n", "dy": "n", "buo_y": "n"}
_CFD = {f"{letter}-coordinate": letter for letter in "xyzt"}
LAYOUTS = (
    Layout(
        "PDEArena",
        frozenset({"u", "vx"}),
        {"u": "ntxy", "vx": "ntxy", "vy": "ntxy"},
        _SMOKE,
    ),
    Layout(
        "PDEArena, shallow water",
        frozenset({"pres", "u"}),
        {"pres": "ntxy", "u": "nt1xy", "v": "nt1xy"},
        {"t": "nt", "time": "t"},
    ),
    Layout(
        "SineNet, compressible",
        frozenset({"D", "P"}),
        {"D": "ntxy1", "P": "ntxy1", "Vx": "ntxy1", "Vy": "ntxy1"},
        {},
    ),
    Layout(
        "PDEBench, compressible",
        frozenset({"x-coordinate", "y-coordinate"}),
        dict.fromkeys(("density", "pressure", "Vx", "Vy", "Vz"), "ntxyz"),
        _CFD,
        frozenset({"Vz"}),
    ),
    Layout(
        "PDEBench, incompressible",
        frozenset({"velocity", "t"}),
        {"particles": "ntxyc", "velocity": "ntxyc"},
        {"t": "nt", "force": "nxyc"},
    ),
    Layout(
        "PDEBench",
        frozenset({"data", "grid"}),
        {"data": "txyc"},
        {"grid/x": "x", "grid/y": "y", "grid/t": "t"},
    ),
)


def find_files(path: Path) -> list[Path]:
    """List the HDF5 files of a folder and those below it, or the one that is named.

    Raises:
        UserError: there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"there is no file or folder {path}")
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in ENDINGS and f.is_file())
    if not files:
        raise UserError(f"{path} holds no file of these kinds: {', '.join(ENDINGS)}")
    return files


def open_flows(
    path: str | Path, fields: Sequence[str] = (), axes: str | None = None
) -> list[Block]:
    """Find the flows of a file or of all files of a folder.

    Args:
        path: File or folder.
        fields: Names of the datasets to take, in this order; by default all of the layout.
        axes: Letters of their axes, for a layout that is not known.

    Raises:
        UserError: a file is damaged, its layout is not known, a dataset is missing or of another
            size than the others, a split is empty, or files hold different fields.
    """
    found = [block for file in find_files(Path(path)) for block in _blocks(file, fields, axes)]
    first = found[0]
    for block in found:
        if (block.channels, block.sides) != (first.channels, first.sides):
            raise UserError(
                f"{block.file} holds {', '.join(block.channels)} on {block.sides} points, "
                f"{first.file} {', '.join(first.channels)} on {first.sides}; give files of the "
                "same fields and grid"
            )
    return found


def _blocks(path: Path, fields: Sequence[str], axes: str | None) -> list[Block]:
    with open_file(path) as file:
        if axes is not None:
            found = [_named(path, file, fields, axes)]
        elif "dimensions" in file and any(f"t{order}_fields" in file for order in range(3)):
            stored, coordinates, padding = well_fields(path, file)
            chosen = _select(path, stored, fields)
            split = SPLITS.get(path.parent.name)
            found = [
                _measured(file, Block(path, "The Well", chosen, {}, coordinates, split, padding))
            ]
        else:
            found = list(_recognised(path, file, fields))
        if not found:
            raise UserError(
                f"{path} is in no layout of PDEArena, PDEBench or The Well: it holds "
                f"{_contents(file)}; name its datasets and their axes, e.g. --fields u,v --axes "
                "ntxy (n trajectory, t time, x y z space, c component, 1 an axis of one)"
            )
    return found


def _recognised(path: Path, file: Any, fields: Sequence[str]) -> Iterator[Block]:
    for group in _groups(file):
        layout = next((one for one in LAYOUTS if one.marks <= group.keys()), None)
        if layout is None:
            continue
        place = group.name.strip("/")
        prefix = f"{place}/" if place else ""
        stored = [
            Stored(prefix + name, axes)
            for name, axes in layout.fields.items()
            if name in group or not (fields or name in layout.optional)
        ]
        for one in stored:
            if one.path not in file:
                raise UserError(
                    f"{path} looks like {layout.name} but lacks {one.path}; add it, or name what "
                    "there is, e.g. --fields " + ",".join(n for n in layout.fields if n in group)
                )
        coordinates = tuple(
            Stored(prefix + name, axes)
            for name, axes in layout.coordinates.items()
            if getattr(group.get(name), "ndim", None) == len(axes)
        )
        if layout.optional and stored:  # the fields of two dimensions have one axis less
            sides = getattr(file[stored[0].path], "ndim", 0) - 2
            stored = [Stored(one.path, "nt" + SPACE[:sides]) for one in stored]
        split = SPLITS.get(place.partition("/")[0]) or SPLITS.get(path.parent.name)
        chosen = _select(path, stored, fields)
        yield _measured(file, Block(path, layout.name, chosen, {}, coordinates, split))


def _groups(file: Any, depth: int = 2) -> Iterator[Any]:
    """Yield the file and its groups, down to those of a split."""
    yield file
    for one in file.values() if depth else ():
        if hasattr(one, "keys"):
            yield from _groups(one, depth - 1)


def _select(path: Path, stored: Sequence[Stored], fields: Sequence[str]) -> tuple[Stored, ...]:
    if not fields:
        return tuple(stored)
    known = {key: one for one in stored for key in (one.path, one.name)}
    for name in fields:
        if name not in known:
            names = ", ".join(one.name for one in stored)
            raise UserError(f"{path} has no field {name!r} for --fields; it has: {names}")
    return tuple(known[name] for name in fields)


def _named(path: Path, file: Any, fields: Sequence[str], axes: str) -> Block:
    """Find the datasets that a user names, in a file of no known layout."""
    unique = axes.replace("1", "").replace("c", "")
    if set(axes) - set(LETTERS) or len(set(unique)) < len(unique) or not {"x", "y"} <= set(axes):
        raise UserError(
            f"--axes {axes} should name each axis once: n trajectory, t time, x, y and z space, c "
            "component, 1 an axis of one; e.g. ntxy, or tyxc"
        )
    if not fields:
        raise UserError(f"--axes {axes} needs --fields, the names of datasets: {_contents(file)}")
    stored = []
    for name in fields:
        if name not in file:
            raise UserError(
                f"{path} has no dataset {name!r} for --fields; it has {_contents(file)}"
            )
        scalar = getattr(file[name], "ndim", 0) < len(axes)  # a group is refused with its contents
        stored.append(Stored(name.strip("/"), axes.replace("c", "") if scalar else axes))
    return _measured(
        file, Block(path, "named", tuple(stored), {}, (), SPLITS.get(path.parent.name))
    )


def _measured(file: Any, block: Block) -> Block:
    """Read the lengths of all axes.

    Raises:
        UserError: lengths contradict each other, or there is no trajectory or frame.
    """
    sizes: dict[str, tuple[int, str]] = {}
    fields = []
    for field in block.fields:
        dataset = file[field.path]
        check_axes(dataset, f"{block.file}: {field.path}", field.axes)
        lengths = list(zip(field.axes, dataset.shape, strict=True))
        _agree(block.file, field.path, lengths, sizes)
        components = tuple(length for letter, length in lengths if letter == "c")
        fields.append(Stored(field.path, field.axes, components))
    for one in block.coordinates:
        lengths = list(zip(one.axes, file[one.path].shape, strict=True))
        # edges of cells and of time steps are one more than what lies between them
        known = {letter: length for letter, (length, _) in sizes.items()}
        edges = [(k, known[k] if n - 1 == known.get(k) and k != "n" else n) for k, n in lengths]
        _agree(block.file, one.path, edges, dict(sizes))
    found = {letter: length for letter, (length, _) in sizes.items()}
    for letter, word in (("n", "trajectory"), ("t", "frame")):
        if found.get(letter, 1) == 0:
            raise UserError(
                f"{block.file} holds no {word} in {block.fields[0].path}: the split is empty; "
                "leave the file out, or fill it"
            )
    return Block(
        block.file,
        block.layout,
        tuple(fields),
        found,
        block.coordinates,
        block.split,
        block.padding,
    )


def _agree(
    path: Path, name: str, lengths: Sequence[tuple[str, int]], sizes: dict[str, tuple[int, str]]
) -> None:
    words = {"n": "trajectories", "t": "frames", "1": "values on an axis that should have one"}
    for letter, length in lengths:
        if letter == "c":
            continue
        known, other = (1, "") if letter == "1" else sizes.setdefault(letter, (length, name))
        if known != length:
            what = words.get(letter, f"points along {letter}")
            told = f", {other} {known}" if other else ""
            raise UserError(f"{path}: {name} has {length} {what}{told}; make them agree")


def _contents(file: Any, most: int = 8) -> str:
    names: list[str] = []

    def note(name: str, item: Any) -> None:
        if hasattr(item, "shape"):
            names.append(f"{name} {tuple(item.shape)}")

    file.visititems(note)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "no dataset") + more
