"""MossFormer2_SE_48K: the mask network of MossFormer2 for full-band speech enhancement.

The network is that of S. Zhao et al., "MossFormer2: Combining Transformer and RNN-Free Recurrent
Network for Enhanced Time-Domain Monaural Speech Separation", ICASSP 2024. arXiv:2312.11825
It reads log-mel features and their changes, and masks the magnitudes of a short-time Fourier
transform, as in the released code (ClearerVoice-Studio).

Departs from the release: its features carry random dither, so that no two runs agree; here
``dither`` is 0 by default. Up to a hop at the end, which no whole frame covers, is silenced there;
`MossFormer2SE` fills the last frame up with zeros instead.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Complex, Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import System, UserError, from_pretrained
from sixfold.core.data.fetch import File
from sixfold.speech.models.mossformer2.model import (
    MaskNet,
    MaskNetConfig,
    mask_rules,
    named,
    stack_values,
)

FULL_SCALE = 32768.0  # the features are of 16-bit numbers


class MossFormer2SEConfig(MaskNetConfig):
    """The released network; times at 48 kHz. Of its two masks only the first is used."""

    n_mels: PositiveInt = 60
    n_fft: PositiveInt = 1920  # 40 ms; also the frames of the features
    hop_length: PositiveInt = 384  # 8 ms
    dither: float = Field(default=0.0, ge=0)  # of 16-bit numbers; released: 1, random
    sample_rate: PositiveInt = 48_000

    @model_validator(mode="after")
    def _frames_fit(self) -> "MossFormer2SEConfig":
        if self.n_fft % 2 or self.hop_length > self.n_fft:
            raise ValueError(
                f"n_fft {self.n_fft} should be even, hop_length {self.hop_length} no longer"
            )
        return self


class MossFormer2SE(nn.Module):
    """Enhance noisy speech (batch, time) at 48 kHz to an estimate as long, full scale ±1.

    The level matters: the network was trained on recordings as they are.
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
        """Load an official or a sixfold checkpoint, told apart by their keys, in eval mode.

        Raises:
            UserError: the file is missing, damaged, or another system's or size's.
        """
        return cast(MossFormer2SE, from_pretrained(path, SYSTEM))

    def forward(self, noisy: Tensor) -> Float[Tensor, "batch time"]:
        self.check(noisy)
        size, hop, time = self.config.n_fft, self.config.hop_length, noisy.shape[1]
        missing = size - time if time < size else (size - time) % hop
        whole = functional.pad(noisy, (0, missing))
        return self.masked(whole, self.masks(whole))[:, :time]

    def masks(self, noisy: Float[Tensor, "batch time"]) -> Float[Tensor, "batch frame frequency"]:
        """Estimate a mask, at least 0, for every whole frame."""
        return self.mask(self.features(noisy))[:, :, 0]

    def features(self, noisy: Float[Tensor, "batch time"]) -> Float[Tensor, "batch frame feature"]:
        """Return log-mel energies as Kaldi computes them, then their first and second changes."""
        from torchaudio.compliance import kaldi
        from torchaudio.functional import compute_deltas

        ms = 1000 / self.config.sample_rate  # half a sample more, because Kaldi rounds down
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
        change = compute_deltas(mel)
        return torch.cat([mel, change, compute_deltas(change)], 1).mT

    def masked(
        self,
        noisy: Float[Tensor, "batch time"],
        mask: Float[Tensor, "batch frame frequency"],
    ) -> Float[Tensor, "batch time"]:
        """Mask the spectrum of whole frames and go back; what no frame covers becomes zero."""
        size, hop, time = self.config.n_fft, self.config.hop_length, noisy.shape[1]
        covered = size + (mask.shape[1] - 1) * hop
        values = spectrum(noisy, self.window, hop) * mask.mT
        signal = torch.istft(values, size, hop, window=self.window, center=False, length=covered)
        return functional.pad(signal, (0, time - covered))

    def check(self, noisy: Tensor) -> None:
        """Raise UserError for what this network cannot enhance."""
        if noisy.ndim != 2 or not noisy.is_floating_point():
            raise UserError(
                f"MossFormer2SE takes float audio shaped (batch, time), got {noisy.dtype} "
                f"{tuple(noisy.shape)}; for one signal pass x[None], for a channel axis of one "
                "x.squeeze(1)"
            )
        if noisy.shape[1] == 0:
            raise UserError("MossFormer2SE was given a signal of zero samples")


