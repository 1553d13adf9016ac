"""FRCRN's network: configuration, U-Nets, and the path from noisy to enhanced waveform.

arXiv:2206.07293; the citation and the departures from the paper are in the docstring of
`sixfold.speech.models.frcrn`. Feature maps are planar and channels-last, see `layers`.
"""

import copy
import functools
import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import Config, UserError, from_pretrained
from sixfold.core.config import Depth
from sixfold.speech.models.frcrn.layers import (
    CCBAM,
    Cache,
    ComplexBlock,
    ComplexFSMN,
    ComplexScale,
    FoldedBlock,
    Gate,
)
from sixfold.speech.models.frcrn.stft import Spectrum


class FRCRNConfig(Config):
    """Sizes of the released network; times at 16 kHz."""

    channels: PositiveInt = 128
    depth: Depth = 14  # encoders + decoders
    n_fft: PositiveInt = 640
    win_length: PositiveInt = 640  # 40 ms
    hop_length: PositiveInt = 320  # 20 ms
    memory: PositiveInt = 20  # taps of an FSMN cell
    reduction: PositiveInt = 8
    unets: Depth = 2
    frequency_recurrence: bool = True  # False: the paper's baseline, a convolutional U-Net
    attention: Literal["se", "ccbam", "none"] = "se"
    causal: bool = False  # ours: no look-ahead; no official weights
    sample_rate: PositiveInt = 16_000

    @model_validator(mode="after")
    def _sizes_fit(self) -> "FRCRNConfig":
        if self.depth % 2 or self.n_fft % 2:
            raise ValueError(f"depth {self.depth} and n_fft {self.n_fft} should be even")
        if self.win_length > self.n_fft or self.win_length % self.hop_length:
            raise ValueError(
                f"win_length {self.win_length} should be a multiple of hop_length "
                f"{self.hop_length} and no longer than n_fft {self.n_fft}"
            )
        if self.causal and self.attention == "ccbam":
            raise ValueError("ccbam pools over the whole utterance; causal takes se or none")
        if self.attention != "none" and self.reduction > self.channels:
            raise ValueError(f"reduction {self.reduction} leaves no unit of {self.channels}")
        self.frequencies()
        return self

    def frequencies(self) -> list[int]:
        """Compute the number of bins at each level of the U-Net: 321, 159, ..., 1."""
        bins = [self.n_fft // 2 + 1]
        for kernel in self.encoder_kernels():
            bins.append((bins[-1] - kernel) // 2 + 1)
        if bins[-1] != 1:
            raise ValueError(
                f"{self.depth // 2} encoders take {bins[0]} bins to {bins[-1]}, not to 1: "
                f"n_fft {self.n_fft} needs another depth (640: 14, 320: 12)"
            )
        return bins

    def encoder_kernels(self) -> list[int]:
        """List the kernel sizes of the encoders along frequency."""
        return [5] * (self.depth // 2 - 1) + [2]

    def decoder_kernels(self) -> list[int]:
        """Compute the decoder kernel sizes that restore the encoders' bins: 2, 5, 5, 5, 6, 5, 5."""
        bins = self.frequencies()[::-1]
        return [large - 2 * (small - 1) for small, large in itertools.pairwise(bins)]


PAPER = FRCRNConfig(unets=1, win_length=320, hop_length=160, attention="ccbam")
"""One U-Net, windows of 20 ms, complex CBAM on the skips (recalled from the paper)."""


class Estimate(NamedTuple):
    """Enhanced waveform, its spectrum, and the complex mask that made it."""

    waveform: Float[Tensor, "batch time_out"]
    spectrum: Float[Tensor, "batch 2 frequency frame"]
    mask: Float[Tensor, "batch 2 frequency frame"]


class FRCRN(nn.Module):
    """Enhance noisy speech (batch, time) at 16 kHz: ``model(noisy).waveform``.

    The waveform is as long as the input. The input should be at the level of the training data, see
    `sixfold.speech.audio.level_gain`.
    """

    def __init__(self, config: FRCRNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FRCRNConfig()
        self.spectrum = Spectrum(config.n_fft, config.win_length, config.hop_length)
        names = ["unet", *(f"unet{n}" for n in range(2, config.unets + 1))]  # as official keys
        self.unets = nn.ModuleDict({name: UNet(config) for name in names})

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "FRCRN":
        """Load an official or a sixfold checkpoint, in eval mode.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        from sixfold.speech.models.frcrn import SYSTEM  # that module imports this one

        return cast(FRCRN, from_pretrained(path, SYSTEM))

    def forward(self, noisy: Tensor) -> Estimate:
        self.check(noisy)
        window, hop, time = self.config.win_length, self.config.hop_length, noisy.shape[1]
        frames = max(1, math.ceil((time - window) / hop) + 1)
        estimate = self.estimate(functional.pad(noisy, (0, (frames - 1) * hop + window - time)))
        return Estimate(estimate.waveform[:, :time], estimate.spectrum, estimate.mask)

    def estimate(self, noisy: Float[Tensor, "batch time"]) -> Estimate:
        """Enhance whole frames only, as the official network: up to a hop at the end is lost.

        `forward` pads the last frame with zeros instead.
        """
        spectrum = self.spectrum(noisy)
        mask = self.mask(spectrum)
        estimate = _complex_product(spectrum, mask)
        return Estimate(self.spectrum.inverse(estimate), estimate, mask)

    def mask(
        self, spectrum: Float[Tensor, "batch 2 frequency frame"], cache: Cache | None = None
    ) -> Float[Tensor, "batch 2 frequency frame"]:
        """Sum the U-Nets' masks, each bounded by tanh; a U-Net reads the last unbounded mask."""
        x, masks = spectrum.contiguous(memory_format=torch.channels_last), []
        for unet in self.unets.values():
            x = unet(x, cache)
            masks.append(torch.tanh(x))
        return functools.reduce(torch.add, masks)

    def folded(self) -> "FRCRN":
        """Return a copy for inference, with batch norms folded into the convolutions."""
        model = copy.deepcopy(self).requires_grad_(False)
        for parent in list(model.modules()):
            for name, block in list(parent.named_children()):
                if isinstance(block, ComplexBlock):
                    setattr(parent, name, FoldedBlock(block))
        return model.eval()

    def check(self, noisy: Tensor) -> None:
        """Raise a UserError if the input is not float audio shaped (batch, time)."""
        if noisy.ndim != 2 or not noisy.is_floating_point():
            raise UserError(
                f"FRCRN takes float audio shaped (batch, time), got {noisy.dtype} "
                f"{tuple(noisy.shape)}; for one signal pass x[None], for a channel axis of one "
                "x.squeeze(1)"
            )
        if noisy.numel() == 0:
            raise UserError(f"FRCRN was given a signal of zero samples, shape {tuple(noisy.shape)}")


class UNet(nn.Module):
    """A U-Net with recurrence along frequency between its levels and along time at its bottleneck.

    The memories before encoder 0 and after the last decoder, and two of the gates, are in the
    official checkpoint but never used: here they are parameters without a gradient.
    """

    encoder_memories: nn.ModuleList
    decoder_memories: nn.ModuleList
    encoder_gates: nn.ModuleList
    decoder_gates: nn.ModuleList

    def __init__(self, config: FRCRNConfig) -> None:
        super().__init__()
        c, half = config.channels, config.depth // 2
        self.encoders = nn.ModuleList(
            ComplexBlock([1 if i == 0 else c], c, kernel, causal=config.causal)
            for i, kernel in enumerate(config.encoder_kernels())
        )
        self.decoders = nn.ModuleList(
            ComplexBlock(
                [c] if j == 0 else [c, c],
                1 if j == half - 1 else c,
                kernel,
                causal=config.causal,
                transposed=True,
            )
            for j, kernel in enumerate(config.decoder_kernels())
        )
        self.time_memory = nn.ModuleList(ComplexFSMN(c, config.memory) for _ in range(2))
        self.linear = ComplexScale()
        self.recurrence, self.attention = config.frequency_recurrence, config.attention
        if self.recurrence:
            self.encoder_memories, self.decoder_memories = (
                nn.ModuleList(ComplexFSMN(c, config.memory) for _ in range(half)) for _ in range(2)
            )
            self.encoder_memories[0].requires_grad_(False)
            self.decoder_memories[-1].requires_grad_(False)
        if self.attention == "se":
            self.encoder_gates, self.decoder_gates = (
                nn.ModuleList(Gate(c, config.reduction, causal=config.causal) for _ in range(n))
                for n in (half, half - 1)
            )
            self.encoder_gates[-1].requires_grad_(False)
            self.decoder_gates[-1].requires_grad_(False)
        if self.attention == "ccbam":
            self.encoder_gates = nn.ModuleList(CCBAM(c, config.reduction) for _ in range(half - 1))

    def forward(
        self, x: Float[Tensor, "batch 2 frequency frame"], cache: Cache | None = None
    ) -> Float[Tensor, "batch 2 frequency frame"]:
        skips, last = [], len(self.encoders) - 1
        for i, encoder in enumerate(self.encoders):
            if self.recurrence and i > 0:
                x = self.encoder_memories[i](x)
            x = encoder(x, cache=cache)
            if i < last:
                skips.append(self.skip(i, x, cache))
        for memory in cast(Iterable[ComplexFSMN], self.time_memory):
            x = memory.over_time(x, cache)
        x = self.decoders[0](x, cache=cache)
        for j in range(last):
            if self.recurrence:
                x = self.decoder_memories[j](x)
            if self.attention == "se" and j < last - 1:
                x = self.decoder_gates[j](x, cache)
            x = self.decoders[j + 1](x, skips.pop(), cache=cache)
        return self.linear(x)

    def skip(self, i: int, x: Tensor, cache: Cache | None) -> Tensor:
        """Apply the attention gate of encoder ``i``'s skip connection."""
        if self.attention == "se":
            return self.encoder_gates[i](x, cache)
        return self.encoder_gates[i](x) if self.attention == "ccbam" else x


def _complex_product(a: Tensor, b: Tensor) -> Tensor:
    (a_re, a_im), (b_re, b_im) = a.unbind(1), b.unbind(1)
    return torch.stack([a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re], 1)
