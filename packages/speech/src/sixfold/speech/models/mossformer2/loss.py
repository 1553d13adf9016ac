"""The loss of MossFormer2_SE_48K; the separators train on `sixfold.speech.losses.pit_si_snr`."""

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.speech.models.mossformer2.se_48k import FULL_SCALE, MossFormer2SE, spectrum


def psm_loss(
    model: MossFormer2SE, noisy: Float[Tensor, "batch time"], clean: Float[Tensor, "batch time"]
) -> Float[Tensor, ""]:
    """Compute the error of the mask against the phase-sensitive mask, weighted by loudness.

    The target is |S|^2 / |Y|^2 times the cosine of the phase difference, clamped to 0 and 1: the
    released code's ratio of powers, where the usual mask has a ratio of amplitudes. The loss is
    half the squared error, weighted by |Y| over its maximum in the frame, summed over frequency and
    averaged over frames.
    """
    hop = model.config.hop_length
    y, s = (spectrum(FULL_SCALE * signal, model.window, hop) for signal in (noisy, clean))
    ratio = s.abs().square() / (y.abs().square() + 1e-6)
    target = (ratio * torch.cos(s.angle() - y.angle())).clamp(0, 1)
    loudness = y.abs() / y.abs().amax(1, keepdim=True).clamp(min=1e-12)
    error = (model.masks(noisy).mT - target).square() * loudness
    return 0.5 * error.sum(1).mean()
