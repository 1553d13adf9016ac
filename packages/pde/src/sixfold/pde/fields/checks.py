"""Checks of velocity fields of incompressible flow on periodic boxes, and of the boxes."""

from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor

from sixfold.core import UserError
from sixfold.pde.fields.modes import Box
from sixfold.pde.fields.stepping import as_box, check_precision

DIVERGENT = 0.05  # of |grad u|: beyond rounding, files in half precision and interpolation
ORDERS = tuple(permutations(range(3)))
UNEVEN = 2.5  # ratio of a cell's sides


def check_velocity(velocity: Tensor) -> None:
    """Refuse what is no batch of velocities on boxes.

    Raises:
        UserError: the shape is not (batch, 3, x, y, z), an axis is empty, or the precision is
            neither single nor double.
    """
    check_precision(velocity, "the velocity")
    if velocity.ndim != 5 or velocity.shape[1] != 3 or 0 in velocity.shape:
        raise UserError(
            "the velocity should be (batch, 3, x, y, z), the components before space, got "
            f"{tuple(velocity.shape)}; move the axes, or add the one of samples"
        )


def check_box(box: Sequence[float], space: Sequence[int]) -> None:
    """Refuse boxes that do not belong to a grid.

    Raises:
        UserError: there are not three lengths above zero, or a cell is far from a cube.
    """
    box = as_box(box, 3)
    cells = [length / n for length, n in zip(box, space, strict=True)]
    if max(cells) > UNEVEN * min(cells):
        sides = ", ".join(f"{cell:.4g}" for cell in cells)
        raise UserError(
            f"box {box} does not match the grid {tuple(space)}: a cell would have sides "
            f"{sides}; check the order of the axes and the lengths"
        )


def check_divergence(fields: Tensor, box: Box, name: str) -> None:
    """Refuse fields with a divergence, and name the order of components that has none.

    Raises:
        UserError: the divergence is more than a twentieth of the gradient.
    """
    check_box(box, fields.shape[1:4])
    found = _relative_divergence(fields, box)
    if found <= DIVERGENT:
        return
    orders = [
        o for o in permutations(range(3)) if _relative_divergence(fields[..., o], box) <= DIVERGENT
    ]
    mend = "project it on fields without divergence, or check box and axes"
    if orders:
        mend = f"the components in the order {orders[0]} have none: pass them so"
    raise UserError(
        f"{name} has a divergence of {found:.2g} of its gradient, and the equations are of "
        f"incompressible flow; {mend}"
    )


def _relative_divergence(fields: Tensor, box: Box) -> float:
    """Return the root mean square of the divergence over that of the gradient."""
    sums = torch.zeros_like(fields[..., 0])
    square = 0.0
    for axis, length in enumerate(box):
        n = fields.shape[axis + 1]
        k = torch.fft.rfftfreq(n, length / n, device=fields.device).to(fields.dtype)
        k[n // 2 :] *= n % 2  # the Nyquist mode has no derivative
        shape = [1] * fields.ndim
        shape[axis + 1] = -1
        waves = torch.fft.rfft(fields, dim=axis + 1) * (2j * torch.pi * k.view(shape))
        gradient = torch.fft.irfft(waves, n, dim=axis + 1)
        sums += gradient[..., axis]
        square += float(gradient.square().sum())
    return (float(sums.square().sum()) / square) ** 0.5 if square else 0.0
