"""Trajectories of flows in HDF5 files, read piece by piece: the same calls whatever the layout.

What a dataset holds is said in letters, one an axis: ``n`` trajectory, ``t`` time, ``x y z``
space, ``c`` component, ``1`` an axis of one. A field that lacks ``n``, ``t`` or an axis of space is
the same along it. `sixfold.pde.data.layouts` finds the letters of published layouts.
"""

import math
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.memory import check_memory
from sixfold.pde.fields.convolution import Modes

SPACE = "xyz"
ENDINGS = (".h5", ".hdf5")
PIECE = 64 << 20  # bytes that are read at once where a whole trajectory is gone through
HALF = np.dtype(np.float16)


@dataclass(frozen=True)
class Stored:
    """One dataset of a file.

    Args:
        path: Place in the file.
        axes: Letters of its axes.
        components: Lengths of the axes ``c``; empty for a scalar.
    """

    path: str
    axes: str
    components: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Name without the groups above it."""
        return self.path.rpartition("/")[2]

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels, e.g. velocity.0 and velocity.1."""
        count = int(np.prod(self.components, dtype=int))
        return tuple(f"{self.name}.{i}" for i in range(count)) if self.components else (self.name,)


@dataclass(frozen=True, eq=False)
class Block:
    """Trajectories that lie side by side in the same datasets of a file.

    Args:
        file: File.
        layout: Name of the layout.
        fields: Datasets of the fields; their components are the channels.
        sizes: Length of each axis but ``c``.
        coordinates: Datasets of times, places and numbers that belong to trajectories.
        split: Whether they are to train on, for validation or to test, where the file says it.
        padding: Padding that the boundaries ask for, where the file says it.
    """

    file: Path
    layout: str
    fields: tuple[Stored, ...]
    sizes: Mapping[str, int]
    coordinates: tuple[Stored, ...] = ()
    split: str | None = None
    padding: Modes | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(name for field in self.fields for name in field.channels)

    @property
    def sides(self) -> tuple[int, ...]:
        """Number of points along each axis of space."""
        return tuple(self.sizes[letter] for letter in SPACE if letter in self.sizes)

    @property
    def trajectories(self) -> int:
        """Number of trajectories."""
        return self.sizes.get("n", 1)

    @property
    def clock(self) -> Stored | None:
        """Dataset of the times, if there is one."""
        return next((one for one in self.coordinates if one.axes.strip("n") == "t"), None)


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One trajectory of a file, or every so-many frames of it.

    Args:
        block: Datasets.
        row: Number in the block.
        span: Numbers of its frames in the file.
    """

    block: Block
    row: int
    span: range

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.span)

    def __str__(self) -> str:
        return f"{self.block.file}, trajectory {self.row}"


@contextmanager
def open_file(path: Path) -> Iterator[Any]:
    """Open an HDF5 file to read, and say in words what is wrong with it.

    Raises:
        UserError: there is none, it is no HDF5 file or cut short, or h5py is missing. What else
            goes wrong in the block, and not in h5py, stays what it is.
    """
    try:
        import h5py
    except ModuleNotFoundError:
        raise UserError("HDF5 files need: pip install 'sixfold-pde[hdf5]'") from None
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        if not _raised_by_h5py(error):
            raise
        reason = str(error).partition("(")[2].strip("()'\"") or str(error)
        raise UserError(
            f"{path} is no HDF5 file, or is damaged or cut short ({reason}); copy it again"
        ) from None


def _raised_by_h5py(error: Exception) -> bool:
    """Return whether the last of h5py and sixfold on the way to an error is h5py."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    names = [frame.f_globals.get("__name__", "").partition(".")[0] for frame in frames]
    return [name for name in names if name in ("h5py", "sixfold")][-1] == "h5py"


def trajectories(blocks: Sequence[Block], first: int = 0, every: int = 1) -> list[Trajectory]:
    """List the trajectories of blocks, of each frame ``first`` and every so-many-th after it.

    Raises:
        UserError: a trajectory has no such frame, or the numbers are no place and no distance.
    """
    if first < 0 or not 1 <= every < 2**31:
        raise UserError(
            f"--first {first} --every {every} names no frames; give a first one from 0, and a "
            "distance from 1"
        )
    found = []
    for block in blocks:
        frames = block.sizes.get("t", 1)
        if first >= frames:
            raise UserError(f"{block.file} has {frames} frames, but --first is {first}")
        span = range(first, frames, every)
        found += [Trajectory(block, row, span) for row in range(block.trajectories)]
    return found


