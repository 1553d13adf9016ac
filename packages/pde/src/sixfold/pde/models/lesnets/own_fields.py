"""Files of one's own turbulence for LESnets: training without labels, and rollouts.

    sixfold train pde/lesnets --data initial.h5 --out run --viscosity 0.03 --box 6.28 6.28 6.28

A training reads the first frame of each trajectory and no other.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from sixfold.core import Config, System, UserError
from sixfold.core.own_data import Splits, initial_model
from sixfold.pde.data.files import Block, Trajectory, read, time_step, trajectories
from sixfold.pde.data.layouts import open_flows
from sixfold.pde.data.own_flows import split
from sixfold.pde.data.run_command import Stepper
from sixfold.pde.fields.checks import check_divergence
from sixfold.pde.models.lesnets.inference import blocks_after, flow_of
from sixfold.pde.models.lesnets.model import LESnets
from sixfold.pde.models.lesnets.training import Objective, make_flow


class TurbulenceOptions(Config):
    """Where the velocity is in one's files, and the equations that it obeys.

    Args:
        viscosity: Kinematic viscosity.
        box: Lengths of the periodic box along x, y and z.
        time_step: Time between two frames; by default the files'.
        smagorinsky: Squared Smagorinsky constant.
        filter_width: Filter width; by default the longest side of a cell.
        fields: Names of the datasets of the velocity, with commas between them.
        axes: Letters of their axes in a layout that is not known, e.g. ntxyzc.
        first: Number of the frame to begin with.
    """

    viscosity: float = Field(ge=0)
    box: tuple[float, float, float]
    time_step: float | None = Field(default=None, gt=0)
    smagorinsky: float = Field(default=0.01, ge=0)
    filter_width: float | None = Field(default=None, gt=0)
    fields: str | None = None
    axes: str | None = None
    first: int = Field(default=0, ge=0)


class InitialFields:
    """First frames of trajectories, as a training set.

    Args:
        given: Trajectories.
    """

    def __init__(self, given: Sequence[Trajectory]) -> None:
        self.given = given

    def __len__(self) -> int:
        return len(self.given)

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Read some fields (batch, x, y, z, component)."""
        return {"u0": torch.stack([first_field(self.given[index]) for index in indices])}


def first_field(one: Trajectory) -> Tensor:
    """Read the first frame of a trajectory (x, y, z, component)."""
    return read(one, 0, 1)[0].movedim(0, -1)


def build(
    system: System, weights: str | None, settings: dict[str, Any], data: Path,
    options: TurbulenceOptions,
) -> nn.Module:  # fmt: skip
    """Build the network for the equations and the grid of the files.

    Raises:
        UserError: the files hold no velocity in three dimensions, or no time step.
    """
    (one, *_) = _find(data, options)
    spacing = options.time_step or time_step(one)
    if spacing is None:
        raise UserError(f"{one.block.file} does not say the time between frames; give --time-step")
    terms = (options.viscosity, options.box, spacing, options.smagorinsky, options.filter_width)
    flow = make_flow(torch.empty(1, *one.block.sides, 3), *terms)
    facts = {"flow": flow.model_dump(), "grid": one.block.sides}
    return initial_model(system, weights, facts | settings)


def open_fields(
    data: Path, valid: Path | float, model: LESnets, options: TurbulenceOptions, seed: int
) -> Splits:
    """Open files of velocity; a single field is also what the residual is watched on.

    Raises:
        UserError: a field has a divergence, is not finite, or does not fit the box.
    """
    found = _find(data, options)
    others = _find(valid, options) if isinstance(valid, Path) else []
    for one in (*found, *others):
        check_field(one, model)
    if len(found) == 1 and not others:
        train = held = found
    else:
        train, held = split(found, others or float(str(valid)), seed, data, 1)
    print(f"{data}: {len(train)} initial fields to train on, {len(held)} for validation")
    files = {one.block.file for one in (*found, *others)}
    return Splits(InitialFields(train), InitialFields(held), files, Objective(flow_of(model)))


def _find(path: Path, options: TurbulenceOptions) -> list[Trajectory]:
    names = options.fields.split(",") if options.fields else ()
    blocks = open_flows(path, names, options.axes)
    for block in blocks:
        check_velocity(block)
    return trajectories(blocks, options.first)


def check_velocity(block: Block) -> None:
    """Refuse fields that are no velocity in three dimensions.

    Raises:
        UserError: there are other channels or dimensions.
    """
    if len(block.channels) != 3 or len(block.sides) != 3:
        raise UserError(
            f"{block.file} has {', '.join(block.channels)} on {block.sides} points, LESnets takes "
            "a velocity of three components in three dimensions; choose it with --fields"
        )


def check_field(one: Trajectory, model: LESnets) -> None:
    """Refuse a first field that the equations are not of.

    Raises:
        UserError: it has a divergence, or the box does not fit the grid.
    """
    try:
        check_divergence(first_field(one)[None], flow_of(model).box, str(one))
    except UserError as error:
        raise UserError(
            f"{error} (in a file by --fields, or by the order of its axes, e.g. --axes ntzyxc)"
        ) from None


def residual_loss(model: LESnets, held: InitialFields) -> dict[str, float]:
    """Return the loss of the equations, averaged over fields."""
    objective, device = Objective(flow_of(model)), next(model.parameters()).device
    losses = [
        objective(model, {"u0": held.batch([i])["u0"].to(device)})["residual"]
        for i in range(len(held))
    ]
    return {"residual": float(torch.stack(losses).mean())}


def stepper(model: LESnets) -> Stepper:
    """Return what a rollout needs; at the end it reports what the equations say of it."""
    flow = flow_of(model)
    residuals: list[Tensor] = []
    divergences: list[Tensor] = []

    def check(one: Trajectory) -> None:
        check_velocity(one.block)
        check_field(one, model)

    def frames(_: Trajectory, history: Tensor) -> Iterator[Tensor]:
        for block in blocks_after(model, history[:, 0].movedim(1, -1)):
            residuals.append(block.residual.mean())
            divergences.append(block.divergence.mean())
            yield block.velocity.permute(0, 5, 4, 1, 2, 3)

    def report() -> None:
        values = (float(torch.stack(found).mean()) for found in (residuals, divergences))
        print("root mean square of the residual {:.4g}, of the divergence {:.4g}".format(*values))

    return Stepper(1, frames, check, flow.time_step, report)
