"""DeFTAN-II for export, with its STFT as matrix products.

ONNX has no inverse STFT, and onnxruntime rejects the graph that torch writes for ``torch.istft``.
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core.weights.export import Exportable
from sixfold.speech.models.deftan2.model import DeFTAN2


class Enhancer(nn.Module):
    """A DeFTAN-II with `sixfold.speech.audio.array_stft.map_spectrum` in real arithmetic."""

    analysis: Tensor
    synthesis: Tensor

    def __init__(self, model: DeFTAN2) -> None:
        super().__init__()
        self.model, n_fft = copy.deepcopy(model), model.config.n_fft
        self.n_fft, self.hop_length = n_fft, n_fft // 2
        window = torch.hann_window(n_fft, dtype=torch.float64)
        forward = torch.fft.rfft(torch.eye(n_fft, dtype=torch.float64)).T * window
        units = torch.eye(n_fft // 2 + 1, dtype=torch.complex128)
        inverse = torch.fft.irfft(torch.cat([units, 1j * units]), n=n_fft) * window
        # Every sample is in two frames; their squared windows have the same sum in every hop.
        first, second = window.square().chunk(2)
        inverse = inverse / (first + second).repeat(2)
        analysis = torch.cat([forward.real, forward.imag])[:, None]
        self.register_buffer("analysis", analysis.float())
        self.register_buffer("synthesis", inverse.float())

    def forward(self, noisy: Float[Tensor, "batch mic time"]) -> Float[Tensor, "batch source time"]:
        time, n_fft, hop_length = noisy.shape[2], self.n_fft, self.hop_length
        # As `map_spectrum` pads, with the one division that a traced graph can reason about.
        total = ((time + hop_length) // n_fft + 2) * n_fft - hop_length
        padded = functional.pad(noisy, (hop_length, total - hop_length - time))
        level = padded.std((1, 2), keepdim=True).clamp(min=1e-12)
        estimate = self.model.map_spectra(self.spectrum(padded / level))
        return self.signal(estimate)[..., hop_length : hop_length + time] * level

    def spectrum(
        self, signal: Float[Tensor, "batch mic time"]
    ) -> Float[Tensor, "batch frame frequency features"]:
        """Compute the STFT, as `sixfold.speech.audio.array_stft.spectrum` does."""
        centred = functional.pad(signal, (self.hop_length, self.hop_length), mode="reflect")
        values = functional.conv1d(
            centred.flatten(0, 1)[:, None], self.analysis, stride=self.hop_length
        )
        parts = values.unflatten(1, (2, -1)).unflatten(0, signal.shape[:2])  # (B, mic, 2, F, L)
        return parts.permute(0, 4, 3, 1, 2).flatten(3)

    def signal(
        self, estimate: Float[Tensor, "batch frame frequency features"]
    ) -> Float[Tensor, "batch source time"]:
        """Compute the inverse STFT by overlap-add."""
        parts = estimate.unflatten(-1, (-1, 2)).permute(0, 3, 1, 4, 2)  # (B, source, L, 2, F)
        frames = parts.flatten(3) @ self.synthesis
        return (frames[:, :, 1:, : self.hop_length] + frames[:, :, :-1, self.hop_length :]).flatten(
            2
        )


def exportable(model: DeFTAN2) -> Exportable:
    """Prepare the export of recordings of two frames or more, in batches of any size."""
    size, generator = model.config.n_fft, torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(2, model.config.microphones, 3 * size + 5, generator=generator)
    time = torch.export.Dim("time", min=2 * size)
    dynamic = {"noisy": {0: torch.export.Dim("batch"), 2: time}}
    facts = {"sample_rate": model.config.sample_rate}
    return Exportable(Enhancer(model).eval(), (noise,), dynamic, ["enhanced"], facts)
