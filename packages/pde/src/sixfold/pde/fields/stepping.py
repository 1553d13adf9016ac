"""What all solvers share: frames at equal times, Runge-Kutta, and the checks of input."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.config import unknown_name_error

ADVECTION, DIFFUSION = 2.83, 2.78  # where Runge-Kutta's region of stability ends on both axes


def steps_between(every: float, time_step: float) -> int:
    """Return how many steps make the time between two frames.

    Raises:
        UserError: no whole number of steps does.
    """
    check_positive(every=every)
    if math.isinf(every):
        raise UserError("frames every inf would take for ever; give a finite time")
    steps = round(every / time_step)
    if steps < 1 or abs(steps * time_step - every) > 1e-6 * every:
        raise UserError(
            f"frames every {every:g} are no whole number of time steps of {time_step:g}; "
            f"take time_step={every / max(1, steps):.6g}"
        )
    return steps


def runge_kutta(slope: Callable[[Tensor], Tensor], state: Tensor, dt: float) -> Tensor:
    """Take one classical Runge-Kutta step of fourth order."""
    a = slope(state)
    b = slope(torch.add(state, a, alpha=dt / 2))
    c = slope(torch.add(state, b, alpha=dt / 2))
    d = slope(torch.add(state, c, alpha=dt))
    return torch.add(state, a + 2 * (b + c) + d, alpha=dt / 6)


def check_positive(**numbers: int | float | Sequence[float]) -> None:
    """Refuse numbers, or lists with one, that are not above zero.

    Raises:
        UserError: it names the argument.
    """
    for name, value in numbers.items():
        values = value if isinstance(value, Sequence) else (value,)
        if not all(v > 0 for v in values):
            raise UserError(f"{name} should be positive, got {value}")


def check_not_negative(**numbers: int | float) -> None:
    """Refuse numbers below zero.

    Raises:
        UserError: it names the argument.
    """
    for name, value in numbers.items():
        if not value >= 0:  # also for nan
            raise UserError(f"{name} should not be negative, got {value}")


def check_counts(**numbers: int) -> None:
    """Refuse what is no whole number from one on.

    Raises:
        UserError: it names the argument.
    """
    for name, value in numbers.items():
        if not (isinstance(value, int) and value >= 1):
            raise UserError(f"{name} should be a whole number from 1, got {value!r}")


def as_grid(grid: Sequence[int], axes: int, *, least: int = 1) -> Any:
    """Return a tuple of the numbers of points along so many axes.

    Raises:
        UserError: there are more or fewer numbers, or one is no whole number from the least on.
    """
    sides = tuple(grid) if isinstance(grid, Sequence) else ()
    if len(sides) != axes or not all(isinstance(n, int) and n >= least for n in sides):
        raise UserError(
            f"grid should be {axes} whole numbers from {least}, the points along "
            f"{'xyz'[:axes]}, got {grid!r}"
        )
    return sides


def as_box(box: Sequence[float], axes: int) -> Any:
    """Return a tuple of the lengths of a box along so many axes, of any kind of sequence.

    Raises:
        UserError: there are more or fewer lengths, or one is not positive and finite.
    """
    try:
        sides = tuple(float(length) for length in box)
    except (TypeError, ValueError):  # one number, or what is no number
        sides = ()
    if len(sides) != axes or not all(0 < length < math.inf for length in sides):
        raise UserError(
            f"box should be {axes} positive lengths, those along {'xyz'[:axes]}, got {box!r}"
        )
    return sides


def check_one_or_each(value: float | Tensor, name: str, samples: int) -> None:
    """Refuse a parameter that is neither one number nor one for each sample.

    Raises:
        UserError: it has another number of values, or one is not finite.
    """
    given = torch.as_tensor(value)
    if given.numel() not in (1, samples) or not bool(given.isfinite().all()):
        raise UserError(
            f"{name} should be one finite number, or one for each of {samples} samples, got {value}"
        )


def check_choice(kind: str, value: str, known: Sequence[str]) -> None:
    """Refuse a word that is none of the known ones.

    Raises:
        UserError: it names them.
    """
    if value not in known:
        raise UserError(unknown_name_error("the solver", kind, value, known))


def check_viscosity(viscosity: float | Tensor, name: str = "viscosity") -> None:
    """Refuse a negative viscosity, or one for each sample.

    Raises:
        UserError: it is negative, not a number, or several.
    """
    given = torch.as_tensor(viscosity)
    if given.numel() != 1:
        raise UserError(f"{name} should be one number for all samples, got {viscosity}")
    if not bool(given >= 0):
        raise UserError(
            f"{name} should not be negative, got {viscosity}: such equations blow up; give "
            "zero or more"
        )


def check_precision(field: Tensor, name: str) -> None:
    """Refuse what is no tensor in single or double precision.

    Raises:
        UserError: it names what it is.
    """
    if not isinstance(field, Tensor):
        raise UserError(f"{name} should be a tensor, got {type(field).__name__}; torch.tensor it")
    if field.dtype not in (torch.float32, torch.float64):
        raise UserError(
            f"{name} should be in single or double precision, got {field.dtype}; convert it by "
            ".float()"
        )


def check_finite(field: Tensor, name: str, axes: str) -> None:
    """Refuse fields with values that are not finite.

    Args:
        field: Field.
        name: Name of the field in the message.
        axes: Names of the axes in the message.

    Raises:
        UserError: it says how many and where the first is.
    """
    wrong = ~field.isfinite()
    if bool(wrong.any()):
        place = tuple(int(i) for i in wrong.nonzero()[0])
        raise UserError(
            f"{name} holds {int(wrong.sum())} values that are not finite, the first at {place} of "
            f"({axes}); repair the data, or take a smaller time step"
        )