def spectrum(
    signal: Float[Tensor, "batch time"], window: Float[Tensor, " n_fft"], hop: int
) -> Complex[Tensor, "batch frequency frame"]:
    """Transform whole frames: nothing is padded."""
    size = window.numel()
    return torch.stft(signal, size, hop, window=window, center=False, return_complex=True)


def psm_loss(
    model: MossFormer2SE, noisy: Float[Tensor, "batch time"], clean: Float[Tensor, "batch time"]
) -> Float[Tensor, ""]:
    """Compare the mask of ``noisy`` with the phase-sensitive one, louder bins counting for more.

    The target is |S|^2 / |Y|^2 times the cosine of the difference of phases, within 0 and 1: the
    released code's ratio of powers, where the usual mask has that of amplitudes. Half the squared
    error, weighted by |Y| over its maximum in the frame, summed over frequency, mean over frames.
    """
    hop = model.config.hop_length
    y, s = (spectrum(FULL_SCALE * signal, model.window, hop) for signal in (noisy, clean))
    ratio = s.abs().square() / (y.abs().square() + 1e-6)
    target = (ratio * torch.cos(s.angle() - y.angle())).clamp(0, 1)
    loudness = y.abs() / y.abs().amax(1, keepdim=True).clamp(min=1e-12)
    error = (model.masks(noisy).mT - target).square() * loudness
    return 0.5 * error.sum(1).mean()


class FirstMask(nn.Module):
    """The network between features and mask, for export; Kaldi's features stay outside."""

    def __init__(self, model: MossFormer2SE) -> None:
        super().__init__()
        self.mask = model.mask

    def forward(
        self, features: Float[Tensor, "batch frame feature"]
    ) -> Float[Tensor, "batch frame frequency"]:
        return self.mask(features)[:, :, 0]


def exportable(
    model: MossFormer2SE,
) -> tuple[nn.Module, tuple[Tensor], dict[str, dict[int, Any]]]:
    """Return what `sixfold.core.weights.export` takes: features of a group of frames or more."""
    frames, generator = model.config.group + 1, torch.Generator().manual_seed(0)
    features = torch.randn(1, frames, 3 * model.config.n_mels, generator=generator)
    dynamic = {"features": {1: torch.export.Dim("frames", min=frames)}}
    return FirstMask(model).eval(), (features,), dynamic


OFFICIAL: dict[str, str | None] = {  # the mask network alone, or as a part of the released model
    **mask_rules("", "mask."),
    **mask_rules("mossformer.", "mask."),
}


def convert(official: Mapping[str, Tensor]) -> tuple[MossFormer2SEConfig, dict[str, Tensor]]:
    """Turn an official state dict into settings and a state dict of `MossFormer2SE`.

    What a checkpoint does not say, the group's length, the hop and the sample rate, is the default.

    Raises:
        UserError: a key is missing or unknown.
    """
    what = "this MossFormer2_SE_48K checkpoint"
    state = named(official, OFFICIAL, what)
    values: dict[str, Any] = stack_values(state, "mask.", what)
    for key in ("mask.enter.weight", "mask.leave.weight"):
        if key not in state:
            raise UserError(f"{what} is incomplete: nothing in it becomes {key}")
    values["n_mels"] = state["mask.enter.weight"].shape[1] // 3
    values["n_fft"] = 2 * (state["mask.leave.weight"].shape[0] - 1)
    return MossFormer2SEConfig.parse(values, what), state


# The published count holds 16 numbers more: the rotary embedding's constants.
SYSTEM = System(
    name="mossformer2_se",
    paper="arXiv:2312.11825",
    config=MossFormer2SEConfig,
    build=MossFormer2SE,
    convert=convert,
    published={"MossFormer2_SE_48K": (MossFormer2SEConfig(), 55_262_170 - 16)},
    weights={
        "MossFormer2_SE_48K": File(
            "MossFormer2_SE_48K/last_best_checkpoint.pt",
            url="https://huggingface.co/alibabasglab/MossFormer2_SE_48K/resolve/main/last_best_checkpoint.pt",
            licence="Apache-2.0",
        )
    },
    run="sixfold.speech.models.mossformer2.se_48k_inference:run",
    export="sixfold.speech.models.mossformer2.se_48k:exportable",
)
