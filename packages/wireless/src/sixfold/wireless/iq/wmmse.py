"""WMMSE: the usual iteration for the best sum rate of a linear precoder, in two forms.

Q. Shi, M. Razaviyayn, Z.-Q. Luo, C. He, "An Iteratively Weighted MMSE Approach to Distributed Sum-
Utility Maximization for a MIMO Interfering Broadcast Channel", IEEE TSP 2011: `wmmse_textbook`.

X. Zhao, S. Lu, Q. Shi, Z.-Q. Luo, "Rethinking WMMSE: Can Its Complexity Scale Linearly With the
Number of BS Antennas?", IEEE TSP 2023: the best precoder lies in the span of the channels and uses
all power. Written as W = H^H C, with the noise scaled by the power used, an iteration is one K x K
solve, without bisection: `wmmse`.
"""

from typing import NamedTuple

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from sixfold.wireless.iq.mimo_channels import rayleigh
from sixfold.wireless.iq.precoding import gram, rates_of_gains, rzf, safe_rsqrt, safe_sqrt

WINDOW = 10  # iterations over which the gain is looked at: a single small step is no end


class WMMSE(NamedTuple):
    """Outcome of an iteration.

    Args:
        precoder: Precoders, using all power.
        sum_rate: Sum rate, in bit/s/Hz.
        iterations: Iterations after which a channel had converged, or all of them.
        history: Sum rate after each iteration.
    """

    precoder: Complex[Tensor, "*batch antennas users"]
    sum_rate: Float[Tensor, "*batch"]
    iterations: Int[Tensor, "*batch"]
    history: Float[Tensor, "iterations *batch"]


def wmmse(
    channel: Complex[Tensor, "*batch users antennas"],
    noise_power: float | Tensor,
    power: float = 1.0,
    *,
    iterations: int = 300,
    tolerance: float = 1e-5,
    starts: int = 1,
    generator: torch.Generator | None = None,
) -> WMMSE:
    """Maximise the sum rate from one or several starts, keeping each channel's best.

    The rate never falls. It ends when no channel gained more than a share of its rate over the last
    ten iterations: the rate may creep for long before it rises.

    Args:
        channel: Channels.
        noise_power: Noise power, one or one a channel.
        power: Power of the precoder.
        iterations: Largest number of iterations of a start.
        tolerance: Gain over ten iterations, as a share of the rate, that counts as none.
        starts: Number of starts: regularised zero forcing, then random ones.
        generator: Source of the random starts; a fresh one with seed 0 if unset.
    """
    generator = generator or torch.Generator(channel.device).manual_seed(0)
    batch, (users, _) = channel.shape[:-2], channel.shape[-2:]
    noise = torch.as_tensor(noise_power, dtype=channel.real.dtype, device=channel.device)
    noise = noise.expand(batch) / power
    inner = gram(channel)
    best = None
    for number in range(starts):
        first = regularised(inner, noise)
        if number:
            count = max(1, batch.numel())
            drawn = rayleigh(count, users, users, generator=generator, dtype=noise.dtype)
            first = drawn.reshape(*batch, users, users)
        found = _iterate(inner, noise, first, iterations, tolerance)
        best = found if best is None else _better(best, found)
    assert best is not None
    precoder = power**0.5 * (channel.mH @ best.precoder)
    return best._replace(precoder=precoder)


def regularised(
    inner: Complex[Tensor, "*batch users users"], noise: Float[Tensor, "*batch"]
) -> Complex[Tensor, "*batch users users"]:
    """Return the coefficients of regularised zero forcing in the span of the channels."""
    users = inner.shape[-1]
    eye = torch.eye(users, dtype=inner.dtype, device=inner.device)
    return torch.cholesky_inverse(
        torch.linalg.cholesky(inner + users * noise[..., None, None] * eye)
    )


def _iterate(
    inner: Tensor, noise: Tensor, first: Tensor, iterations: int, tolerance: float
) -> WMMSE:
    """Iterate on coefficients C of W = H^H C, at power 1."""
    coefficients, gains, rate = _scaled(inner, first, noise)
    history = [rate]
    converged = torch.full(rate.shape, iterations, device=rate.device)
    for number in range(1, iterations + 1):
        coefficients, gains, rate = _scaled(inner, _step(inner, gains, noise), noise)
        history.append(rate)
        if number >= WINDOW:
            still = rate - history[-1 - WINDOW] <= tolerance * rate
            converged = torch.where(still, converged.clamp(max=number), converged)
            if bool(still.all()):
                break
    return WMMSE(coefficients, rate, converged, torch.stack(history[1:]))


