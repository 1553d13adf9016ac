"""Use LESnets: roll out from a field, report what the result does to the equations, find Cs2."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.data.tensors import as_tensor
from sixfold.pde.fields.checks import check_divergence
from sixfold.pde.fields.stepping import check_counts, check_precision
from sixfold.pde.models.lesnets.loss import Flow, closed_form_coefficient, residual

if TYPE_CHECKING:
    from sixfold.pde.models.lesnets.model import LESnets

UNIFORM = 10  # times the rounding of the values: what varies less does not vary


class Prediction(NamedTuple):
    """What `predict` returns.

    Args:
        velocity: Frames after the given one (batch, x, y, z, 3, time).
        residual: Root mean square of the equations' residual at each frame but the last, in units
            of an acceleration (batch, time).
        divergence: Root mean square of the divergence at each frame, per unit of time.
    """

    velocity: Float[Tensor, "batch x y z 3 time"]
    residual: Float[Tensor, "batch inner"]
    divergence: Float[Tensor, "batch time"]


class Coefficient(NamedTuple):
    """What `coefficient` returns.

    Args:
        smagorinsky: Squared Smagorinsky constant, Cs2.
        residual: Root mean square of the residual with it.
        residual_without: The same with Cs2 = 0: a sequence without a model behind it gains little.
        divergence: Root mean square of the sequence's divergence.
    """

    smagorinsky: float
    residual: float
    residual_without: float
    divergence: float


def predict(model: "LESnets", u0: Any, blocks: int = 1) -> Prediction:
    """Predict ``blocks`` times the frames of the network, each block from the last frame before.

    Args:
        model: Trained network; it knows its flow.
        u0: Field (x, y, z, 3), or a batch of them, as a tensor or an array.
        blocks: Number of blocks.

    Raises:
        UserError: the network was not trained, or the field is not what it takes.
    """
    check_counts(blocks=blocks)
    flow, frames = flow_of(model), model.config.frames
    weights = next(model.parameters())
    check_precision(weights, "the network")
    field = as_fields(u0, "u0").to(weights)
    check_divergence(field, flow.box, "u0")
    velocity = field.new_empty(*field.shape, blocks * frames)
    accelerations, divergences = [], []
    training = model.training
    model.eval()
    with torch.no_grad():
        for number, block in zip(range(blocks), blocks_after(model, field), strict=False):
            velocity[..., number * frames : (number + 1) * frames] = block.velocity
            accelerations.append(block.residual)
            divergences.append(block.divergence)
    model.train(training)
    return Prediction(velocity, torch.cat(accelerations, 1), torch.cat(divergences, 1))


def blocks_after(model: "LESnets", field: Float[Tensor, "batch x y z 3"]) -> Iterator[Prediction]:
    """Predict blocks without end, each from the last frame before.

    The residual of a block begins at the last frame of the block before it.

    Args:
        model: Trained network in eval mode.
        field: First field.
    """
    flow, frames = flow_of(model), model.config.frames
    value = flow.smagorinsky if model.smagorinsky is None else float(model.smagorinsky)
    window = field[..., None]  # the frames before a block that its first residual needs
    while True:
        block = model(window[..., -1])
        window = torch.cat((window, block), -1)
        accelerations, divergence = residual(window, flow, value)
        rms = accelerations.square().mean((1, 3, 4, 5)).sqrt()
        spread = divergence.square().mean((2, 3, 4)).sqrt()[:, -frames:]
        yield Prediction(block, rms, spread)
        window = window[..., -2:]


def coefficient(sequence: Any, flow: Flow) -> Coefficient:
    """Find the squared Smagorinsky constant of a sequence, without any training.

    Args:
        sequence: Frames (x, y, z, 3, time), or a batch, as a tensor or an array.
        flow: Equations; their own Cs2 is not used.

    Raises:
        UserError: there are fewer than three frames, the frames are not what was said, or nothing
            in them varies in space.
    """
    frames = as_sequence(sequence, "the sequence")
    check_divergence(frames[..., 0], flow.box, "the sequence")
    _check_uniform(frames)
    with torch.no_grad():
        found = float(closed_form_coefficient(frames, flow))
        (best, divergence), (without, _) = (residual(frames, flow, c) for c in (found, 0.0))
    values = (found, *(float(f.square().mean().sqrt()) for f in (best, without, divergence)))
    return Coefficient(*values)


def _check_uniform(frames: Float[Tensor, "batch x y z 3 time"]) -> None:
    """Refuse sequences without strain, in which the model does nothing but for rounding."""
    varying = frames - frames.mean((1, 2, 3), keepdim=True)
    if float(varying.norm()) <= UNIFORM * torch.finfo(frames.dtype).eps * float(frames.norm()):
        raise UserError(
            "the sequence is the same at all points, so that any coefficient fits it; give frames "
            "of a flow with gradients"
        )


def flow_of(model: "LESnets") -> Flow:
    """Return the flow that a network was trained for.

    Raises:
        UserError: it was not trained, nor told.
    """
    if model.config.flow is None:
        raise UserError(
            "this network knows no flow: fit it, or load it with "
            "flow={'viscosity': ..., 'box': ..., 'time_step': ..., ...}"
        )
    return model.config.flow


def as_fields(values: Any, name: str) -> Float[Tensor, "batch x y z 3"]:
    """Turn a field or a batch, a tensor or an array, into a batch of floats.

    Half precision becomes single.

    Raises:
        UserError: the shape is another's, or values are not finite.
    """
    fields = _floats(values, name)
    fields = fields[None] if fields.ndim == 4 else fields
    if fields.ndim != 5 or fields.shape[-1] != 3 or 0 in fields.shape:
        raise UserError(
            f"{name} should be (x, y, z, 3) or (batch, x, y, z, 3), the components last, got "
            f"{tuple(np.shape(values))}; move the axis of the components"
        )
    _check_finite(fields, name)
    return fields


def as_sequence(values: Any, name: str, least: int = 3) -> Float[Tensor, "batch x y z 3 time"]:
    """Turn a sequence or a batch, tensors or arrays, into a batch of floats.

    Args:
        values: Sequence.
        name: Name of it in errors.
        least: Smallest number of frames; the residual takes three.

    Raises:
        UserError: the shape is another's, values are not finite, or frames too few.
    """
    frames = _floats(values, name)
    frames = frames[None] if frames.ndim == 5 else frames
    if frames.ndim != 6 or frames.shape[-2] != 3 or 0 in frames.shape:
        raise UserError(
            f"{name} should be (x, y, z, 3, time) or (batch, x, y, z, 3, time), got "
            f"{tuple(np.shape(values))}; move the axes of components and time"
        )
    if frames.shape[-1] < least:
        raise UserError(
            f"{name} has {frames.shape[-1]} frames, but the residual compares each frame with the "
            "one before and the one after; give three or more"
        )
    _check_finite(frames, name)
    return frames


def _floats(values: Any, name: str) -> Tensor:
    tensor = as_tensor(values, name)
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise UserError(f"{name} should hold real numbers, got {tensor.dtype}")
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _check_finite(values: Tensor, name: str) -> None:
    wrong = ~values.isfinite()
    if bool(wrong.any()):
        place = tuple(int(i) for i in wrong.nonzero()[0])
        raise UserError(
            f"{name} holds {int(wrong.sum())} values that are not finite, the first at {place} of "
            f"(batch, x, y, z, component{', time' if values.ndim == 6 else ''}); repair the data"
        )
