"""Roll out from files: ``sixfold run pde/sinenet initial.h5 rollout.h5 --weights run``."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sixfold.core import System, UserError
from sixfold.core.data.atomic import write_atomic
from sixfold.core.devices import check_device
from sixfold.core.many_files import run_files
from sixfold.core.progress import progress
from sixfold.core.weights.convert import from_pretrained
from sixfold.pde.data.conditioned import for_trajectory
from sixfold.pde.data.files import ENDINGS, Block, Trajectory, read, trajectories
from sixfold.pde.data.layouts import open_flows
from sixfold.pde.data.own_flows import check_block, warn_of_jumps, warn_of_step
from sixfold.pde.data.rollout_errors import Errors
from sixfold.pde.data.rollout_files import RolloutWriter, rollout_file
from sixfold.pde.fields.film import Film
from sixfold.pde.fields.forecast import frames_after
from sixfold.pde.fields.packed import packed


@dataclass(frozen=True)
class Stepper:
    """What a rollout needs of a network.

    Args:
        history: Number of frames that it begins with.
        frames: Function of a trajectory and its history (batch, time, channel, x, y[, z]) that
            yields frames without end, in physical units.
        check: Function of a trajectory that refuses what the network does not take.
        time_step: Time between two frames in training, where it is known.
        report: Function that says what else is known of the rollouts, at the end.
    """

    history: int
    frames: Callable[[Trajectory, Tensor], Iterator[Tensor]]
    check: Callable[[Trajectory], None]
    time_step: float | None
    report: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Request:
    """What is asked of a file.

    Args:
        steps: Number of frames.
        fields: Names of datasets, with commas between them.
        axes: Letters of their axes.
        trajectory: Number of the only trajectory, or all.
        first: Number of the first frame.
        every: Distance of the frames.
    """

    steps: int
    fields: str | None = None
    axes: str | None = None
    trajectory: int | None = None
    first: int = 0
    every: int = 1


def forecaster(model: Any) -> Stepper:
    """Return what a rollout needs of a forecasting network."""
    config = model.config

    def check(trajectory: Trajectory) -> None:
        check_block(trajectory.block, config, "the network")
        warn_of_jumps(read(trajectory, 0, 1), config)
        warn_of_step(trajectory, config)
        for_trajectory(model, trajectory)  # which refuses a file without the parameter

    def frames(trajectory: Trajectory, history: Tensor) -> Iterator[Tensor]:
        return frames_after(for_trajectory(model, trajectory), history)

    return Stepper(config.time_history, frames, check, config.time_step)


def run_command(
    system: System, stepper: Callable[[Any], Stepper] = forecaster
) -> Callable[..., None]:
    """Make the function behind ``sixfold run`` of a system that rolls out flows."""

    def run(
        *paths: Path,
        weights: str,
        steps: int = 10,
        fields: str | None = None,
        axes: str | None = None,
        trajectory: int | None = None,
        first: int = 0,
        every: int = 1,
        device: str = "cpu",
        overwrite: bool = False,
    ) -> None:
        """Roll out flows from their first frames, in the layout of PDEArena, PDEBench or The Well.

        The rollout is written in the same layout, with coordinates and times; a film (.webp) lies
        beside it. Where the file goes on, the error of each step is printed.

        Args:
            paths: One or more HDF5 files, folders of them or quoted patterns and, last, the output:
                an .h5 or .hdf5 file, or a folder.
            weights: Checkpoint, or folder of a run.
            steps: Number of frames to predict.
            fields: Names of datasets, with commas between them; by default all of a known layout.
            axes: Letters of their axes in a layout that is not known, e.g. ntxy: n trajectory, t
                time, x y z space, c component, 1 an axis of one.
            trajectory: Number of the only trajectory to roll out, from 0; by default all.
            first: Number of the first frame that is used.
            every: Distance of the frames that are used.
            device: Torch device: cpu, cuda, cuda:1 ...
            overwrite: Whether finished outputs in a folder are made again.
        """
        place = check_device(device)
        model = packed(from_pretrained(weights, system).to(place))
        asked = Request(steps, fields, axes, trajectory, first, every)

        def work(source: Path, output: Path) -> None:
            roll_out_file(stepper(model), source, output, asked, place)

        run_files(paths, work, reads=set(ENDINGS), writes=ENDINGS, overwrite=overwrite)

    return run


def roll_out_file(
    stepper: Stepper, source: Path, output: Path, asked: Request, device: torch.device
) -> None:
    """Roll out the trajectories of a file, one after the other.

    Raises:
        UserError: the file cannot be read, does not fit the network, or is too short; or a rollout
            leaves the finite numbers.
    """
    if asked.steps < 1:
        raise UserError(f"--steps {asked.steps} is no number of frames; give 1 or more")
    if output.suffix.lower() not in ENDINGS:
        raise UserError(f"a rollout goes into an {' or '.join(ENDINGS)} file, got {output.name}")
    blocks = open_flows(source, asked.fields.split(",") if asked.fields else (), asked.axes)
    given = _chosen(blocks, asked, source)
    for one in given:
        if one.frames < stepper.history:
            raise UserError(
                f"{one} has {one.frames} frames, but the network reads a history of "
                f"{stepper.history}; give as many, or weights of a shorter history"
            )
    for block in dict.fromkeys(one.block for one in given):
        stepper.check(next(one for one in given if one.block is block))
    film, errors = Film(asked.steps), Errors(asked.steps)
    with (
        rollout_file(
            output, blocks, given, stepper.history, asked.steps, stepper.time_step
        ) as writer,
        progress(str(output), len(given) * asked.steps) as advance,
    ):
        for one in given:
            for step, frames in _roll_out(stepper, one, asked.steps, device):
                _keep(one, step, frames, stepper.history, writer, errors)
                if one is given[0]:
                    _show(one, step, frames, stepper.history, film)
                advance(len(frames))
    write_atomic(output.with_suffix(".webp"), film.figure("film", given[0].block.channels).film)
    print(f"{source}: {len(given)} rollouts of {asked.steps} frames -> {output}")
    errors.say()
    stepper.report()


def _chosen(blocks: Sequence[Block], asked: Request, source: Path) -> list[Trajectory]:
    found = trajectories(blocks, asked.first, asked.every)
    if asked.trajectory is None:
        return found
    if not 0 <= asked.trajectory < len(found):
        raise UserError(
            f"{source} has {len(found)} trajectories, from 0; there is no --trajectory "
            f"{asked.trajectory}"
        )
    return [found[asked.trajectory]]


def _roll_out(
    stepper: Stepper, one: Trajectory, steps: int, device: torch.device
) -> Iterator[tuple[int, Tensor]]:
    """Yield the number of a step and the frames (time, channel, ...) from it on."""
    step, found = 0, stepper.frames(one, read(one, 0, stepper.history)[None].to(device))
    while step < steps:
        with torch.no_grad():
            frames = next(found)[0, : steps - step].cpu()
        if not bool(frames.isfinite().all()):
            raise UserError(
                f"the rollout of {one} is not finite from step {step + 1} on; ask for fewer --steps"
            )
        yield step, frames
        step += len(frames)


def _keep(
    one: Trajectory,
    step: int,
    frames: Tensor,
    history: int,
    writer: RolloutWriter,
    errors: Errors,
) -> None:
    """Write predicted frames, and compare them where the file goes on."""
    writer.write(one, step, frames)
    start = history + step
    stop = min(one.frames, start + len(frames))
    if start < stop:
        errors.add(step, frames[: stop - start], read(one, start, stop))


def _show(one: Trajectory, step: int, frames: Tensor, history: int, film: Film) -> None:
    for number, made in zip(count(step), frames, strict=False):
        if number % film.every == 0:
            at = history + number
            film.add(number, made, read(one, at, at + 1)[0] if at < one.frames else None)
