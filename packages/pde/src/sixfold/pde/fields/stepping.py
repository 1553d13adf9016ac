"""What all solvers share: frames at equal times, Runge-Kutta, and the checks of input."""

import math
from collections.abc import Callable, Sequence

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


def check_choice(kind: str, value: str, known: Sequence[str]) -> None:
    """Refuse a word that is none of the known ones.

    Raises:
        UserError: it names them.
    """
    if value not in known:
        raise UserError(unknown_name_error("the solver", kind, value, known))


def check_viscosity(viscosity: float | Tensor) -> None:
    """Refuse a negative viscosity.

    Raises:
        UserError: it is negative, or not a number.
    """
    if not bool((torch.as_tensor(viscosity) >= 0).all()):
        raise UserError(
            f"viscosity should not be negative, got {viscosity}: such equations blow up; give "
            "zero or more"
        )


def check_precision(field: Tensor, name: str) -> None:
    """Refuse what is neither single nor double precision.

    Raises:
        UserError: it names the precision.
    """
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
