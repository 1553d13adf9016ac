"""FRCRN for export, from noisy to enhanced recording: level, padding and transform are inside.

The network is folded, and its STFT is a matrix product.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core.weights.export import Exportable
from sixfold.speech.audio.levels import level_gain
from sixfold.speech.models.frcrn.model import FRCRN
from sixfold.speech.models.frcrn.stft import Spectrum, dft_kernel


class Enhancer(nn.Module):
    """`sixfold.speech.models.frcrn.enhance` in one pass, of a batch of recordings of one length."""

    def __init__(self, model: FRCRN) -> None:
        super().__init__()
        self.model = model.folded()
        transform = self.model.spectrum
        self.win_length, self.hop_length = transform.win_length, transform.hop_length
        self.model.spectrum = MatrixSpectrum(transform.n_fft, self.win_length, self.hop_length)

    def forward(self, noisy: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        time, margin = noisy.shape[1], self.win_length - self.hop_length
        hops = (time + self.hop_length - 1) // self.hop_length
        total = hops * self.hop_length + 2 * margin  # whole frames
        gain = level_gain(noisy)
        padded = functional.pad(noisy * gain, (margin, total - margin - time))
        return self.model.estimate(padded).waveform[:, margin : margin + time] / gain


def exportable(model: FRCRN) -> Exportable:
    """Prepare the export of recordings of any length, in batches of any size."""
    samples, generator = 5 * model.config.win_length + 1, torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(2, samples, generator=generator)
    dynamic = {"noisy": {0: torch.export.Dim("batch"), 1: torch.export.Dim("time", min=1)}}
    facts = {"sample_rate": model.config.sample_rate}
    return Exportable(Enhancer(model).eval(), (noise,), dynamic, ["enhanced"], facts)


class MatrixSpectrum(Spectrum):
    """The same transform as matrix products, for runtimes whose FFT of length 640 is inexact.

    onnxruntime's FFT is off by 2e-3 and its inverse returns NaN; the product is exact and exports.
    """

    analysis: Tensor
    synthesis: Tensor

    def __init__(self, n_fft: int, win_length: int, hop_length: int) -> None:
        super().__init__(n_fft, win_length, hop_length)
        units = torch.eye(n_fft // 2 + 1, dtype=torch.complex128)
        synthesis = torch.fft.irfft(torch.cat([units, 1j * units]), n=n_fft)[:, :win_length]
        self.register_buffer("analysis", dft_kernel(n_fft, win_length)[:, None], persistent=False)
        self.register_buffer("synthesis", synthesis.float(), persistent=False)

    def forward(
        self, signal: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch 2 frequency frame"]:
        spectrum = functional.conv1d(signal[:, None], self.analysis, stride=self.hop_length)
        return spectrum.unflatten(1, (2, -1))

    def frames(
        self, spectrum: Float[Tensor, "batch 2 frequency frame"]
    ) -> Float[Tensor, "batch frame win"]:
        """Transform back to frames in time, before the synthesis window."""
        return spectrum.flatten(1, 2).transpose(1, 2) @ self.synthesis
