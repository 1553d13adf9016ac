"""Delay-and-sum: align the microphones to the first, and average; what an array gives untrained.

Delays by generalised cross-correlation with phase transform: C. Knapp and G. Carter, "The
Generalized Correlation Method for Estimation of Time Delay", IEEE TASSP 24(4), 1976.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

FINE = 32  # steps per sample in which a delay is looked for


def delay_and_sum(noisy: Float[Tensor, "mic time"], max_delay: int) -> Float[Tensor, " time"]:
    """Return the mean of the microphones, each advanced by its delay against microphone 0.

    Args:
        noisy: A recording of one loudest source; its delays do not change.
        max_delay: Samples that a sound takes across the array, rounded up.
    """
    return advance(noisy, delays(noisy, max_delay)).mean(0)


def delays(noisy: Float[Tensor, "mic time"], max_delay: int) -> Float[Tensor, " mic"]:
    """Estimate how many samples later than microphone 0 each one hears the source.

    The cross-correlation, whitened (PHAT), is sampled `FINE` times a sample, between -max_delay and
    max_delay; its maximum is the delay. Silence has delays of zero.
    """
    size = 2 * noisy.shape[1]  # no wrap-around
    spectra = torch.fft.rfft(noisy.double(), size)
    cross = spectra * spectra[:1].conj()
    white = cross / cross.abs().clamp_min(1e-12 * float(cross.abs().max()) + 1e-300)
    correlation = torch.fft.irfft(white, FINE * size)
    reach = FINE * max_delay
    lags = torch.cat(
        [correlation[:, :1], correlation[:, 1 : reach + 1], correlation[:, -reach:]], 1
    )
    best = lags.argmax(1)
    steps = torch.where(best > reach, best - 2 * reach - 1, best)
    return (steps / FINE).to(noisy.dtype)


def advance(
    signal: Float[Tensor, "mic time"], by: Float[Tensor, " mic"]
) -> Float[Tensor, "mic time"]:
    """Shift each signal earlier by a fraction of samples; zeros come in, what leaves is lost."""
    time = signal.shape[1]
    size = 2 * time + 2
    frequency = 2 * math.pi * torch.arange(size // 2 + 1, dtype=torch.float64) / size
    turn = torch.polar(torch.ones(()).double(), frequency * by[:, None].double())
    shifted = torch.fft.irfft(torch.fft.rfft(signal.double(), size) * turn, size)
    return shifted[:, :time].to(signal.dtype)
