"""FRCRN's short-time Fourier transform: forward, inverse, and as a matrix."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Spectrum(nn.Module):
    """The STFT with a square-root Hann window, and its inverse; frames are not centred.

    Args:
        n_fft: Length of the FFT in samples.
        win_length: Length of the window; a shorter one stands at the start of the FFT's frame.
        hop_length: Samples from one frame to the next; divides ``win_length``.
    """

    window: Tensor

    def __init__(self, n_fft: int, win_length: int, hop_length: int) -> None:
        super().__init__()
        self.n_fft, self.win_length, self.hop_length = n_fft, win_length, hop_length
        self.register_buffer("window", sqrt_hann(win_length), persistent=False)

    def forward(
        self, signal: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch 2 frequency frame"]:
        rest = self.n_fft - self.win_length
        window = functional.pad(self.window, (0, rest))
        signal = functional.pad(signal, (0, rest)) if rest else signal
        spectrum = torch.stft(
            signal, self.n_fft, self.hop_length, window=window, center=False, return_complex=True
        )
        return torch.view_as_real(spectrum).permute(0, 3, 1, 2)

    def inverse(
        self, spectrum: Float[Tensor, "batch 2 frequency frame"]
    ) -> Float[Tensor, "batch time"]:
        """Overlap-add, and divide by the sum of the squared windows, which is tiny at both ends."""
        frames = self.frames(spectrum) * self.window
        squares = (self.window**2).expand(1, frames.shape[1], -1)
        # x / (s + 1e-8), multiplied out: ONNX's optimiser takes a sum with 1e-8 for one with zero.
        return 1e8 * self.overlap_add(frames) / (1e8 * self.overlap_add(squares) + 1)

    def frames(
        self, spectrum: Float[Tensor, "batch 2 frequency frame"]
    ) -> Float[Tensor, "batch frame win"]:
        """Transform back to frames in time, before the synthesis window."""
        values = torch.view_as_complex(spectrum.permute(0, 3, 2, 1).contiguous())
        return torch.fft.irfft(values, n=self.n_fft)[..., : self.win_length]

    def overlap_add(self, frames: Float[Tensor, "batch frame win"]) -> Float[Tensor, "batch time"]:
        """Add frames, each one hop later than the previous one."""
        pieces = self.win_length // self.hop_length
        hops = frames.unflatten(-1, (pieces, self.hop_length))
        shifted = [functional.pad(hops[:, :, i], (0, 0, i, pieces - 1 - i)) for i in range(pieces)]
        return torch.stack(shifted).sum(0).flatten(1)


def dft_kernel(n_fft: int, win_length: int) -> Float[Tensor, "parts win"]:
    """Compute the windowed rows of the DFT, real parts first: the official ``stft.weight``."""
    unit = torch.fft.rfft(torch.eye(n_fft, dtype=torch.float64)[:win_length]).T
    return torch.cat([unit.real, unit.imag]).float() * sqrt_hann(win_length)


def sqrt_hann(win_length: int) -> Float[Tensor, " win"]:
    """Compute the square root of a periodic Hann window."""
    return torch.hann_window(win_length, dtype=torch.float64).sqrt().float()
