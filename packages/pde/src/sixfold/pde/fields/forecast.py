"""Forecasts in physical units by any network with a `Normalizer`: one step, or many."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.data.tensors import as_tensor
from sixfold.pde.fields.frames import Frames, FramesConfig, Normalizer, Predicted
from sixfold.pde.fields.stepping import check_counts, check_finite


@runtime_checkable
class Forecaster(Protocol):
    """A network that maps a history of frames to the next ones, in normalised units."""

    config: Any
    normalizer: Normalizer

    def __call__(self, frames: Tensor) -> Tensor:
        """Predict ``time_future`` frames from ``time_history`` ones."""
        ...


def forecast(model: Forecaster, history: Frames) -> Predicted:
    """Predict the next frames in physical units."""
    prediction = model(model.normalizer.normalize(history))
    return model.normalizer.denormalize(prediction)


def frames_after(model: Forecaster, history: Any) -> Iterator[Predicted]:
    """Predict without end, feeding predictions back in normalised units; yield physical frames.

    Args:
        model: Network in eval mode.
        history: True frames (batch, time, channel, x, y), as many as the network reads; a tensor
            or an array.

    Raises:
        UserError: the network reads other channels than it predicts, or the history is too short,
            of another shape or precision, or not finite.
    """
    config: FramesConfig = model.config
    history = as_tensor(history, "the history")
    units = model.normalizer.mean.dtype
    if history.dtype != units:
        raise UserError(
            f"the history is in {history.dtype}, the network in {units}; convert it by .to({units})"
        )
    if config.input_channels != config.output_channels:
        raise UserError(
            f"a network that reads {config.input_channels} channels and predicts "
            f"{config.output_channels} cannot be fed its own predictions"
        )
    if history.ndim != 5 or not history.numel():
        raise UserError(
            f"a history is (batch, time, channel, x, y), got {tuple(history.shape)}; for one "
            "trajectory pass x[None]"
        )
    if history.shape[2] != config.input_channels:
        raise UserError(
            f"this network reads {config.input_channels} channels, got {history.shape[2]} in "
            f"{tuple(history.shape)} of (batch, time, channel, x, y); give those it was trained on"
        )
    if history.shape[1] < config.time_history:
        raise UserError(
            f"this network reads {config.time_history} frames, got {history.shape[1]} in "
            f"{tuple(history.shape)} of (batch, time, channel, x, y); begin the forecast later in "
            "the trajectory"
        )
    check_finite(history, "the history", "batch, time, channel, x, y")
    known = model.normalizer.normalize(history[:, -config.time_history :])
    while True:
        predicted = model(known)
        yield model.normalizer.denormalize(predicted)
        known = torch.cat((known, predicted), 1)[:, -config.time_history :]


def rollout(model: Forecaster, history: Any, steps: int) -> Predicted:
    """Predict ``steps`` frames in physical units, into one buffer.

    Raises:
        UserError: there are no steps, or as `frames_after`.
    """
    check_counts(steps=steps)
    history = as_tensor(history, "the history")
    done, result = 0, history.new_empty(0)
    for frames in frames_after(model, history):
        if not done:
            result = history.new_empty(len(history), steps, *history.shape[2:])
        taken = min(frames.shape[1], steps - done)
        result[:, done : done + taken] = frames[:, :taken]
        done += taken
        if done >= steps:
            break
    return result
