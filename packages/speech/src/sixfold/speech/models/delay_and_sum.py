"""Delay-and-sum beamforming, the untrained baseline: align the microphones, and average them.

Delays by generalised cross-correlation with phase transform: C. Knapp and G. Carter, "The
Generalized Correlation Method for Estimation of Time Delay", IEEE TASSP 24(4), 1976.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

STEPS_PER_SAMPLE = 32  # resolution of the estimated delays


def delay_and_sum(noisy: Float[Tensor, "mic time"], max_delay: int) -> Float[Tensor, " time"]:
    """Average the microphones, each advanced by its delay relative to microphone 0.

    Args:
        noisy: Recording with one dominant source that does not move.
        max_delay: Travel time of sound across the array in samples, rounded up.
    """
    return advance(noisy, estimate_delays(noisy, max_delay)).mean(0)


def estimate_delays(noisy: Float[Tensor, "mic time"], max_delay: int) -> Float[Tensor, " mic"]:
    """Estimate each microphone's delay in samples, relative to microphone 0 (GCC-PHAT).

    The delay is the maximum of the whitened cross-correlation between -max_delay and max_delay, at
    `STEPS_PER_SAMPLE` steps per sample. Silence has a delay of zero.
    """
    size = 2 * noisy.shape[1]  # no wrap-around
    spectra = torch.fft.rfft(noisy.double(), size)
    cross = spectra * spectra[:1].conj()
    white = cross / cross.abs().clamp_min(1e-12 * float(cross.abs().max()) + 1e-300)
    correlation = torch.fft.irfft(white, STEPS_PER_SAMPLE * size)
    reach = STEPS_PER_SAMPLE * max_delay
    lags = torch.cat(
        [correlation[:, :1], correlation[:, 1 : reach + 1], correlation[:, -reach:]], 1
    )
    best = lags.argmax(1)
    steps = torch.where(best > reach, best - 2 * reach - 1, best)
    return (steps / STEPS_PER_SAMPLE).to(noisy.dtype)


def advance(
    signal: Float[Tensor, "mic time"], by: Float[Tensor, " mic"]
) -> Float[Tensor, "mic time"]:
    """Shift each signal earlier by a fractional number of samples, and pad with zeros."""
    time = signal.shape[1]
    size = 2 * time + 2
    frequency = 2 * math.pi * torch.arange(size // 2 + 1, dtype=torch.float64) / size
    turn = torch.polar(torch.ones(()).double(), frequency * by[:, None].double())
    shifted = torch.fft.irfft(torch.fft.rfft(signal.double(), size) * turn, size)
    return shifted[:, :time].to(signal.dtype)
