"""Detectors of occupied bins that need no weights: thresholds on a smoothed periodogram.

Noise alone gives a mean over n bins that follows a Gamma distribution of shape n. So the threshold
that a set false-alarm rate asks for is known, but for the noise floor; that is the median over the
band, which signals in less than half of it move little. Below 256 bins the median itself is unsure:
at 64 bins, a rate of 1e-3 becomes twice that.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor
from torch.nn import functional

from sixfold.core import UserError
from sixfold.wireless.iq.occupancy import intervals

# Root-raised-cosine signals of 2 samples a symbol fill (1 + roll-off) / 2 of their label.
OCCUPIED_FRACTION = 0.675


def smoothed_periodogram(
    spectrum: Complex[Tensor, "batch bin"], smooth_bins: int
) -> Float[Tensor, "batch bin"]:
    """Return the power averaged over an odd number of bins; the band's ends are its neighbours.

    Raises:
        UserError: the number is even, or larger than the spectrum.
    """
    bins = spectrum.shape[-1]
    if smooth_bins % 2 == 0 or not 1 <= smooth_bins <= bins:
        raise UserError(f"smooth over an odd number of 1 to {bins} bins, got {smooth_bins}")
    power = torch.view_as_real(spectrum).square().sum(-1)
    half = smooth_bins // 2
    padded = functional.pad(power[:, None], (half, half), mode="circular")
    return functional.avg_pool1d(padded, smooth_bins, 1)[:, 0]


def noise_probability(
    spectrum: Complex[Tensor, "batch bin"], smooth_bins: int | None = None
) -> Float[Tensor, "batch bin"]:
    """Return, in float64, how likely noise alone gives less power than was found at each bin.

    A block without any power gives 0.

    Args:
        spectrum: Shifted FFT of each block, in any scale.
        smooth_bins: Odd number of bins to average over; by default about 1 in 128.
    """
    from scipy.special import gammainccinv  # slow to import

    smooth_bins = smooth_bins or spectrum.shape[-1] // 256 * 2 + 1
    power = smoothed_periodogram(spectrum, smooth_bins).double()
    floor = power.median(-1, keepdim=True).values.clamp_min(torch.finfo(torch.float64).tiny)
    shape = torch.full_like(power, smooth_bins)
    return torch.special.gammainc(shape, power / floor * float(gammainccinv(smooth_bins, 0.5)))


def energy_detector(
    spectrum: Complex[Tensor, "batch bin"],
    *,
    false_alarm_rate: float = 1e-3,
    smooth_bins: int | None = None,
) -> Bool[Tensor, "batch bin"]:
    """Decide that bins are occupied where the smoothed power is above what noise reaches.

    Args:
        spectrum: Shifted FFT of each block, in any scale.
        false_alarm_rate: Fraction of the bins of white noise that are decided to be occupied.
        smooth_bins: Odd number of bins to average over; by default about 1 in 128.

    Raises:
        UserError: the rate is not between 0 and 1, or the number of bins does not fit.
    """
    if not 0 < false_alarm_rate < 1:
        raise UserError(f"a false-alarm rate is between 0 and 1, got {false_alarm_rate}")
    return noise_probability(spectrum, smooth_bins) > 1 - false_alarm_rate


def snap_widths(
    occupied: Bool[Tensor, "batch bin"],
    widths: Sequence[float],
    *,
    occupied_fraction: float = OCCUPIED_FRACTION,
) -> Bool[Tensor, "batch bin"]:
    """Replace each interval by the nearest legal label around its centre.

    Labels are wider than the signals in them, so a perfect energy detector misses their edges; a
    network learns the legal widths, and a fair detector is told them.

    Args:
        occupied: Decisions of a detector.
        widths: Legal widths of labels, in bins.
        occupied_fraction: Part of a label's width that a signal fills.
    """
    legal = np.asarray(widths, dtype=float)
    snapped = torch.zeros_like(occupied)
    for row, mask in zip(snapped, occupied.cpu().numpy(), strict=True):
        for first, last in intervals(mask):
            width = last - first + 1
            label = legal[np.abs(np.log(width / (occupied_fraction * legal))).argmin()]
            center = (first + last + 1) / 2
            low, high = np.floor(center - label / 2), np.ceil(center + label / 2)
            row[max(0, int(low)) : max(0, int(high))] = True
    return snapped
