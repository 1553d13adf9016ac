"""DeFTAN-II for export: its transform as matrix products, which every runtime computes alike.

ONNX has no inverse STFT, and the graph that torch writes for ``torch.istft`` is one that
onnxruntime refuses.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.speech.models.deftan2.model import DeFTAN2


class Enhancer(nn.Module):
    """A DeFTAN-II that computes `sixfold.speech.audio.array_stft.map_spectrum` in real numbers."""

    analysis: Tensor
    synthesis: Tensor

    def __init__(self, model: DeFTAN2) -> None:
        super().__init__()
        self.model, self.size = model, model.config.n_fft
        self.hop = self.size // 2
        window = torch.hann_window(self.size, dtype=torch.float64)
        unit = torch.fft.rfft(torch.eye(self.size, dtype=torch.float64)).T * window
        back = torch.eye(self.hop + 1, dtype=torch.complex128)
        back = torch.fft.irfft(torch.cat([back, 1j * back]), n=self.size) * window
        # A sample is in two frames; the squares of their windows add up to the same in every hop.
        back = back / (window[: self.hop].square() + window[self.hop :].square()).repeat(2)
        analysis = torch.cat([unit.real, unit.imag])[:, None]
        self.register_buffer("analysis", analysis.float())
        self.register_buffer("synthesis", back.float())

    def forward(self, noisy: Float[Tensor, "batch mic time"]) -> Float[Tensor, "batch source time"]:
        time, size, hop = noisy.shape[2], self.size, self.hop
        # The same padding, with the one division that a traced graph can reason about.
        total = ((time + hop) // size + 2) * size - hop
        padded = functional.pad(noisy, (hop, total - hop - time))
        level = padded.std((1, 2), keepdim=True).clamp(min=1e-12)
        estimate = self.model.map(self.spectrum(padded / level))
        return self.signal(estimate)[..., hop : hop + time] * level

    def spectrum(
        self, signal: Float[Tensor, "batch mic time"]
    ) -> Float[Tensor, "batch frame frequency features"]:
        """Return real and imaginary parts of each microphone in turn, of centred frames."""
        centred = functional.pad(signal, (self.hop, self.hop), mode="reflect")
        values = functional.conv1d(centred.flatten(0, 1)[:, None], self.analysis, stride=self.hop)
        parts = values.unflatten(1, (2, -1)).unflatten(0, signal.shape[:2])  # (B, mic, 2, F, L)
        return parts.permute(0, 4, 3, 1, 2).flatten(3)

    def signal(
        self, estimate: Float[Tensor, "batch frame frequency features"]
    ) -> Float[Tensor, "batch source time"]:
        """Overlap and add."""
        parts = estimate.unflatten(-1, (-1, 2)).permute(0, 3, 1, 4, 2)  # (B, source, L, 2, F)
        frames = parts.flatten(3) @ self.synthesis
        return (frames[:, :, 1:, : self.hop] + frames[:, :, :-1, self.hop :]).flatten(2)


def exportable(model: DeFTAN2) -> tuple[nn.Module, tuple[Tensor], dict[str, dict[int, Any]]]:
    """Return what `sixfold.core.weights.export` takes: one recording, of two frames or more."""
    size, generator = model.config.n_fft, torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(1, model.config.microphones, 3 * size + 5, generator=generator)
    return Enhancer(model).eval(), (noise,), {"noisy": {2: torch.export.Dim("time", min=2 * size)}}
