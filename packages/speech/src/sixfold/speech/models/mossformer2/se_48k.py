"""MossFormer2_SE_48K: the mask network of MossFormer2 for full-band speech enhancement.

arXiv:2312.11825 has the mask network, the released code (ClearerVoice-Studio) the rest: the network
reads log-mel features and their deltas, and masks the magnitudes of a short-time Fourier transform.

Departs from the release: its features carry random dither, so that no two runs agree; here
``dither`` is 0 by default. Up to a hop at the end, which no whole frame covers, is silenced there;
`MossFormer2SE` pads the last frame with zeros instead.
"""

from pathlib import Path
from typing import cast

import torch
from jaxtyping import Complex, Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import UserError, from_pretrained
from sixfold.speech.models.mossformer2.model import MaskNet, MaskNetConfig

FULL_SCALE = 32768.0  # the features are computed from 16-bit values


class MossFormer2SEConfig(MaskNetConfig):
    """Sizes of the released network at 48 kHz; only the first of its two masks is used."""

    n_mels: PositiveInt = 60
    n_fft: PositiveInt = 1920  # 40 ms; also the frames of the features
    hop_length: PositiveInt = 384  # 8 ms
    dither: float = Field(default=0.0, ge=0)  # standard deviation in 16-bit steps; released: 1
    sample_rate: PositiveInt = 48_000

    @model_validator(mode="after")
    def _frames_fit(self) -> "MossFormer2SEConfig":
        if self.n_fft % 2 or self.hop_length > self.n_fft:
            raise ValueError(
                f"n_fft {self.n_fft} should be even, hop_length {self.hop_length} no longer"
            )
        return self


class MossFormer2SE(nn.Module):
    """Enhance noisy speech (batch, time) at 48 kHz, full scale ±1; the length is kept.

    The level matters: the network was trained on recordings that were not normalised.
    """

    window: Tensor

    def __init__(self, config: MossFormer2SEConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MossFormer2SEConfig()
        self.mask = MaskNet(config, 3 * config.n_mels, config.n_fft // 2 + 1, dense=False)
        window = torch.hamming_window(config.n_fft, periodic=False)
        self.register_buffer("window", window, persistent=False)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "MossFormer2SE":
        """Load an official or a sixfold checkpoint, in eval mode.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        from sixfold.speech.models.mossformer2 import SE_48K  # that module imports this one

        return cast(MossFormer2SE, from_pretrained(path, SE_48K))

    def forward(self, noisy: Tensor) -> Float[Tensor, "batch time"]:
        self.check(noisy)
        size, hop, time = self.config.n_fft, self.config.hop_length, noisy.shape[1]
        missing = size - time if time < size else (size - time) % hop
        padded = functional.pad(noisy, (0, missing))
        return self.apply_mask(padded, self.masks(padded))[:, :time]

    def masks(self, noisy: Float[Tensor, "batch time"]) -> Float[Tensor, "batch frame frequency"]:
        """Estimate the mask, at least 0, of every whole frame."""
        return self.mask(self.features(noisy))[:, :, 0]

    def features(self, noisy: Float[Tensor, "batch time"]) -> Float[Tensor, "batch frame feature"]:
        """Compute Kaldi's log-mel energies, their deltas and the deltas of those."""
        from torchaudio.compliance import kaldi
        from torchaudio.functional import compute_deltas

        ms = 1000 / self.config.sample_rate  # half a sample is added because Kaldi rounds down
        energies = [
            kaldi.fbank(
                FULL_SCALE * signal[None],
                num_mel_bins=self.config.n_mels,
                frame_length=(self.config.n_fft + 0.5) * ms,
                frame_shift=(self.config.hop_length + 0.5) * ms,
                sample_frequency=self.config.sample_rate,
                window_type="hamming",
                dither=self.config.dither,
            )
            for signal in noisy
        ]
        mel = torch.stack(energies).mT
        delta = compute_deltas(mel)
        return torch.cat([mel, delta, compute_deltas(delta)], 1).mT

    def apply_mask(
        self,
        noisy: Float[Tensor, "batch time"],
        mask: Float[Tensor, "batch frame frequency"],
    ) -> Float[Tensor, "batch time"]:
        """Mask the spectrum of whole frames; samples that no frame covers become zero."""
        size, hop, time = self.config.n_fft, self.config.hop_length, noisy.shape[1]
        covered = size + (mask.shape[1] - 1) * hop
        values = spectrum(noisy, self.window, hop) * mask.mT
        signal = torch.istft(values, size, hop, window=self.window, center=False, length=covered)
        return functional.pad(signal, (0, time - covered))

    def check(self, noisy: Tensor) -> None:
        """Raise a UserError if the input is not float audio shaped (batch, time)."""
        if noisy.ndim != 2 or not noisy.is_floating_point():
            raise UserError(
                f"MossFormer2SE takes float audio shaped (batch, time), got {noisy.dtype} "
                f"{tuple(noisy.shape)}; for one signal pass x[None], for a channel axis of one "
                "x.squeeze(1)"
            )
        if noisy.numel() == 0:
            raise UserError(
                f"MossFormer2SE was given a signal of zero samples, shape {tuple(noisy.shape)}"
            )


def spectrum(
    signal: Float[Tensor, "batch time"], window: Float[Tensor, " n_fft"], hop: int
) -> Complex[Tensor, "batch frequency frame"]:
    """Compute the STFT of whole frames, without padding."""
    size = window.numel()
    return torch.stft(signal, size, hop, window=window, center=False, return_complex=True)
