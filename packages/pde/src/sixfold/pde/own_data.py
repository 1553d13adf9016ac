"""Training on one's own flows: ``sixfold train pde/sinenet --data flows/ --out run``.

One form for all forecasting networks, which read planes, and one for LESnets, which needs no more
than one field of turbulence.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from sixfold.core import Config, System
from sixfold.core.own_data import Recipe, Splits, command, initial_model
from sixfold.core.training.fit import FitConfig
from sixfold.core.training.schedule import ScheduleConfig
from sixfold.core.training.update import EarlyStopping
from sixfold.pde.data.conditioned import Pairs, for_trajectory, is_conditional
from sixfold.pde.data.files import Block, Trajectory, pieces, read, time_step, trajectories
from sixfold.pde.data.layouts import open_flows
from sixfold.pde.data.own_flows import (
    HeldOut,
    Windows,
    check_block,
    check_length,
    check_planes,
    moments,
    split,
    warn_of_jumps,
    warn_of_step,
)
from sixfold.pde.data.published_units import published_units, warn_of_units
from sixfold.pde.data.run_command import run_command
from sixfold.pde.fields.forecast import forecast, rollout
from sixfold.pde.fields.schedule import LEFT_ALONE, ScheduledAdamW
from sixfold.pde.losses import scaled_norm
from sixfold.pde.models import dil_resnet, ffno, fno, lesnets, sinenet, unet_mod
from sixfold.pde.models.lesnets import own_fields

PLATEAU = ScheduleConfig(name="plateau", gamma=0.5, patience=4)
EVAL_EVERY = 200  # steps; an epoch of one short flow has too few
SCORED = 8  # frames that are forecast at once in a validation: bounds the memory


class FlowOptions(Config):
    """Where the flow is in one's files, and how it is learned.

    Args:
        fields: Names of datasets, with commas between them; by default all of a known layout.
        axes: Letters of their axes in a layout that is not known, e.g. ntxy: n trajectory, t time,
            x y z space, c component, 1 an axis of one.
        first: Number of the first frame that is used.
        every: Distance of the frames that are used.
        epochs: Number of epochs of the published schedule; by default the rate is halved whenever
            validation stops improving.
        floor: Smallest root mean square of a channel that errors are divided by, in its standard
            deviations; 0 refuses channels that vanish.
        rollout_steps: Largest number of frames of a validation rollout.
        published_units: Whether fields are normalised by the means and deviations that a published
            set comes with (PDEArena, SineNet's, The Well's stats.yaml) and not by the training's.
        valid_trajectories: Largest number of trajectories that are scored in a validation.
    """

    fields: str | None = None
    axes: str | None = None
    first: int = Field(default=0, ge=0)
    every: int = Field(default=1, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    floor: float = Field(default=0.0, ge=0, le=1e6)
    rollout_steps: int = Field(default=10, ge=1)
    published_units: bool = False
    valid_trajectories: int = Field(default=64, ge=1)


def _open(path: Path, options: Any) -> list[Block]:
    return open_flows(path, options.fields.split(",") if options.fields else (), options.axes)


def build_forecaster(
    system: System, weights: str | None, settings: dict[str, Any], data: Path, options: FlowOptions
) -> nn.Module:
    """Build the network for the channels, the grid and the boundaries of the files.

    Raises:
        UserError: as `open_flows`; or the settings do not fit.
    """
    if weights is not None:
        return _with_units(initial_model(system, weights, settings), system)
    block = _open(data, options)[0]
    facts: dict[str, Any] = {
        "input_channels": len(block.channels),
        "output_channels": len(block.channels),
        "fields": block.channels,
        "grid": block.sides,
        "time_step": time_step(trajectories([block], options.first, options.every)[0]),
    }
    if block.padding and "padding" in system.config.model_fields:
        facts["padding"] = block.padding
    check_planes(block)
    return initial_model(system, None, facts | settings)


def _with_units(model: Any, system: System) -> Any:
    """Return a network whose weights hold the units of its fields."""
    if model.config.normalized:
        return model
    other: Any = system.build(model.config.model_copy(update={"normalized": True}))
    other.load_state_dict(other.state_dict() | model.state_dict())
    return other


def open_forecasts(
    data: Path, valid: Path | float, model: Any, options: FlowOptions, seed: int
) -> Splits:
    """Open files of flows; a network without units takes those of the training split.

    Raises:
        UserError: a file cannot be read, holds what the network does not take, or too little.
    """
    config = model.config
    window = config.time_history + config.time_future
    blocks = _open(data, options)
    others = _open(valid, options) if isinstance(valid, Path) else []
    found, other = (trajectories(b, options.first, options.every) for b in (blocks, others))
    for block in (*blocks, *others):
        check_block(block, config)
    train, held = split(found, valid if isinstance(valid, float) else other, seed, data, window)
    check_length(held, config)
    held = held[: options.valid_trajectories]
    if bool((model.normalizer.mean == 0).all() and (model.normalizer.sd == 1).all()):
        units = published_units(blocks[0]) if options.published_units else moments(train)
        model.normalizer.set(*units)
        if options.published_units:
            warn_of_units(read(train[0], 0, 1), blocks[0].channels, units)
    make = Pairs if is_conditional(model) else Windows
    windows = make(train, config, model.normalizer)
    for one in held:
        for_trajectory(model, one)  # which refuses a file without the parameter
    _count_features(model, train)
    warn_of_jumps(read(train[0], 0, 1), config)
    warn_of_step(train[0], config)
    print(
        f"{data}: {len(train)} trajectories to train on, {len(held)} for validation; "
        f"{', '.join(blocks[0].channels)} on {' x '.join(map(str, blocks[0].sides))} points, an "
        f"epoch has {len(windows)} samples"
    )
    files = {block.file for block in (*blocks, *others)}
    scored = HeldOut(held, options.rollout_steps, options.floor)
    return Splits(windows, scored, files, _loss(options.floor), *_schedule(options, windows))


def _count_features(model: Any, train: Sequence[Trajectory]) -> None:
    """Let F-FNO see the training set, from which it takes the scale of its features."""
    if isinstance(model, ffno.FFNO) and float(model.features.count) == 0:
        normalize = model.normalizer.normalize
        parts = (normalize(frames[None]) for one in train for frames in pieces(one))
        model.count_features(parts)


def _loss(floor: float) -> Any:
    def loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
        future = batch["future"]
        conditions = {name: batch[name] for name in ("time", "parameter") if name in batch}
        made = model(batch["history"], **conditions)
        return scaled_norm(made, future, floor=_norm(floor, future))

    return loss


def _norm(floor: float, frames: Tensor) -> float:
    """Return the norm over space of a field of a root mean square."""
    return floor * frames[0, 0, 0].numel() ** 0.5


def _schedule(options: FlowOptions, windows: Windows | Pairs) -> tuple[Any, ScheduleConfig | None]:
    """Return how the published schedule is followed, if it is."""
    epochs = options.epochs
    if epochs is None:
        return None, None

    def optimizer(model: nn.Module, config: FitConfig) -> ScheduledAdamW:
        steps = -(-len(windows) // config.batch)
        print(f"the published schedule of {epochs} epochs has {epochs * steps} steps")
        settings = {"weight_decay": config.weight_decay, "betas": config.betas}
        peak = config.learning_rate
        return ScheduledAdamW(model, peak=peak, epoch_steps=steps, epochs=epochs, **settings)

    return optimizer, LEFT_ALONE


def forecast_scores(model: Any, valid: HeldOut) -> dict[str, float]:
    """Return the scaled L2 of one step from every start, and of rollouts from the first frames.

    Raises:
        UserError: a channel vanishes and there is no floor.
    """
    one_step, rolled = [], []
    reference, config = next(model.parameters()), model.config
    window = config.time_history + config.time_future
    for one in valid.given:
        steps = min(valid.steps, one.frames - config.time_history)
        frames = read(one, 0, config.time_history + steps)[None].to(reference)
        forecaster = for_trajectory(model, one)
        made = rollout(forecaster, frames[:, : config.time_history], steps)
        rolled.append(_errors(made, frames[:, config.time_history :], model, valid.floor))
        for first in range(0, one.frames - window + 1, SCORED):
            after = min(first + SCORED, one.frames - window + 1)
            some = read(one, first, after + window - 1).to(reference)
            windows = some.unfold(0, window, 1).movedim(-1, 1)
            made = forecast(forecaster, windows[:, : config.time_history])
            true = windows[:, config.time_history :]
            one_step.append(_errors(made, true, model, valid.floor).flatten(0, 1))
    curves = [errors.mean((0, 2)).mean() for errors in rolled]
    return {
        "one_step": float(torch.cat(one_step).mean()),
        "rollout": float(torch.stack(curves).mean()),
    }


def _errors(made: Tensor, true: Tensor, model: Any, floor: float) -> Tensor:
    """Return scaled errors (batch, time, channel) in physical units; the floor is in deviations."""
    made, true = made / model.normalizer.sd, true / model.normalizer.sd
    return scaled_norm(made, true, reduction="none", floor=_norm(floor, true))


FORECASTS = Recipe(
    open=open_forecasts,
    loss=None,  # has the floor of the options
    evaluate=forecast_scores,
    fit=FitConfig(
        steps=20_000,
        batch=32,
        learning_rate=2e-4,
        optimizer="adamw",
        weight_decay=1e-5,
        schedule=PLATEAU,
        best=EarlyStopping(monitor="rollout", mode="min", patience=10),
        eval_every=EVAL_EVERY,
    ),
    options=FlowOptions,
    build=build_forecaster,
)
FORECASTERS = (
    sinenet.SYSTEM,
    sinenet.ODE_SYSTEM,
    unet_mod.SYSTEM,
    dil_resnet.SYSTEM,
    ffno.SYSTEM,
    fno.SYSTEM,
)
train_sinenet, train_sinenet_ode, train_unet_mod, train_dil_resnet, train_ffno, train_fno = (
    command(system, FORECASTS) for system in FORECASTERS
)

train_lesnets = command(
    lesnets.SYSTEM,
    Recipe(
        open=own_fields.open_fields,
        loss=None,  # has the flow of the options
        evaluate=own_fields.residual_loss,
        fit=FitConfig(
            steps=30_000,
            batch=1,
            learning_rate=1e-3,
            schedule=PLATEAU,
            best=EarlyStopping(monitor="residual", mode="min", patience=10),
            eval_every=EVAL_EVERY,
        ),
        options=own_fields.TurbulenceOptions,
        build=own_fields.build,
    ),
)

run_lesnets = run_command(lesnets.SYSTEM, own_fields.stepper)
run_sinenet, run_sinenet_ode, run_unet_mod, run_dil_resnet, run_ffno, run_fno = (
    run_command(system) for system in FORECASTERS
)
