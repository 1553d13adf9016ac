"""SNR, delay spread and Doppler of a slot, estimated from its pilots by their moments.

One slot says little about its delay spread and Doppler; take the numbers as a guess. The Doppler
is known up to the first zero of J0 between neighbouring pilot symbols (595 Hz where they are nine
symbols of 15 kHz apart), and is that where it may be more.
"""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.wireless.iq.estimators import robust_statistics
from sixfold.wireless.iq.ofdm import Grid, Pilots, SnrReference, noise_variance

FIRST_ZERO = 2.404825557695773  # of J0
EMPTY = 1e-6  # share of the largest eigenvalue below which a direction holds noise alone
LEAST = 1e-3  # of the power, where noise explains more than there is


def estimate_conditions(
    estimates: Complex[Tensor, "batch pilot_subcarrier pilot_symbol"],
    pilots: Pilots,
    grid: Grid,
    reference: SnrReference = "grid",
) -> Float[Tensor, "batch 3"]:
    """Return SNR in dB, RMS delay spread in seconds and maximum Doppler in Hz of each sample.

    Args:
        estimates: Least-squares estimates at the pilots.
        pilots: Places of the pilots.
        grid: OFDM grid.
        reference: Meaning of the SNR; see `noise_variance`.

    Raises:
        UserError: the pilots are too few, or not at one distance, to tell noise from the channel;
            or those of a sample have no power.
    """
    wide = estimates.to(torch.complex128)
    noise = _noise(wide, pilots, grid)
    power = wide.abs().square().mean((1, 2))
    silent = (power == 0).nonzero()
    if len(silent):
        raise UserError(
            f"the pilots of sample {int(silent[0])} are 0 throughout and say nothing of its "
            "conditions; leave it out, or give snr_db, delay_spread_s and max_doppler_hz"
        )
    signal = torch.maximum(power - noise, LEAST * power)
    share = noise_variance(0.0, grid, pilots, reference)
    snr_db = 10 * (share * signal / noise.clamp(min=1e-12 * power)).log10()
    apart = max(1, len(pilots.subcarriers) // 4)  # far enough for short delay spreads to show
    over_frequency = (wide[:, apart:] * wide[:, :-apart].conj()).mean((1, 2)).abs() / signal
    apart_hz = (pilots.subcarriers[apart] - pilots.subcarriers[0]) * grid.spacing_hz
    spread_s = (2 * (1 - over_frequency).clamp(min=0)).sqrt() / (2 * math.pi * apart_hz)
    over_time = (wide[..., 1:] * wide[..., :-1].conj()).mean((1, 2)).abs() / signal
    times = grid.times_s()[list(pilots.symbols)]
    doppler_hz = _inverse_j0(over_time) / (2 * math.pi * times.diff().mean())
    return torch.stack([snr_db, spread_s, doppler_hz], 1).float()


def _noise(
    estimates: Complex[Tensor, "batch pilot_subcarrier pilot_symbol"], pilots: Pilots, grid: Grid
) -> Float[Tensor, " batch"]:
    """Return the power in the directions that no echo within the prefix reaches."""
    pilots.check(grid)
    rows = list(pilots.subcarriers)
    if len(set(torch.tensor(rows).diff().tolist())) != 1 or len(pilots.symbols) < 2:
        raise UserError(
            "conditions are estimated from two or more pilot symbols and from pilot subcarriers at "
            "one distance; give snr_db, delay_spread_s and max_doppler_hz"
        )
    covariance = robust_statistics(grid, 0.0).over_subcarriers[0][rows][:, rows]
    values, vectors = torch.linalg.eigh(covariance)
    empty = vectors[:, values < EMPTY * values.max()]
    if empty.shape[1] == 0:
        raise UserError(
            f"{len(rows)} pilot subcarriers cannot tell noise from echoes within the cyclic prefix;"
            " give snr_db, delay_spread_s and max_doppler_hz"
        )
    return (empty.mH @ estimates).abs().square().mean((1, 2))


def _inverse_j0(values: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return x between 0 and the first zero with J0(x) as given, from a table."""
    x = torch.linspace(FIRST_ZERO, 0, 2001, dtype=torch.float64)
    table = torch.special.bessel_j0(x)  # ascends from 0 to 1
    place = torch.searchsorted(table, values.clamp(0, 1)).clamp(max=len(x) - 1)
    return x[place]
