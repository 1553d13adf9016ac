"""FRCRN for export: a folded network whose STFT is a matrix product."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.speech.models.frcrn.model import FRCRN
from sixfold.speech.models.frcrn.stft import Spectrum, dft_kernel


class Enhancer(nn.Module):
    """A folded FRCRN that maps a noisy waveform to the enhanced one."""

    def __init__(self, model: FRCRN) -> None:
        super().__init__()
        self.model = model.folded()
        transform = self.model.spectrum
        self.model.spectrum = MatrixSpectrum(
            transform.n_fft, transform.win_length, transform.hop_length
        )

    def forward(self, noisy: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time_out"]:
        return self.model.estimate(noisy).waveform


def exportable(model: FRCRN) -> tuple[nn.Module, tuple[Tensor], dict[str, dict[int, Any]]]:
    """Return module, example input and dynamic axes: any batch, any length in whole frames."""
    window = model.config.win_length
    time = torch.export.Dim("time", min=2 * window)
    noise = torch.randn(2, 5 * window, generator=torch.Generator().manual_seed(0))
    return (
        Enhancer(model),
        (noise * 10 ** (-25 / 20),),
        {"noisy": {0: torch.export.Dim("batch"), 1: time}},
    )


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
