"""Training losses of speech enhancement."""

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.speech.models.frcrn.model import FRCRN, Estimate, FRCRNConfig


def frcrn_loss(model: FRCRN, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Run FRCRN on a batch of ``noisy`` and ``clean`` (batch, time) and name its two losses."""
    return estimate_losses(model(batch["noisy"]), batch["noisy"], batch["clean"], model.config)


def estimate_losses(
    estimate: Estimate,
    noisy: Float[Tensor, "batch time"],
    clean: Float[Tensor, "batch time"],
    config: FRCRNConfig,
) -> dict[str, Tensor]:
    """Return the two losses that FRCRN is trained on, to be added; signals are cut to its output.

    Args:
        estimate: What the network returned.
        noisy: Its input.
        clean: Target, aligned to the input.
        config: The network's, for its transform.
    """
    length = estimate.waveform.shape[1]
    noisy, clean = noisy[:, :length], clean[:, :length]
    return {
        "cmask": complex_mask_loss(estimate.mask, noisy, clean, config),
        "si_snr": -si_snr(estimate.waveform, clean).mean(),
    }


def si_snr(
    estimate: Float[Tensor, "batch time"], target: Float[Tensor, "batch time"], eps: float = 1e-6
) -> Float[Tensor, " batch"]:
    """Measure the scale-invariant signal-to-noise ratio in dB, zero-mean, for training.

    With ``eps`` added to both energies and inside the logarithm, as the released FRCRN does; the
    metric without it is `sixfold.speech.metrics.si_sdr`.
    """
    estimate = estimate - estimate.mean(-1, keepdim=True)
    target = target - target.mean(-1, keepdim=True)
    scale = (estimate * target).sum(-1, keepdim=True) / (
        target.square().sum(-1, keepdim=True) + eps
    )
    wanted = scale * target
    ratio = wanted.square().sum(-1) / ((estimate - wanted).square().sum(-1) + eps)
    return 10 * torch.log10(ratio + eps)


def complex_mask_loss(
    mask: Float[Tensor, "batch 2 frequency frame"],
    noisy: Float[Tensor, "batch time"],
    clean: Float[Tensor, "batch time"],
    config: FRCRNConfig,
) -> Float[Tensor, ""]:
    """Compare a mask with the complex ideal ratio mask: squared error times ``n_fft``, both parts.

    Two oddities of the released code are kept, because its weights were trained so: the ideal mask
    comes from a symmetric, whole Hann window, where the network sees the square root of a periodic
    one; and values beyond +-2 become +-1, not +-2.
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
    mask = mask[..., : ideal.shape[-1]]  # a frame filled up with zeros has no ideal
    return (mask - ideal).square().mean((0, 2, 3)).sum() * config.n_fft
