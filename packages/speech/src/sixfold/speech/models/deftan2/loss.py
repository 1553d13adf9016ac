"""DeFTAN-II's training loss: phase-constrained magnitude (PCM)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor


def pcm_loss(
    estimate: Float[Tensor, "batch time"],
    target: Float[Tensor, "batch time"],
    mixture: Float[Tensor, "batch time"],
    n_fft: int = 512,
    *,
    compare: Literal["parts", "magnitudes"] = "parts",
) -> Float[Tensor, ""]:
    """Compute the mean of two spectral distances: of the speech, and of the removed noise.

    Args:
        estimate: Enhanced signal.
        target: Clean signal.
        mixture: Signal of the reference microphone.
        n_fft: Length of the FFT and of its periodic Hann window; the hop is half of it.
        compare: Mean absolute difference of real and imaginary ``parts``, as in the released code,
            or of ``magnitudes`` |Re| + |Im|, which the loss is named for (A. Pandey and D. Wang,
            "Dense CNN with self-attention for time-domain speech enhancement", TASLP 2021).
    """
    pairs = ((estimate, target), (mixture - estimate, mixture - target))
    return sum(0.5 * _distance(a, b, n_fft, compare) for a, b in pairs)  # pyright: ignore


def _distance(a: Tensor, b: Tensor, n_fft: int, compare: str) -> Tensor:
    window = torch.hann_window(n_fft, dtype=a.dtype, device=a.device)
    a, b = (
        torch.view_as_real(
            torch.stft(signal, n_fft, n_fft // 2, window=window, return_complex=True)
        )
        for signal in (a, b)
    )
    if compare == "magnitudes":
        a, b = a.abs().sum(-1), b.abs().sum(-1)
    return (a - b).abs().mean()
