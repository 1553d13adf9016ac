"""Channel estimators without a network, and the bounds that no estimator passes.

Interpolation of least-squares estimates; linear minimum mean square error (LMMSE) with statistics
that are known, averaged over a training set, or robust.

For Gaussian fading (TDL-A, B, C) LMMSE with known statistics is the best of all estimators: its
error is a bound. A line of sight (TDL-D, E) is not Gaussian, so there it bounds linear estimators.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.wireless.iq.ofdm import Grid, Pilots
from sixfold.wireless.iq.tdl import LOS_DOPPLER, TDL

Wide = torch.complex128


def bilinear(
    estimates: Complex[Tensor, "batch pilot_subcarrier pilot_symbol"], pilots: Pilots, grid: Grid
) -> Complex[Tensor, "batch subcarrier symbol"]:
    """Interpolate linearly over symbols, then over subcarriers; extrapolate alike at the edges."""
    pilots.check(grid)
    over_symbols = _interpolation(pilots.symbols, grid.symbols).to(estimates)
    over_subcarriers = _interpolation(pilots.subcarriers, grid.subcarriers).to(estimates)
    return over_subcarriers @ (estimates @ over_symbols.mT)


def _interpolation(known: tuple[int, ...], size: int) -> Float[Tensor, "place known"]:
    """Return the matrix from values at known places to all places; one value stays constant."""
    if len(known) == 1:
        return torch.ones(size, 1, dtype=torch.float64)
    places, nodes = torch.arange(size), torch.tensor(known)
    right = torch.searchsorted(nodes, places).clamp(1, len(known) - 1)
    left = right - 1
    weight = (places - nodes[left]).double() / (nodes[right] - nodes[left])
    matrix = torch.zeros(size, len(known), dtype=torch.float64)
    matrix[places, left] = 1 - weight
    matrix[places, right] = weight
    return matrix


class Statistics(NamedTuple):
    """Covariance of a channel grid: the sum of products of one over frequency and one over time.

    Args:
        over_subcarriers: Covariances between subcarriers, one per term.
        over_symbols: Covariances between symbols, one per term.
    """

    over_subcarriers: Complex[Tensor, "*batch term subcarrier subcarrier"]
    over_symbols: Complex[Tensor, "*batch term symbol symbol"]

    def between(
        self, pilots: Pilots
    ) -> tuple[Complex[Tensor, "*batch element pilot"], Complex[Tensor, "*batch pilot pilot"]]:
        """Return the covariance of all elements with the pilots, and of the pilots."""
        rows, columns = list(pilots.subcarriers), list(pilots.symbols)
        left, right = self.over_subcarriers[..., rows], self.over_symbols[..., columns]
        inner = left[..., rows, :], right[..., columns, :]
        return _sum_of_products(left, right), _sum_of_products(*inner)

    def power(self) -> Float[Tensor, "*batch"]:
        """Return the mean power of an element."""
        left = self.over_subcarriers.diagonal(dim1=-2, dim2=-1).real.mean(-1)
        right = self.over_symbols.diagonal(dim1=-2, dim2=-1).real.mean(-1)
        return (left * right).sum(-1)


def _sum_of_products(
    left: Complex[Tensor, "*batch term a b"], right: Complex[Tensor, "*batch term c d"]
) -> Complex[Tensor, "*batch ac bd"]:
    product = torch.einsum("...tab,...tcd->...acbd", left, right)
    return product.flatten(-2).flatten(-3, -2)


def tdl_statistics(
    channel: TDL,
    delay_spread_s: Float[Tensor, "..."] | float,
    max_doppler_hz: Float[Tensor, "..."] | float,
) -> Statistics:
    """Return the statistics of a tapped delay line, in float64.

    Args:
        channel: Tapped delay line.
        delay_spread_s: RMS delay spread in seconds.
        max_doppler_hz: Maximum Doppler in Hz.
    """
    given = (torch.as_tensor(v, dtype=torch.float64) for v in (delay_spread_s, max_doppler_hz))
    spread, doppler = (v[..., None, None] for v in torch.broadcast_tensors(*given))
    frequencies, times = channel.grid.frequencies_hz(), channel.grid.times_s()
    apart = frequencies[:, None] - frequencies
    lags = 2 * math.pi * doppler * (times[:, None] - times)
    powers, delays = channel.powers.detach().double(), channel.delays.detach().double()
    angle = 2 * math.pi * apart[..., None] * (spread[..., None] * delays)
    waves = torch.polar(powers.expand_as(angle), -angle)
    jakes = torch.special.bessel_j0(lags).to(Wide)
    if not channel.line_of_sight:
        return Statistics(waves.sum(-1)[..., None, :, :], jakes[..., None, :, :])
    direct = torch.polar(torch.ones_like(lags), LOS_DOPPLER * lags)
    return Statistics(
        torch.stack([waves[..., 0], waves[..., 1:].sum(-1)], -3), torch.stack([direct, jakes], -3)
    )


def robust_statistics(grid: Grid, max_doppler_hz: float) -> Statistics:
    """Return statistics that presume little: echoes anywhere in the prefix, the largest Doppler.

    Args:
        grid: OFDM grid.
        max_doppler_hz: Largest Doppler that is to be expected, in Hz.
    """
    frequencies, times = grid.frequencies_hz(), grid.times_s()
    turns = (frequencies[:, None] - frequencies) * grid.prefix_s
    uniform = torch.polar(torch.sinc(turns), -math.pi * turns)
    lags = 2 * math.pi * max_doppler_hz * (times[:, None] - times)
    return Statistics(uniform[None], torch.special.bessel_j0(lags).to(Wide)[None])


@dataclass(frozen=True)
class Estimator:
    """A linear estimator of the grid, and the mean square error that it expects.

    Args:
        weights: Matrix from pilots to elements, both in row-major order.
        mse: Expected mean square error of an element; NaN where it is not known.
        symbols: Number of symbols of the grid.
    """

    weights: Complex[Tensor, "*batch element pilot"]
    mse: Float[Tensor, "*batch"]
    symbols: int

    def __call__(
        self, estimates: Complex[Tensor, "batch pilot_subcarrier pilot_symbol"]
    ) -> Complex[Tensor, "batch subcarrier symbol"]:
        """Estimate channels from least-squares estimates at the pilots."""
        flat = estimates.flatten(1).to(self.weights.dtype)
        grid = (self.weights @ flat[..., None])[..., 0].unflatten(-1, (-1, self.symbols))
        return grid.to(estimates.dtype)


def lmmse(
    statistics: Statistics,
    pilots: Pilots,
    noise_variance: Float[Tensor, "..."] | float,
    *,
    real_part: bool = False,
) -> Estimator:
    """Make the LMMSE estimator for known statistics: R_hp (R_pp + noise I)^-1.

    Args:
        statistics: Statistics of the channel; a batch of them makes an estimator per sample.
        pilots: Places of the pilots.
        noise_variance: Variance of the noise at a pilot.
        real_part: Whether real and imaginary part are estimated each from its own kind, with the
            real part of the covariances, which is the limit of the published network.

    Raises:
        UserError: the variance is negative, or 0 where the pilots depend on each other.
    """
    cross, inner = statistics.between(pilots)
    if real_part:
        cross, inner = cross.real.to(Wide), inner.real.to(Wide)
    weights = _solve(cross, inner, torch.as_tensor(noise_variance, dtype=torch.float64))
    explained = (weights * cross.conj()).sum(-1).real.mean(-1)
    symbols = statistics.over_symbols.shape[-1]
    return Estimator(weights, statistics.power() - explained, symbols)


def averaged_lmmse(
    channels: Complex[Tensor, "sample subcarrier symbol"],
    estimates: Complex[Tensor, "sample pilot_subcarrier pilot_symbol"],
    noise_variance: float,
    *,
    double_noise: bool = False,
) -> Estimator:
    """Make the LMMSE estimator for the covariances of a training set.

    The covariance of noisy pilots holds the noise already.

    Args:
        channels: True channels.
        estimates: Least-squares estimates at the pilots, with noise.
        noise_variance: Mean variance of the noise at a pilot.
        double_noise: Whether the noise is added a second time, as the official code does.

    Raises:
        UserError: the samples are too few for the number of pilots.
    """
    h, p = channels.flatten(1).to(Wide), estimates.flatten(1).to(Wide)
    cross, inner = h.mT @ p.conj() / len(h), p.mT @ p.conj() / len(p)
    added = noise_variance if double_noise else 0.0
    weights = _solve(cross, inner, torch.tensor(added, dtype=torch.float64))
    unknown = torch.tensor(math.nan, dtype=torch.float64)
    return Estimator(weights, unknown, channels.shape[-1])


def _solve(
    cross: Complex[Tensor, "*batch element pilot"],
    inner: Complex[Tensor, "*batch pilot pilot"],
    noise: Float[Tensor, "..."],
) -> Complex[Tensor, "... element pilot"]:
    """Return cross (inner + noise I)^-1."""
    if bool((noise < 0).any()):
        raise UserError(f"the noise variance is {noise.min():g}; it should be 0 or more")
    eye = torch.eye(inner.shape[-1], dtype=inner.dtype)
    factor, failed = torch.linalg.cholesky_ex(inner + noise[..., None, None] * eye)
    if bool(failed.any()):
        raise UserError(
            "the covariance of the pilots is singular without noise (more pilots than the channel "
            "has freedom, or than samples); give a noise variance above 0, or more samples"
        )
    return torch.cholesky_solve(cross.mH, factor).mH
