"""How access points share their power among users: spectral efficiency, and the usual rules.

Each access point precodes by maximum ratio with statistical normalisation, its users being those
that ``serve`` marks. beta is the gain over noise for 1 mW (not in dB), eta the power in mW. An
access point may serve nobody: it sends nothing.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sixfold.wireless.iq.precoding import safe_sqrt

POWER_MW = 1000.0


def sinr(
    gain: Float[Tensor, "*batch aps users"],
    eta: Float[Tensor, "*batch aps users"],
    antennas: int | Tensor,
) -> Float[Tensor, "*batch users"]:
    """Return each user's SINR by the hardening bound.

    (sum_l sqrt(eta_lk N_l beta_lk))^2 / (sum_l beta_lk sum_i eta_li + 1).

    Args:
        gain: Gains over noise beta.
        eta: Powers; 0 where an access point does not serve a user.
        antennas: Antennas N of an access point: one number, or one per access point.
    """
    return _sinr_of_amplitudes(gain, safe_sqrt(eta), eta.sum(-1), antennas)


def spectral_efficiency(
    gain: Float[Tensor, "*batch aps users"],
    eta: Float[Tensor, "*batch aps users"],
    antennas: int | Tensor,
) -> Float[Tensor, "*batch users"]:
    """Return log2(1 + SINR) of each user, in bit/s/Hz; see `sinr`."""
    return torch.log1p(sinr(gain, eta, antennas)) / math.log(2)


def fractional(
    gain: Float[Tensor, "*batch aps users"],
    serve: Bool[Tensor, "*batch aps users"],
    exponent: float,
    power_mw: float | Tensor = POWER_MW,
) -> Float[Tensor, "*batch aps users"]:
    """Share each access point's whole power in proportion to beta^exponent.

    Args:
        gain: Gains over noise beta.
        serve: Which access point serves which user.
        exponent: Exponent: 0 is equal shares, below 0 favours users far away.
        power_mw: Power of an access point: one number, or one per access point.
    """
    # Relative to the strongest user, or a power of a gain could leave the range of floats.
    logs = gain.log()
    logs = exponent * logs if exponent else torch.zeros_like(logs)  # a gain of 0 has a log of -inf
    logs = logs.masked_fill(~serve, -math.inf)
    top = logs.amax(-1, keepdim=True)
    shares = (logs - torch.where(top.isfinite(), top, 0.0)).exp()
    total = shares.sum(-1, keepdim=True)
    power = _per_access_point(power_mw, gain)[..., None]
    return power * shares / torch.where(total > 0, total, 1.0)


def equal(
    gain: Float[Tensor, "*batch aps users"],
    serve: Bool[Tensor, "*batch aps users"],
    power_mw: float | Tensor = POWER_MW,
) -> Float[Tensor, "*batch aps users"]:
    """Share each access point's whole power equally among its users."""
    return fractional(gain, serve, 0.0, power_mw)


def max_min(
    gain: Float[Tensor, "*batch aps users"],
    serve: Bool[Tensor, "*batch aps users"],
    antennas: int | Tensor,
    power_mw: float | Tensor = POWER_MW,
    *,
    iterations: int = 500,
) -> Float[Tensor, "*batch aps users"]:
    """Scale the split in proportion to beta by one factor a user until all SINRs are equal.

    The factors are a fixed point, renormalised to the access point that is loaded most. It is the
    best worst user among the allocations of this form, not among all of them.
    """
    split = fractional(gain, serve, 1.0, power_mw)
    budget = _per_access_point(power_mw, gain)[..., None]
    signal = _amplitude(gain, safe_sqrt(split), antennas).square()
    cross = gain.mT @ split  # what one unit of a user's factor costs another
    factors = torch.ones_like(signal)
    for _ in range(iterations):
        needed = ((cross @ factors[..., None])[..., 0] + 1) / signal
        load = ((split @ needed[..., None]) / budget).amax((-2, -1))
        factors = needed / load[..., None]
    return split * factors[..., None, :]


def projected_gradient(
    gain: Float[Tensor, "*batch aps users"],
    serve: Bool[Tensor, "*batch aps users"],
    antennas: int | Tensor,
    power_mw: float | Tensor = POWER_MW,
    *,
    steps: int = 500,
    step_size: float = 0.05,
) -> Float[Tensor, "*batch aps users"]:
    """Maximise the sum of spectral efficiencies directly: the reference, near the optimum.

    The variables are x = sqrt(eta / power), for which the budget is the unit ball; each step is one
    of Adam, cosine-annealed, projected onto the ball's non-negative part. Starts from equal shares
    and from the fractional rules of exponents 0.5 and 1, each at full and at a tenth of the power,
    and keeps each layout's best point.
    """
    power = _per_access_point(power_mw, gain)[..., None]
    rules = [fractional(gain, serve, exponent, power_mw) for exponent in (0.0, 0.5, 1.0)]
    starts = torch.stack([scale * rule for scale in (1.0, 0.1) for rule in rules])
    gain = gain.detach().expand_as(starts)
    x = (starts / power).sqrt().detach().requires_grad_()
    optimizer = torch.optim.Adam([x], step_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best, best_rate = starts, spectral_efficiency(gain, starts, antennas).sum(-1)
    with torch.enable_grad():
        for _ in range(steps):
            total = x.square().sum(-1) * power[..., 0]
            found = _sinr_of_amplitudes(gain, x * power.sqrt(), total, antennas)
            (-torch.log1p(found).sum()).backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            with torch.no_grad():
                x.copy_(_into_ball(x, serve))
                eta = power * x.square()
                rate = spectral_efficiency(gain, eta, antennas).sum(-1)
                best = torch.where((rate > best_rate)[..., None, None], eta, best)
                best_rate = torch.maximum(rate, best_rate)
    winner = best_rate.argmax(0)[None, ..., None, None]
    return best.take_along_dim(winner, 0)[0]


def _into_ball(x: Tensor, serve: Tensor) -> Tensor:
    x = torch.where(serve, x, 0.0).clamp(min=0)
    return x / x.square().sum(-1, keepdim=True).sqrt().clamp(min=1)


def _per_access_point(value: float | int | Tensor, gain: Tensor) -> Tensor:
    """Return one number per access point, in the shape of the gains less the users."""
    numbers = torch.as_tensor(value, dtype=gain.dtype, device=gain.device)
    return numbers.expand(*gain.shape[:-1])


def _amplitude(gain: Tensor, roots: Tensor, antennas: int | Tensor) -> Tensor:
    return (roots * (_per_access_point(antennas, gain)[..., None] * gain).sqrt()).sum(-2)


def _sinr_of_amplitudes(
    gain: Tensor, roots: Tensor, totals: Tensor, antennas: int | Tensor
) -> Tensor:
    """Return the SINR from the roots of the powers and their sums over users."""
    noise_and_others = (gain * totals[..., None]).sum(-2) + 1
    return _amplitude(gain, roots, antennas).square() / noise_and_others