def read(trajectory: Trajectory, start: int, stop: int) -> Float[Tensor, "time channel *space"]:
    """Read some frames of a trajectory, and nothing else of the file, in single precision.

    Args:
        trajectory: Trajectory.
        start: Number of the first frame.
        stop: Number of the frame after the last.

    Raises:
        UserError: a value is not finite in single precision, or the file is damaged.
    """
    frames = trajectory.span[start:stop]
    block, row = trajectory.block, trajectory.row
    shape = (len(frames), len(block.channels), *block.sides)
    check_memory(f"{trajectory}, frames {start} to {stop - 1},", 4 * math.prod(shape))
    result = np.empty(shape, np.float32)
    with open_file(block.file) as file:
        channel = 0
        for field in block.fields:
            after = channel + len(field.channels)
            with np.errstate(over="ignore"):  # becomes infinite, and is refused
                result[:, channel:after] = _read_field(file, field, row, frames, block)
            _check_finite(result[:, channel:after], trajectory, field, start)
            channel = after
    return torch.from_numpy(result)


def _read_field(file: Any, field: Stored, row: int, frames: range, block: Block) -> np.ndarray:
    """Return a field as (time, component, x, y[, z]), of length one where it is the same."""
    where = {"n": row, "t": slice(frames.start, frames.stop, frames.step), "1": 0}
    values = file[field.path][tuple(where.get(letter, slice(None)) for letter in field.axes)]
    left = [letter for letter in field.axes if letter not in "n1"]
    wanted = ["t", "c", *SPACE[: len(block.sides)]]
    order = sorted(range(len(left)), key=lambda axis: wanted.index(left[axis]))
    values = values.transpose(order)
    shape = [len(frames) if "t" in left else 1, len(field.channels)]
    shape += [block.sizes[letter] if letter in left else 1 for letter in wanted[2:]]
    return values.reshape(shape)


def _check_finite(values: np.ndarray, trajectory: Trajectory, field: Stored, start: int) -> None:
    wrong = ~np.isfinite(values)
    if not wrong.any():
        return
    time, component, *place = np.argwhere(wrong)[0].tolist()
    name = field.channels[component]
    raise UserError(
        f"{trajectory}: {name} holds {int(wrong.sum())} values that are not finite in single "
        f"precision, the first in frame {start + time} at {tuple(place)}; repair them, or leave "
        "the trajectory out"
    )


def pieces(trajectory: Trajectory) -> Iterator[Float[Tensor, "time channel *space"]]:
    """Go through a trajectory in pieces of bounded size.

    Raises:
        UserError: as `read`.
    """
    block = trajectory.block
    frame = 4 * len(block.channels) * int(np.prod(block.sides))
    count = max(1, PIECE // frame)
    for start in range(0, trajectory.frames, count):
        yield read(trajectory, start, min(start + count, trajectory.frames))


def times(trajectory: Trajectory) -> np.ndarray | None:
    """Return the times of the frames of a trajectory, if the file has them."""
    clock = trajectory.block.clock
    if clock is None:
        return None
    with open_file(trajectory.block.file) as file:
        if file[clock.path].dtype.kind not in "fiu":
            raise UserError(
                f"{trajectory.block.file}: {clock.path} holds no numbers; give times, or remove it"
            )
        values = np.asarray(file[clock.path][()], dtype=float)
    values = values[trajectory.row] if clock.axes == "nt" else values
    return values[list(trajectory.span)]


def time_step(trajectory: Trajectory) -> float | None:
    """Return the time between two frames, if the file says it."""
    found = times(trajectory)
    return (
        None if found is None or len(found) < 2 else float(found[-1] - found[0]) / (len(found) - 1)
    )


def check_axes(dataset: Any, place: str, axes: str) -> None:
    """Refuse datasets that are no fields of numbers on these axes.

    Raises:
        UserError: it is a group, the number of axes differs, or the values are no real numbers.
    """
    if not hasattr(dataset, "shape"):
        raise UserError(f"{place} is a group of {', '.join(dataset) or 'nothing'}; name a dataset")
    if dataset.ndim != len(axes):
        raise UserError(
            f"{place} has {dataset.ndim} axes {tuple(dataset.shape)}, not {len(axes)} ({axes}); "
            "say what they are with --fields and --axes"
        )
    if dataset.dtype.kind not in "fiu":
        raise UserError(f"{place} holds {dataset.dtype}; give real numbers")


def numbers_of(file: Any, block: Block) -> dict[str, Any]:
    """Return the datasets of one number, or one for each trajectory; the group's own win."""
    found = {}
    shapes = ((block.trajectories,), ())
    for group in (file, file[block.fields[0].path].parent):
        for name, dataset in group.items():
            if getattr(dataset, "shape", None) in shapes and dataset.dtype.kind in "iuf":
                found[name] = dataset
    return found | {c.name: file[c.path] for c in block.coordinates if c.axes in ("n", "")}
