"""The Dormand-Prince 5(4) method with adaptive steps, differentiable through its steps.

J. R. Dormand and P. J. Prince, "A family of embedded Runge-Kutta formulae", 1980; starting step,
step control and the interpolation at the end as in E. Hairer, S. P. Norsett, G. Wanner, "Solving
Ordinary Differential Equations I", II.4 to II.6.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sixfold.core import UserError

NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),  # the fifth-order solution
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
# of the dense output, in whose quartic the last term is multiplied by s^2 (1 - s)^2
DENSE = (
    -12715105075 / 11282082432,
    0.0,
    87487479700 / 32700410799,
    -10690763975 / 1880347072,
    701980252875 / 199316789632,
    -1453857185 / 822651844,
    69997945 / 29380423,
)
SAFETY, SLOWEST, FASTEST = 0.9, 0.2, 10.0  # bounds of the change of a step
MOST_STEPS = 10_000

Derivative = Callable[[float, Tensor], Tensor]


def integrate(f: Derivative, y: Tensor, tolerance: float) -> Tensor:
    """Solve dy/ds = f(s, y) from s = 0 to 1.

    The last step may end beyond 1; the solution there is that of the step's quartic.

    Args:
        f: Derivative, a function of s and y.
        y: State at s = 0.
        tolerance: Largest local error, absolute and relative.

    Raises:
        UserError: the steps become too many, or the state is not finite.
    """
    if not y.numel():  # has no error to choose steps by
        return y
    slope = f(0.0, y)
    s, step = 0.0, _starting_step(f, y, slope, tolerance)
    for _ in range(MOST_STEPS):
        slopes = [slope]
        for node, row in zip(NODES[1:], STAGES[1:], strict=True):
            reached = y + step * _weighted(row, slopes)
            slopes.append(f(s + node * step, reached))
        error = _relative(step * _weighted(ERROR, slopes), y, reached, tolerance)
        _check_finite(error, s)
        if error <= 1:
            if s + step >= 1:
                return _between(y, reached, slopes, step, (1 - s) / step)
            s, y, slope = s + step, reached, slopes[-1]
        step *= _change(error)
    raise UserError(
        f"the latent equation needs more than {MOST_STEPS} steps (step {step:.2g} at s = {s:.3g}); "
        "raise the tolerance"
    )


def _check_finite(size: float, s: float) -> None:
    if not size < float("inf"):  # also for nan
        raise UserError(f"the latent state is not finite at s = {s:.3g}; lower the learning rate")


def _change(error: float) -> float:
    if error == 0:
        return FASTEST
    slowest = 1.0 if error < 1 else SLOWEST  # an accepted step is not followed by a smaller one
    return min(FASTEST, max(slowest, SAFETY * error ** (-1 / 5)))


@torch.no_grad()
def _starting_step(f: Derivative, y: Tensor, slope: Tensor, tolerance: float) -> float:
    """Guess a step from the sizes of the first and second derivatives."""
    state, first = _relative(y, y, y, tolerance), _relative(slope, y, y, tolerance)
    _check_finite(first, 0.0)
    guess = 1e-6 if min(state, first) < 1e-5 else 0.01 * state / first
    change = f(guess, y + guess * slope) - slope
    second = _relative(change, y, y, tolerance) / guess
    largest = max(first, second)
    refined = max(1e-6, guess * 1e-3) if largest <= 1e-15 else (0.01 / largest) ** (1 / 5)
    return min(100 * guess, refined)


@torch.no_grad()
def _relative(error: Tensor, before: Tensor, after: Tensor, tolerance: float) -> float:
    """Return the root mean square of an error in units of what is tolerated."""
    tolerated = tolerance * (1 + torch.maximum(before.abs(), after.abs()))
    return float((error / tolerated).square().mean().sqrt())


def _weighted(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    terms = [w * slope for w, slope in zip(weights, slopes, strict=True) if w]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _between(before: Tensor, after: Tensor, slopes: list[Tensor], step: float, s: float) -> Tensor:
    """Evaluate the quartic of a step at the fraction s of it."""
    change = after - before
    start = step * slopes[0] - change
    end = change - step * slopes[-1] - start
    quartic = step * _weighted(DENSE, slopes)
    r = 1 - s
    return before + s * (change + r * (start + s * (end + r * quartic)))
