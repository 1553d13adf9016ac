"""FRCRN's training losses: SI-SNR of the waveform, and the squared error of the mask."""

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.speech.losses import si_snr
from sixfold.speech.models.frcrn.model import FRCRN, Estimate, FRCRNConfig


def frcrn_loss(model: FRCRN, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Compute both losses of a batch of ``noisy`` and ``clean`` audio (batch, time), by name."""
    return estimate_losses(model(batch["noisy"]), batch["noisy"], batch["clean"], model.config)


def estimate_losses(
    estimate: Estimate,
    noisy: Float[Tensor, "batch time"],
    clean: Float[Tensor, "batch time"],
    config: FRCRNConfig,
) -> dict[str, Tensor]:
    """Compute the two losses whose sum FRCRN is trained on.

    Both signals are cut to the length of the estimated waveform.

    Args:
        estimate: Output of the network.
        noisy: Input of the network.
        clean: Target, aligned to the input.
        config: Configuration of the network, for its STFT.
    """
    length = estimate.waveform.shape[1]
    noisy, clean = noisy[:, :length], clean[:, :length]
    return {
        "cmask": complex_mask_loss(estimate.mask, noisy, clean, config),
        "si_snr": -si_snr(estimate.waveform, clean).mean(),
    }


def complex_mask_loss(
    mask: Float[Tensor, "batch 2 frequency frame"],
    noisy: Float[Tensor, "batch time"],
    clean: Float[Tensor, "batch time"],
    config: FRCRNConfig,
) -> Float[Tensor, ""]:
    """Compute the squared error of a mask against the complex ideal ratio mask, times ``n_fft``.

    The errors of real and imaginary parts are added. Two oddities of the released code are kept,
    because its weights were trained with them: the ideal mask comes from a symmetric Hann window,
    where the network uses the square root of a periodic one; and values beyond ±2 become ±1, not
    ±2.
    """
    window = torch.hann_window(
        config.win_length, periodic=False, dtype=noisy.dtype, device=noisy.device
    )
    y, s = (
        torch.view_as_real(
            torch.stft(
                signal,
                config.n_fft,
                config.hop_length,
                config.win_length,
                window,
                center=False,
                return_complex=True,
            )
        ).unbind(-1)
        for signal in (noisy, clean)
    )
    power = y[0].square() + y[1].square() + 1e-8
    ideal = torch.stack(
        [(s[0] * y[0] + s[1] * y[1]) / power, (s[1] * y[0] - s[0] * y[1]) / power], 1
    )
    ideal = torch.where(ideal > 2, 1.0, torch.where(ideal < -2, -1.0, ideal))
    mask = mask[..., : ideal.shape[-1]]  # a frame completed with zeros has no ideal mask
    return (mask - ideal).square().mean((0, 2, 3)).sum() * config.n_fft
