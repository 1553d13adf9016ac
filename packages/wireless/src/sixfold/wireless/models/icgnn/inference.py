"""Precode own channels, in Python or from the command line."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.config import unknown_name_error
from sixfold.core.data.arrays import read_npy
from sixfold.core.data.atomic import write_atomic
from sixfold.core.data.tensors import as_tensor
from sixfold.core.many_files import refuse_inputs
from sixfold.core.messages import shown
from sixfold.wireless.iq import precoding
from sixfold.wireless.iq.wmmse import wmmse
from sixfold.wireless.models.icgnn.model import ICGNN

CLOSED_FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mrt": lambda channel, noise: precoding.mrt(channel),
    "zf": lambda channel, noise: precoding.zf(channel),
    "rzf": precoding.rzf,
    "equal_structured": precoding.equal_structured,
    "wmmse": lambda channel, noise: wmmse(channel, noise).precoder,
}
METHODS = (*CLOSED_FORMS, "icgnn")
BLOCK = 1 << 22  # complex numbers that are precoded at once
MOST_STEPS = 10_000
OUT_OF_RANGE = (
    "the precoders are not finite: the channel, or its power over the noise, is out of the range "
    "of floats; scale both"
)


def precode(
    channel: Any,
    *,
    noise_power_w: float,
    power_w: float,
    method: str = "icgnn",
    model: ICGNN | str | Path | None = None,
    steps: int | None = None,
) -> Any:
    """Precode channels of any scale.

    Args:
        channel: Channels (..., users, antennas), complex, of NumPy or torch; row k is h_k^H.
            Leading axes, e.g. subcarriers, are precoded one by one, each with all the power.
        noise_power_w: Noise power at a user, in watts.
        power_w: Power of each precoder, in watts.
        method: Name of the method: mrt, zf, rzf, equal_structured, wmmse or icgnn.
        model: Network or checkpoint of ``icgnn``.
        steps: Steps of conjugate gradients of ``icgnn``; exact if unset.

    Returns:
        Precoders (..., antennas, users) of the channel's kind, with sum |W|^2 = power_w.

    Raises:
        UserError: a number is not finite, a power not positive, a channel zero throughout, or the
            method or its model missing.
    """
    values = as_tensor(channel, "the channel")
    _check(values, noise_power_w, power_w)
    function = _method(method, model, steps)
    *lead, users, antennas = values.shape
    flat = values.reshape(-1, users, antennas)
    block = max(1, BLOCK // (users * antennas))
    noise = noise_power_w / power_w
    try:
        with torch.no_grad():
            parts = [_precode(part, noise, function) for part in flat.split(block)]
    except torch.linalg.LinAlgError:  # what leaves the range of floats has no factor
        raise UserError(OUT_OF_RANGE) from None
    precoder = power_w**0.5 * torch.cat(parts).reshape(*lead, antennas, users)
    if not bool(precoder.isfinite().all()):
        raise UserError(OUT_OF_RANGE)
    return precoder.numpy() if isinstance(channel, np.ndarray) else precoder


def _precode(channel: Tensor, noise: float, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Precode at power 1, the channels scaled to unit mean power.

    In double precision: the squares of weak channels leave the range of floats, and from 60 dB on
    the Gram matrix of users at one place has no factor there.
    """
    wide = channel.to(torch.complex128)
    scale = wide.abs().square().mean((-2, -1), keepdim=True).sqrt()
    found = function(wide / scale, noise / scale.square()[:, 0, 0])
    return (found / found.abs().square().sum((-2, -1), keepdim=True).sqrt()).to(channel.dtype)


def _method(
    name: str, model: ICGNN | str | Path | None, steps: int | None
) -> Callable[[Tensor, Tensor], Tensor]:
    if name not in METHODS:
        raise UserError(unknown_name_error("precode", "method", name, METHODS))
    if name != "icgnn":
        if model is not None or steps is not None:
            raise UserError(f"model and steps belong to method='icgnn', not {name!r}; leave them")
        return CLOSED_FORMS[name]
    if model is None:
        raise UserError(
            "method='icgnn' needs a trained network: pass model= (an ICGNN or its checkpoint), "
            "or choose method='wmmse', which needs none"
        )
    network = model if isinstance(model, ICGNN) else ICGNN.from_pretrained(model)
    weight = network.embed.weight
    if weight.dtype not in (torch.float32, torch.float64):
        raise UserError(
            f"the network is in {weight.dtype}, too coarse here; convert it by .float()"
        )
    if steps is not None and not (isinstance(steps, int) and 1 <= steps <= MOST_STEPS):
        raise UserError(
            f"steps is {shown(steps)}; give 1 to {MOST_STEPS}, of which as many as users are "
            "exact, or none"
        )

    def function(channel: Tensor, noise: Tensor) -> Tensor:
        complex_type = torch.complex128 if weight.dtype == torch.float64 else torch.complex64
        numbers = network.allocate(channel.to(weight.device, complex_type), noise.to(weight))
        multipliers, powers = (number.to(noise) for number in numbers)
        return precoding.structured(channel, noise, multipliers, powers, steps)

    return function


def _check(channel: Tensor, noise_power_w: float, power_w: float) -> None:
    """Refuse what cannot be precoded; warn of what can, but differently than one may think."""
    for name, value in (("noise_power_w", noise_power_w), ("power_w", power_w)):
        number = as_tensor(value, name)
        if number.ndim or number.is_complex() or not 0 < float(number) < float("inf"):
            raise UserError(f"{name} is {shown(value)}; give a positive number of watts")
    if channel.dim() < 2 or not channel.is_complex() or channel.numel() == 0:
        raise UserError(
            f"the channel is {channel.dtype} of shape {tuple(channel.shape)}; give complex numbers "
            "(..., users, antennas), none of them 0; from pairs of reals: torch.view_as_complex"
        )
    if not bool(channel.isfinite().all()):
        place = (~channel.isfinite()).nonzero()[0].tolist()
        raise UserError(f"the channel has NaN or infinity, first at {place}; remove it there")
    silent = channel.abs().amax((-2, -1)) == 0
    if bool(silent.any()):
        place = silent.nonzero()[0].tolist()
        raise UserError(f"the channel at {place} is zero throughout; leave it out")
    users, antennas = channel.shape[-2:]
    if users > antennas:
        warnings.warn(
            f"{users} users are more than {antennas} antennas: interference remains, and the best "
            "precoders leave some users out",
            stacklevel=3,
        )


def run(
    source: Path,
    target: Path,
    *,
    noise_power_w: float,
    power_w: float = 1.0,
    method: str = "icgnn",
    weights: str | None = None,
    steps: int | None = None,
) -> None:
    """Precode the channels of a file.

    Args:
        source: NumPy file (.npy) of complex channels (..., users, antennas).
        target: NumPy file (.npy) to write: precoders (..., antennas, users).
        noise_power_w: Noise power at a user, in watts.
        power_w: Power of each precoder, in watts.
        method: Name of the method: mrt, zf, rzf, equal_structured, wmmse or icgnn.
        weights: Checkpoint of icgnn.
        steps: Steps of conjugate gradients of icgnn; exact if unset.
    """
    if target.suffix != ".npy":
        raise UserError(f"precoders go into an .npy file, got {target.name}")
    refuse_inputs([source], [target])
    channel = read_npy(source)
    found = precode(
        channel,
        noise_power_w=noise_power_w,
        power_w=power_w,
        method=method,
        model=weights,
        steps=steps,
    )
    content = io.BytesIO()
    np.save(content, found)
    write_atomic(target, content.getvalue())