def _scaled(inner: Tensor, coefficients: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scale to power 1; return the coefficients, the gains H W and the sum rate."""
    gains = inner @ coefficients
    used = (coefficients.conj() * gains).real.sum((-2, -1))
    scale = safe_rsqrt(used)[..., None, None]
    gains = scale * gains
    return scale * coefficients, gains, rates_of_gains(gains, noise).sum(-1)


def _step(inner: Tensor, gains: Tensor, noise: Tensor) -> Tensor:
    """Return the next coefficients L (L G L + mu)^-1 diag(sqrt(weight) phase), up to a scale."""
    signal = gains.diagonal(dim1=-2, dim2=-1)
    power, others = _powers(gains, noise)
    # A user that the iteration has left out would shrink to where its phase is NaN: it is off.
    power = torch.where(power > torch.finfo(power.dtype).eps ** 2 * others, power, 0.0)
    weight = 1 + power / others
    root = weight.sqrt() * safe_sqrt(power) / (power + others)
    mu = (noise[..., None] * root.square()).sum(-1)
    system = root[..., None] * inner * root[..., None, :]
    system = system + torch.diag_embed(mu[..., None].expand_as(root)).to(inner.dtype)
    phase = signal * safe_rsqrt(power)
    right = torch.diag_embed(weight.sqrt() * phase)
    solution = torch.cholesky_solve(right, torch.linalg.cholesky(system))
    return root[..., None] * solution


def _powers(gains: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return the power of each user's signal, and that of interference and noise."""
    received = gains.real.square() + gains.imag.square()
    signal = received.diagonal(dim1=-2, dim2=-1)
    return signal, (received - torch.diag_embed(signal)).sum(-1) + noise[..., None]


def _better(a: WMMSE, b: WMMSE) -> WMMSE:
    """Keep, channel by channel, the outcome of the higher rate."""
    wins = b.sum_rate > a.sum_rate
    length = max(len(a.history), len(b.history))
    histories = [
        torch.cat([x, x[-1:].expand(length - len(x), *x.shape[1:])]) for x in (a.history, b.history)
    ]
    return WMMSE(
        torch.where(wins[..., None, None], b.precoder, a.precoder),
        torch.where(wins, b.sum_rate, a.sum_rate),
        torch.where(wins, b.iterations, a.iterations),
        torch.where(wins, histories[1], histories[0]),
    )


def wmmse_textbook(
    channel: Complex[Tensor, "*batch users antennas"],
    noise_power: float | Tensor,
    power: float = 1.0,
    *,
    iterations: int = 300,
) -> WMMSE:
    """Iterate in the published form: an M x M decomposition and a bisection an iteration.

    Starts at regularised zero forcing. Kept because papers report it; `wmmse` reaches the same
    rates in a fraction of the time.
    """
    noise = torch.as_tensor(noise_power, dtype=channel.real.dtype, device=channel.device)
    noise = noise.expand(channel.shape[:-2])
    precoder, history = rzf(channel, noise, power), []
    for _ in range(iterations):
        gains = channel @ precoder
        signal, others = _powers(gains, noise)
        receiver = gains.diagonal(dim1=-2, dim2=-1) / (signal + others)
        weight = 1 + signal / others
        demands = weight * receiver.abs().square()
        covariance = channel.mH @ (demands[..., None] * channel)
        right = channel.mH * (weight * receiver)[..., None, :]
        precoder = _within_power(covariance, right, power)
        history.append(rates_of_gains(channel @ precoder, noise).sum(-1))
    used = torch.full(noise.shape, iterations, device=channel.device)
    return WMMSE(precoder, history[-1], used, torch.stack(history))


def _within_power(covariance: Tensor, right: Tensor, power: float, halvings: int = 100) -> Tensor:
    """Return (covariance + mu)^-1 right with the least mu >= 0 that keeps within the power."""
    values, vectors = torch.linalg.eigh(covariance)
    rotated = vectors.mH @ right
    shares = (rotated.real.square() + rotated.imag.square()).sum(-1)
    floor = values[..., -1:] * values.shape[-1] * torch.finfo(values.dtype).eps
    shares = torch.where(values > floor, shares, 0.0)  # directions that reach nobody

    def used(mu: Tensor) -> Tensor:
        return (shares / (values.clamp(min=floor) + mu[..., None]).square()).sum(-1)

    low = torch.zeros_like(values[..., 0])
    high = (shares.sum(-1) / power).sqrt()
    for _ in range(halvings):
        middle = (low + high) / 2
        over = used(middle) > power
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    inverse = torch.where(values > floor, 1 / (values.clamp(min=floor) + high[..., None]), 0.0)
    return vectors @ (inverse[..., None] * rotated)
