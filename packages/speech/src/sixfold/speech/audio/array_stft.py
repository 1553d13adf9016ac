"""The STFT around a network for complex spectral mapping: array to spectra, spectra to signals.

As in DeFTAN-II (arXiv:2308.15777): one level for the whole recording, normalised before and
restored after the network; a periodic Hann window whose hop is half of it. Feature maps are
channels-last.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sixfold.core import UserError

Map = Float[Tensor, "batch frame frequency features"]


def map_spectrum(
    noisy: Float[Tensor, "batch mic time"],
    network: Callable[[Map], Map],
    window: Float[Tensor, " n_fft"],
) -> Float[Tensor, "batch source time"]:
    """Estimate sources as long as the recording, which may have any length.

    Args:
        noisy: Recording of the array.
        network: Map from the real and imaginary parts of all microphones to those of all sources.
        window: Window of the STFT; the hop is half of it.
    """
    time, n_fft, hop_length = noisy.shape[2], len(window), len(window) // 2
    rest = n_fft - (hop_length + time % n_fft) % n_fft
    padded = functional.pad(noisy, (hop_length, rest + hop_length))
    level = padded.std((1, 2), keepdim=True).clamp(min=1e-12)  # silence stays silence
    estimate = network(spectrum(padded / level, window))
    values = estimate.unflatten(-1, (-1, 2)).permute(0, 3, 2, 1, 4)
    values = torch.view_as_complex(values.contiguous())
    signal = torch.istft(values.flatten(0, 1), n_fft, hop_length, window=window)
    signal = signal.unflatten(0, values.shape[:2])
    return signal[..., hop_length : hop_length + time] * level


def spectrum(signal: Float[Tensor, "batch mic time"], window: Float[Tensor, " n_fft"]) -> Map:
    """Compute the STFT: real and imaginary part of one microphone after another."""
    n_fft = len(window)
    values = torch.stft(signal.flatten(0, 1), n_fft, n_fft // 2, window=window, return_complex=True)
    parts = torch.view_as_real(values).unflatten(0, signal.shape[:2])  # (B, mic, F, L, 2)
    return parts.permute(0, 3, 2, 1, 4).flatten(3)


def check_array(noisy: Tensor, microphones: int, name: str) -> None:
    """Raise a UserError if the recording does not fit a network for this number of microphones."""
    if noisy.ndim != 3 or not noisy.is_floating_point():
        raise UserError(
            f"{name} takes float audio shaped (batch, microphone, time), got {noisy.dtype} "
            f"{tuple(noisy.shape)}; for one recording pass x[None]"
        )
    if noisy.shape[1] != microphones:
        raise UserError(
            f"this {name} was built for {microphones} microphones, got {noisy.shape[1]} channels "
            f"of {noisy.shape[2]} samples; take the checkpoint of your array"
        )
    if noisy.numel() == 0:
        raise UserError(f"{name} was given a recording of zero samples, shape {tuple(noisy.shape)}")
