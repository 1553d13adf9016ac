"""From complex samples to the folded spectrum, and from signals to the mask of occupied bins."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sixfold.core import UserError


class Band(NamedTuple):
    """Part of the spectrum that a signal is labelled with.

    Args:
        center_hz: Centre relative to the centre of the recording.
        width_hz: Width of the label, which may be wider than the signal.
    """

    center_hz: float
    width_hz: float


def spectrum(samples: Complex[Tensor, "*batch time"], bins: int) -> Complex[Tensor, "*batch bin"]:
    """Return the FFT, in complex128 and shifted, of the first ``bins`` samples; no window.

    Raises:
        UserError: there are fewer samples than bins, or one is NaN or infinite.
    """
    if samples.shape[-1] < bins:
        raise UserError(
            f"an FFT of {bins} bins needs as many samples, got {samples.shape[-1]}; use a longer "
            "recording or fewer bins"
        )
    used = samples[..., :bins]
    if not used.numel():
        return used.to(torch.complex128)  # an FFT refuses it
    if not bool(torch.isfinite(torch.view_as_real(used)).all()):
        bad = torch.nonzero(~torch.isfinite(torch.view_as_real(used)).all(-1))[0]
        raise UserError(
            f"the sample {tuple(bad.tolist())} is NaN or infinite; mend or cut the recording"
        )
    return torch.fft.fftshift(torch.fft.fft(used.to(torch.complex128)), dim=-1)


def peak_normalised_spectrum(
    samples: Complex[Tensor, "*batch time"], bins: int
) -> Complex[Tensor, "*batch bin"]:
    """Return the spectrum of the first ``bins`` samples over its largest magnitude.

    Raises:
        UserError: as `spectrum`; or a block has no power.
    """
    values = spectrum(samples, bins)
    peak = values.abs().amax(-1, keepdim=True)
    if bool((peak == 0).any()):
        silent = tuple(torch.nonzero(peak[..., 0] == 0)[0].tolist())
        raise UserError(f"block {silent} has no power, so its spectrum has no peak; leave it out")
    return (values / peak).to(torch.complex64)


def folded_shape(bins: int) -> tuple[int, int]:
    """Return the most square height and width of ``bins`` values, no higher than wide."""
    height = next(n for n in range(math.isqrt(bins), 0, -1) if bins % n == 0)
    return height, bins // height


def fold(
    values: Complex[Tensor, "batch bin"], shape: tuple[int, int]
) -> Float[Tensor, "batch 2 height width"]:
    """Fold spectra row by row into planar pictures: a row holds neighbouring bins.

    Raises:
        UserError: the picture has another number of pixels than the spectrum has bins.
    """
    if math.prod(shape) != values.shape[-1]:
        raise UserError(
            f"a spectrum of {values.shape[-1]} bins does not fold to {shape[0]} x {shape[1]}; "
            f"fold it to {' x '.join(map(str, folded_shape(values.shape[-1])))}"
        )
    return torch.view_as_real(values).movedim(-1, 1).unflatten(2, shape)


def band_bins(band: Band, bins: int, sample_rate_hz: float) -> tuple[int, int]:
    """Return the first bin of a band and the one after its last, cut to the spectrum."""
    per_hz = bins / sample_rate_hz
    low = (sample_rate_hz / 2 + band.center_hz - band.width_hz / 2) * per_hz
    high = (sample_rate_hz / 2 + band.center_hz + band.width_hz / 2) * per_hz
    return max(0, math.floor(low)), min(bins, math.ceil(high))


def occupied_mask(bands: Sequence[Band], bins: int, sample_rate_hz: float) -> Float[Tensor, " bin"]:
    """Return ones in the bins of the bands and zeros elsewhere."""
    mask = torch.zeros(bins)
    for band in bands:
        first, end = band_bins(band, bins, sample_rate_hz)
        mask[first:end] = 1
    return mask
