"""What a cheap receiver does to complex samples: each a function of samples and its parameters.

Parameters are numbers, or tensors (batch,) that say something else for each row.
"""

import math

import torch
from jaxtyping import Complex
from torch import Tensor

from sixfold.core import UserError

Samples = Complex[Tensor, "*batch time"]


def add_dc_offset(samples: Samples, real: float | Tensor, imag: float | Tensor) -> Samples:
    """Add a constant, as a receiver that mixes straight down to zero does.

    Args:
        samples: Samples.
        real: Offset of the real part.
        imag: Offset of the imaginary part.
    """
    return samples + torch.complex(_column(real, samples), _column(imag, samples))


def imbalance_iq(samples: Samples, gain_db: float | Tensor, phase_rad: float | Tensor) -> Samples:
    """Mix in the conjugate: both branches differ in gain, and are not quite 90 degrees apart.

    The image of a signal is then weaker by |(1 + g e^{i p}) / (1 - g e^{-i p})|^2.

    Args:
        samples: Samples.
        gain_db: Gain of the imaginary branch over that of the real one.
        phase_rad: Error of the angle between the branches.
    """
    gain = 10 ** (_column(gain_db, samples) / 20)
    phase = _column(phase_rad, samples)
    rotated = torch.polar(gain, phase)
    return (1 + rotated) / 2 * samples + (1 - rotated.conj()).conj() / 2 * samples.conj()


def quantise(samples: Samples, bits: int, full_scale: float = 1.0) -> Samples:
    """Round both parts to steps of a converter, and clip them at its ends.

    Args:
        samples: Samples.
        bits: Number of bits of the converter, 1 at least.
        full_scale: Largest value of the converter.

    Raises:
        UserError: there is no bit or no range.
    """
    if bits < 1 or full_scale <= 0:
        raise UserError(
            f"a converter has 1 bit and a range above 0 at least, got {bits} bits and {full_scale}"
        )
    step = 2 * full_scale / 2**bits
    parts = torch.view_as_real(samples)
    edge = full_scale - step / 2
    steps = (torch.floor(parts / step) + 0.5) * step
    return torch.view_as_complex(steps.clamp(-edge, edge))


def shift_frequency(samples: Samples, offset_hz: float | Tensor, sample_rate_hz: float) -> Samples:
    """Shift the spectrum, as a receiver whose oscillator is off by as much.

    Args:
        samples: Samples.
        offset_hz: Shift upwards.
        sample_rate_hz: Sample rate.
    """
    time = torch.arange(samples.shape[-1], dtype=torch.float64, device=samples.device)
    offset = torch.as_tensor(offset_hz, dtype=torch.float64, device=samples.device)
    cycles = torch.remainder(offset[..., None] / sample_rate_hz * time, 1.0)  # exact far out, too
    angle = (2 * math.pi * cycles).to(samples.real.dtype)
    return samples * torch.polar(torch.ones_like(angle), angle)


def _column(value: float | Tensor, samples: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=samples.real.dtype, device=samples.device)[..., None]
