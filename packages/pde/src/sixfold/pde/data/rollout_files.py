"""Write rollouts in the layout of the file that they begin in, with coordinates and times.

A rollout holds the predicted frames alone; the attribute ``sixfold_first_frame`` says the number of
its first one in the file that it begins in.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.data.atomic import atomic_file
from sixfold.pde.data.files import SPACE, Block, Stored, Trajectory, numbers_of, open_file, times
from sixfold.pde.data.the_well import RANKS

FIRST = "sixfold_first_frame"
VARYING = {"sample_varying", "time_varying", "dim_varying"}  # attributes of The Well


@dataclass(frozen=True)
class RolloutWriter:
    """An open file of rollouts.

    Args:
        file: File.
        places: Number of each trajectory's rollout in the datasets of its block.
    """

    file: Any
    places: dict[Trajectory, int]

    def write(self, trajectory: Trajectory, step: int, frames: Tensor) -> None:
        """Write predicted frames (time, channel, x, y[, z]), the first at a number of steps."""
        values, block, channel = frames.cpu().numpy(), trajectory.block, 0
        where = {"n": self.places[trajectory], "t": slice(step, step + len(values)), "1": 0}
        for field in block.fields:
            after = channel + len(field.channels)
            part = values[:, channel:after].reshape(len(values), *field.components, *block.sides)
            letters = "t" + "c" * len(field.components) + SPACE[: len(block.sides)]
            axes = _predicted(field, block).axes
            left = [letter for letter in axes if letter not in "n1"]
            # sorted keeps the order of several axes of components
            order = sorted(range(part.ndim), key=lambda axis, s=letters, t=left: t.index(s[axis]))
            index = tuple(where.get(letter, slice(None)) for letter in axes)
            self.file[field.path][index] = part.transpose(order)
            channel = after


@contextmanager
def rollout_file(
    output: Path,
    blocks: Sequence[Block],
    given: Sequence[Trajectory],
    history: int,
    steps: int,
    step_time: float | None,
) -> Iterator[RolloutWriter]:
    """Lend a file that takes the name of ``output`` when all is written.

    Args:
        output: File to write.
        blocks: All that the file holds.
        given: Trajectories of it, whose rollouts follow.
        history: Number of frames that each begins with.
        steps: Number of frames of a rollout.
        step_time: Time between two frames, where the file does not say it.

    Raises:
        UserError: the disk is full, or the times cannot be known.
    """
    import h5py

    source = given[0].block.file
    chosen: dict[Block, list[Trajectory]] = {}
    for trajectory in given:
        chosen.setdefault(trajectory.block, []).append(trajectory)
    clocks = {block: _clock(some, history, steps, step_time) for block, some in chosen.items()}
    replaced = {field.path for block in blocks for field in block.fields}
    replaced |= {block.clock.path for block in blocks if block.clock}
    others = [block for block in blocks if block not in chosen]
    replaced |= {one.path for block in others for one in block.coordinates}
    with atomic_file(output) as partial, h5py.File(partial, "w") as new:
        with open_file(source) as old:
            replaced |= {path for block in others for path in _of_trajectories(old, block)}
            _copy(old, new, replaced, blocks[0], _rows(old, chosen))
            for block, some in chosen.items():
                for field in block.fields:
                    new.create_dataset(field.path, _shape(field, block, len(some), steps), "f4")
                if block.clock is not None:
                    new[block.clock.path] = clocks[block]
            _copy_attributes(old, new)
        new.attrs[FIRST] = history
        _say_what_varies(new, chosen, len(given))
        places = {one: number for some in chosen.values() for number, one in enumerate(some)}
        yield RolloutWriter(new, places)


def _rows(file: Any, chosen: dict[Block, list[Trajectory]]) -> dict[str, list[int]]:
    """Return which rows of datasets belong to the chosen trajectories, where not all do."""
    return {
        path: [trajectory.row for trajectory in some]
        for block, some in chosen.items()
        if len(some) < block.trajectories
        for path in _of_trajectories(file, block)
    }


def _of_trajectories(file: Any, block: Block) -> set[str]:
    """Return the datasets beside the fields that have a row for each trajectory."""
    found = {one.path for one in block.coordinates if one.axes.startswith("n")}
    if block.trajectories not in block.sides:  # else they may be points of space
        numbers = numbers_of(file, block).values()
        found |= {one.name.strip("/") for one in numbers if one.ndim}
    return found


def _copy(old: Any, new: Any, leave: set[str], block: Block, rows: dict[str, list[int]]) -> None:
    """Copy what belongs to a flow besides fields and clocks, and no field that was not chosen."""
    known = {one.path for one in block.coordinates}

    def visit(name: str, item: Any) -> None:
        if not hasattr(item, "shape"):
            if not len(item):  # of attributes alone
                new.require_group(name)
        elif name in leave:
            return
        elif name in rows:
            new[name] = item[rows[name]]
        elif name.partition("/")[0] in RANKS:  # of few axes where a field is the same along others
            return
        elif name in known or item.ndim <= len(block.sides):
            old.copy(item, new.require_group(item.parent.name), item.name.rpartition("/")[2])

    old.visititems(visit)


def _copy_attributes(old: Any, new: Any) -> None:
    """Give what was written the attributes of what stood there."""

    def visit(name: str) -> None:
        for key, value in old[name].attrs.items():
            new[name].attrs[key] = value

    visit("/")
    new.visit(visit)


def _predicted(field: Stored, block: Block) -> Stored:
    """Return the axes of a predicted field, which varies in time and along every axis of space."""
    present = set(field.axes)
    head = "".join(k for k in "nt" if k in block.sizes or k == "t")
    missing = [k for k in head + SPACE[: len(block.sides)] if k not in present]
    if not missing:
        return field
    tail = "".join(k for k in field.axes if k in "c1")
    return replace(field, axes=head + SPACE[: len(block.sides)] + tail)


def _shape(field: Stored, block: Block, trajectories: int, steps: int) -> tuple[int, ...]:
    lengths = {**block.sizes, "n": trajectories, "t": steps, "1": 1}
    components = iter(field.components)
    axes = _predicted(field, block).axes
    return tuple(next(components) if letter == "c" else lengths[letter] for letter in axes)


def _say_what_varies(new: Any, chosen: dict[Block, list[Trajectory]], count: int) -> None:
    """Correct the attributes of The Well: predicted fields vary along every axis."""
    if "n_trajectories" in new.attrs:
        new.attrs["n_trajectories"] = count
    for field in (field for block in chosen for field in block.fields):
        for name in VARYING & new[field.path].attrs.keys():
            value = new[field.path].attrs[name]
            new[field.path].attrs[name] = np.ones_like(value, dtype=bool)


def _clock(
    some: Sequence[Trajectory], history: int, steps: int, step_time: float | None
) -> np.ndarray | None:
    """Return the times of rollouts: those of the file, and evenly on after its end."""
    clock = some[0].block.clock
    if clock is None:
        return None
    rows = []
    for trajectory in some if clock.axes == "nt" else some[:1]:
        known = times(trajectory)
        assert known is not None
        spacing = float(known[-1] - known[-2]) if len(known) > 1 else step_time
        if spacing is None:
            raise UserError(
                f"{trajectory} has one frame, so the times of its rollout are unknown; give a file "
                "of two frames or more, or weights that were trained by sixfold"
            )
        number = np.arange(history, history + steps)
        inside = known[number[number < len(known)]]
        beyond = known[-1] + spacing * (number[number >= len(known)] - (len(known) - 1))
        rows.append(np.concatenate([inside, beyond]))
    return np.stack(rows) if clock.axes == "nt" else rows[0]
