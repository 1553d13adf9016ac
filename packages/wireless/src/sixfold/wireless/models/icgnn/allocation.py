"""Allocate the power of own access points, in Python or from the command line."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.config import unknown_name_error
from sixfold.core.data.atomic import write_atomic
from sixfold.core.data.tensors import as_tensor
from sixfold.core.many_files import refuse_inputs
from sixfold.wireless.data.own_mimo import read_layouts
from sixfold.wireless.iq import power_control
from sixfold.wireless.models.icgnn.cell_free import CellFreeICGNN

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

RULES: dict[str, Rule] = {
    "equal": lambda gain, serve, antennas, power: power_control.equal(gain, serve, power),
    "fractional": lambda gain, serve, antennas, power: power_control.fractional(
        gain, serve, 0.5, power
    ),
    "max_min": power_control.max_min,
    "projected_gradient": power_control.projected_gradient,
}
METHODS = (*RULES, "icgnn")


def allocate_power(
    gain: Any,
    serve: Any,
    *,
    antennas: int | Any = 1,
    power_mw: float | Any = power_control.POWER_MW,
    method: str = "icgnn",
    model: CellFreeICGNN | str | Path | None = None,
) -> Any:
    """Allocate the power of access points to the users that they serve.

    Args:
        gain: Gains over noise for 1 mW (layouts, access points, users), not in dB, of NumPy or
            torch.
        serve: Which access point serves which user, in the same shape.
        antennas: Antennas of an access point: one number, or (layouts, access points).
        power_mw: Power of an access point, in mW: one number, or (layouts, access points).
        method: Name of the method: equal, fractional (exponent 0.5), max_min, projected_gradient or
            icgnn.
        model: Network or checkpoint of ``icgnn``.

    Returns:
        Powers in mW, in the shape and of the kind of the gains. An access point that serves nobody
        sends nothing.

    Raises:
        UserError: shapes differ, a gain or power is not positive and finite, a user is served by
            nobody, or the method or its model is missing.
    """
    values, served = as_tensor(gain, "gain"), as_tensor(serve, "serve")
    given = {"antennas": antennas, "power_mw": power_mw}
    numbers = [as_tensor(each, name).to(values) for name, each in given.items()]
    _check(values, served, *numbers)
    function = _method(method, model)
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    numbers = [number.to(wide).expand(values.shape[:2]) for number in numbers]
    with torch.no_grad():
        eta = function(wide, served, *numbers).to(values)
    return eta.numpy() if isinstance(gain, np.ndarray) else eta


def _method(name: str, model: CellFreeICGNN | str | Path | None) -> Rule:
    if name not in METHODS:
        raise UserError(unknown_name_error("allocate_power", "method", name, METHODS))
    if name != "icgnn":
        if model is not None:
            raise UserError(f"model belongs to method='icgnn', not {name!r}; leave it out")
        return RULES[name]
    if model is None:
        raise UserError(
            "method='icgnn' needs a trained network: pass model= (a CellFreeICGNN or its "
            "checkpoint), or choose method='projected_gradient', which needs none"
        )
    network = model if isinstance(model, CellFreeICGNN) else CellFreeICGNN.from_pretrained(model)
    weight = network.embed.weight

    def function(gain: Tensor, serve: Tensor, antennas: Tensor, power: Tensor) -> Tensor:
        inputs = gain.to(weight), serve.to(weight.device), antennas.to(weight), power.to(weight)
        return network(*inputs).to(gain)

    return function


def _check(gain: Tensor, serve: Tensor, antennas: Tensor, power: Tensor) -> None:
    if gain.dim() != 3 or not gain.is_floating_point() or gain.numel() == 0:
        raise UserError(
            f"the gains are {gain.dtype} of shape {tuple(gain.shape)}; give real numbers (layouts, "
            "access points, users), for one layout gain[None]"
        )
    if serve.shape != gain.shape or serve.dtype != torch.bool:
        raise UserError(
            f"serve is {serve.dtype} of shape {tuple(serve.shape)}; give booleans of shape "
            f"{tuple(gain.shape)}, e.g. from strongest_access_points"
        )
    numbers = {"antennas": antennas, "power_mw": power}
    for name, value in {"gain": gain, **numbers}.items():
        wrong = ~(value.isfinite() & (value > 0))
        if bool(wrong.any()):
            place = wrong.nonzero()[0].tolist()
            where = f" at {place}" if place else ""
            raise UserError(
                f"{name} is {value[tuple(place)]:g}{where}; give positive numbers, not in dB"
            )
    for name, value in numbers.items():
        if not _broadcasts(value.shape, gain.shape[:2]):
            raise UserError(
                f"{name} is of shape {tuple(value.shape)}; give one number, or one for each of "
                f"{tuple(gain.shape[:2])} (layouts, access points)"
            )
    alone = ~serve.any(1)
    if bool(alone.any()):
        layout, user = alone.nonzero()[0].tolist()
        raise UserError(f"nobody serves user {user} of layout {layout}; serve it or leave it out")


def _broadcasts(shape: torch.Size, whole: torch.Size) -> bool:
    ends = zip(shape[::-1], whole[::-1], strict=False)
    return len(shape) <= len(whole) and all(n in (1, size) for n, size in ends)


def run(source: Path, target: Path, *, method: str = "icgnn", weights: str | None = None) -> None:
    """Allocate the power of the access points of a file.

    Args:
        source: NumPy or MATLAB file (.npz, .mat) of ``gain`` and ``serve`` (layouts, access points,
            users), with ``antennas`` and ``power_mw`` where they are known.
        target: NumPy file (.npz) to write: ``allocated_mw``, in the shape of the gains.
        method: Name of the method: equal, fractional (exponent 0.5), max_min, projected_gradient or
            icgnn.
        weights: Checkpoint of icgnn.
    """
    refuse_inputs([source], [target])
    layouts = read_layouts(source)
    found = allocate_power(**layouts, method=method, model=weights)
    content = io.BytesIO()
    np.savez(content, allocated_mw=found.numpy())
    write_atomic(target, content.getvalue())
