"""Around a network of complex spectral mapping: array to spectra, estimated spectra to signals.

As DeFTAN-II does it (arXiv:2308.15777): one level for the whole recording, normalised before and
restored after; a periodic Hann window whose hop is half of it. Maps are channels-last.
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
    """Estimate sources of any length, as long as the recording.

    Args:
        noisy: The recording.
        network: From real and imaginary parts of each microphone in turn, to those of each source.
        window: Of the transform.
    """
    time, size, hop = noisy.shape[2], len(window), len(window) // 2
    rest = size - (hop + time % size) % size
    padded = functional.pad(noisy, (hop, rest + hop))
    level = padded.std((1, 2), keepdim=True).clamp(min=1e-12)  # silence stays silence
    estimate = network(spectrum(padded / level, window))
    values = estimate.unflatten(-1, (-1, 2)).permute(0, 3, 2, 1, 4)
    values = torch.view_as_complex(values.contiguous())
    signal = torch.istft(values.flatten(0, 1), size, hop, window=window)
    signal = signal.unflatten(0, values.shape[:2])
    return signal[..., hop : hop + time] * level


def spectrum(signal: Float[Tensor, "batch mic time"], window: Float[Tensor, " n_fft"]) -> Map:
    """Return real and imaginary parts of each microphone in turn."""
    size = len(window)
    values = torch.stft(signal.flatten(0, 1), size, size // 2, window=window, return_complex=True)
    parts = torch.view_as_real(values).unflatten(0, signal.shape[:2])  # (B, mic, F, L, 2)
    return parts.permute(0, 3, 2, 1, 4).flatten(3)


def check_array(noisy: Tensor, microphones: int, name: str) -> None:
    """Raise UserError for what a network of so many microphones cannot enhance."""
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
    if noisy.shape[2] == 0:
        raise UserError(f"{name} was given a recording of zero samples")
