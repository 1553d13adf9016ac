"""Scores of rollouts: ``sixfold score pde true.h5 rollout.h5``."""

from collections.abc import Sequence
from pathlib import Path

from sixfold.core import UserError
from sixfold.core.data.atomic import write_atomic
from sixfold.core.many_files import check_table
from sixfold.pde.data.files import Trajectory, open_file, pieces, read, trajectories
from sixfold.pde.data.layouts import find_files, open_flows
from sixfold.pde.data.rollout_errors import Errors
from sixfold.pde.data.rollout_files import FIRST


def score(
    reference: Path,
    estimate: Path,
    *,
    fields: str | None = None,
    axes: str | None = None,
    first: int = 0,
    every: int = 1,
    out: Path | None = None,
) -> dict[str, float]:
    """Score rollouts against true flows: scaled L2 over space, and the error of the spectrum.

    Both are relative to the true field and averaged over trajectories, channels and steps. Late in
    a chaotic flow only the spectrum can still be right.

    A rollout of `sixfold run` says at which frame of the true flow it begins; any other file is
    compared frame by frame. Steps that the true flow does not have are not scored.

    Args:
        reference: True flow (.h5, .hdf5), or folder of them.
        estimate: Rollout, or folder with the same names.
        fields: Names of datasets, with commas between them; by default all of a known layout.
        axes: Letters of their axes in a layout that is not known, e.g. ntxy.
        first: Number of the first frame of the true flow that was used.
        every: Distance of its frames that were used.
        out: File for the errors of each step, as CSV; by default it is printed.

    Returns:
        The means over steps, the errors of the last one, and the number of steps.

    Raises:
        UserError: names, fields, grids or numbers of trajectories do not match, or there is nothing
            to compare.
    """
    names = fields.split(",") if fields else ()
    pairs = []
    files = _pairs(Path(reference), Path(estimate))
    check_table(out, [file for pair in files for file in pair])
    for true_file, made_file in files:
        true = trajectories(open_flows(true_file, names, axes), first, every)
        made = trajectories(open_flows(made_file, names, axes))
        _check(true, made, true_file, made_file)
        pairs += [(*pair, _first_frame(made_file)) for pair in zip(made, true, strict=True)]
    errors = Errors(max(made.frames for made, _, _ in pairs))
    for made, true, start in pairs:
        _compare(made, true, start, errors)
    curves = errors.curves()
    if not curves.scaled_l2:
        raise UserError(f"{reference} ends before the rollout begins: there is nothing to compare")
    rows = enumerate(zip(*curves, strict=True), 1)
    text = "step,scaled_l2,spectrum\n" + "".join(f"{n},{e:.6g},{s:.6g}\n" for n, (e, s) in rows)
    print(text, end="") if out is None else write_atomic(out, text)
    count = len(curves.scaled_l2)
    found = {name: sum(curve) / count for name, curve in curves._asdict().items()}
    found |= {f"{name}_last": curve[-1] for name, curve in curves._asdict().items()}
    found["steps"] = count
    for name, value in found.items():
        print(f"{name} {value:.6g}")
    return found


def _pairs(reference: Path, estimate: Path) -> list[tuple[Path, Path]]:
    """Pair two files, or those of two folders by their places in them."""
    if reference.is_file():
        return [(reference, estimate)]
    true = {file.relative_to(reference): file for file in find_files(reference)}
    made = {file.relative_to(estimate): file for file in find_files(estimate)}
    alone = [str(reference / name) for name in sorted(true.keys() - made.keys())]
    alone += [str(estimate / name) for name in sorted(made.keys() - true.keys())]
    if alone:
        raise UserError(f"no partner of that name for {', '.join(alone[:5])}")
    return [(file, made[name]) for name, file in true.items()]


def _check(
    true: Sequence[Trajectory], made: Sequence[Trajectory], true_file: Path, made_file: Path
) -> None:
    if len(true) != len(made):
        raise UserError(
            f"{made_file} has {len(made)} trajectories, {true_file} {len(true)}; roll out all of "
            "them"
        )
    for one, other in zip(made, true, strict=True):
        mine, theirs = (
            f"{', '.join(x.block.channels)} on {x.block.sides} points" for x in (one, other)
        )
        if mine != theirs:
            raise UserError(f"{made_file} has {mine}, {true_file} {theirs}; give the same fields")


def _first_frame(path: Path) -> int:
    with open_file(path) as file:
        return int(file.attrs.get(FIRST, 0))


def _compare(made: Trajectory, true: Trajectory, start: int, errors: Errors) -> None:
    step = 0
    for frames in pieces(made):
        stop = min(true.frames, start + step + len(frames))
        known = stop - start - step
        if known <= 0:
            return
        errors.add(step, frames[:known], read(true, start + step, stop))
        step += len(frames)
