"""FRCRN: a complex U-Net whose features recur along frequency, for single-channel enhancement.

S. Zhao, B. Ma, K. N. Watcharasupat, W.-S. Gan, "FRCRN: Boosting Feature Representation using
Frequency Recurrence for Monaural Speech Enhancement", ICASSP 2022. arXiv:2206.07293

The defaults are the *released* network (FRCRN_SE_16K), whose weights exist. It departs from the
paper: two U-Nets, the second learning a residual of the mask; squeeze-and-excitation on the skips
and in the decoders instead of complex CBAM on the skips; windows of 40 ms instead of 20. `PAPER`
has the paper's choices, as far as they are known; no weights of it exist.

Feature maps are planar and channels-last, see `sixfold.speech.models.frcrn.layers`.
"""

import copy
import functools
import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Float
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import Config, System, UserError, from_pretrained, rename
from sixfold.core.data.fetch import File
from sixfold.speech.models.frcrn.layers import (
    CCBAM,
    Cache,
    ComplexBlock,
    ComplexFSMN,
    ComplexScale,
    FoldedBlock,
    Gate,
)


class FRCRNConfig(Config):
    """The released network; times at 16 kHz."""

    channels: PositiveInt = 128
    depth: PositiveInt = 14  # encoders + decoders
    n_fft: PositiveInt = 640
    win_length: PositiveInt = 640  # 40 ms
    hop_length: PositiveInt = 320  # 20 ms
    memory: PositiveInt = 20  # taps of an FSMN cell
    reduction: PositiveInt = 8
    unets: PositiveInt = 2
    frequency_recurrence: bool = True  # False: the paper's baseline, a convolutional U-Net
    attention: Literal["se", "ccbam", "none"] = "se"
    causal: bool = False  # ours: looks back only; no official weights
    sample_rate: int = 16_000

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
        """Return the number of bins before, between and after the encoders: 321, 159, ..., 1."""
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
        """Return the encoders' kernel sizes along frequency."""
        return [5] * (self.depth // 2 - 1) + [2]

    def decoder_kernels(self) -> list[int]:
        """Return the decoders' kernel sizes, which undo the encoders' bins: 2, 5, 5, 5, 6, 5, 5."""
        bins = self.frequencies()[::-1]
        return [large - 2 * (small - 1) for small, large in itertools.pairwise(bins)]


PAPER = FRCRNConfig(unets=1, win_length=320, hop_length=160, attention="ccbam")
"""One U-Net, windows of 20 ms, complex CBAM on the skips (recalled from the paper)."""


class Estimate(NamedTuple):
    """What the network says of a noisy signal."""

    waveform: Float[Tensor, "batch time_out"]
    spectrum: Float[Tensor, "batch 2 frequency frame"]
    mask: Float[Tensor, "batch 2 frequency frame"]


class FRCRN(nn.Module):
    """Estimate clean speech from noisy speech (batch, time) at 16 kHz: ``model(noisy).waveform``.

    The waveform is as long as the input, which should be at the level of the training data: see
    `sixfold.speech.audio.files.level_gain`.
    """

    def __init__(self, config: FRCRNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FRCRNConfig()
        self.spectrum = Spectrum(config)
        names = ["unet", *(f"unet{n}" for n in range(2, config.unets + 1))]  # as official keys
        self.unets = nn.ModuleDict({name: UNet(config) for name in names})

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "FRCRN":
        """Load an official or a sixfold checkpoint, told apart by their keys, in eval mode.

        Raises:
            UserError: the file is missing, damaged, or another system's or size's.
        """
        return cast(FRCRN, from_pretrained(path, SYSTEM))

    def forward(self, noisy: Tensor) -> Estimate:
        self.check(noisy)
        window, hop, time = self.config.win_length, self.config.hop_length, noisy.shape[1]
        frames = max(1, math.ceil((time - window) / hop) + 1)
        estimate = self.estimate(functional.pad(noisy, (0, (frames - 1) * hop + window - time)))
        return Estimate(estimate.waveform[:, :time], estimate.spectrum, estimate.mask)

    def estimate(self, noisy: Float[Tensor, "batch time"]) -> Estimate:
        """Enhance whole frames only, as the official network: up to a hop of the tail is lost.

        `forward` pads with zeros instead.
        """
        spectrum = self.spectrum(noisy)
        mask = self.mask(spectrum)
        estimate = _complex_product(spectrum, mask)
        return Estimate(self.spectrum.inverse(estimate), estimate, mask)

    def mask(
        self, spectrum: Float[Tensor, "batch 2 frequency frame"], cache: Cache | None = None
    ) -> Float[Tensor, "batch 2 frequency frame"]:
        """Sum the bounded masks of the U-Nets; each U-Net reads the one before, unbounded."""
        x, masks = spectrum.contiguous(memory_format=torch.channels_last), []
        for unet in self.unets.values():
            x = unet(x, cache)
            masks.append(torch.tanh(x))
        return functools.reduce(torch.add, masks)

    def folded(self) -> "FRCRN":
        """Return a copy for inference: batch norms folded into the convolutions, kernels merged."""
        model = copy.deepcopy(self).eval().requires_grad_(False)
        for parent in list(model.modules()):
            for name, block in list(parent.named_children()):
                if isinstance(block, ComplexBlock):
                    setattr(parent, name, FoldedBlock(block))
        return model

    def check(self, noisy: Tensor) -> None:
        """Raise UserError for what this network cannot enhance."""
        if noisy.ndim != 2 or not noisy.is_floating_point():
            raise UserError(
                f"FRCRN takes float audio shaped (batch, time), got {noisy.dtype} "
                f"{tuple(noisy.shape)}; for one signal pass x[None], for a channel axis of one "
                "x.squeeze(1)"
            )
        if noisy.shape[1] == 0:
            raise UserError("FRCRN was given a signal of zero samples")


class Spectrum(nn.Module):
    """The STFT with a square-root Hann window, and its inverse; both without padding (center)."""

    window: Tensor

    def __init__(self, config: FRCRNConfig) -> None:
        super().__init__()
        self.n_fft, self.win, self.hop = config.n_fft, config.win_length, config.hop_length
        window = torch.hann_window(self.win, dtype=torch.float64).sqrt().float()
        self.register_buffer("window", window, persistent=False)

    def forward(self, signal: Float[Tensor, "batch time"]) -> Float[Tensor, "batch 2 freq frame"]:
        rest = self.n_fft - self.win  # the window stands at the start of a frame of n_fft
        window = functional.pad(self.window, (0, rest))
        signal = functional.pad(signal, (0, rest)) if rest else signal
        spectrum = torch.stft(
            signal, self.n_fft, self.hop, window=window, center=False, return_complex=True
        )
        return torch.view_as_real(spectrum).permute(0, 3, 1, 2)

    def inverse(self, spectrum: Float[Tensor, "batch 2 freq frame"]) -> Float[Tensor, "batch time"]:
        """Overlap and add; divide by the sum of the squared windows, tiny at the two ends."""
        frames = self.frames(spectrum) * self.window
        squares = (self.window**2).expand(1, frames.shape[1], -1)
        # x / (s + 1e-8), multiplied out: ONNX's optimiser takes a sum with 1e-8 for one with zero.
        return 1e8 * self.overlap_add(frames) / (1e8 * self.overlap_add(squares) + 1)

    def frames(self, spectrum: Float[Tensor, "batch 2 freq frame"]) -> Tensor:
        """Return (batch, frame, win) before the synthesis window."""
        values = torch.view_as_complex(spectrum.permute(0, 3, 2, 1).contiguous())
        return torch.fft.irfft(values, n=self.n_fft)[..., : self.win]

    def overlap_add(self, frames: Float[Tensor, "batch frame win"]) -> Float[Tensor, "batch time"]:
        """Add frames, each a hop after the one before."""
        pieces = self.win // self.hop
        hops = frames.unflatten(-1, (pieces, self.hop))
        shifted = [functional.pad(hops[:, :, i], (0, 0, i, pieces - 1 - i)) for i in range(pieces)]
        return torch.stack(shifted).sum(0).flatten(1)


class UNet(nn.Module):
    """Encoders, a memory over time, decoders; recurrence along frequency between them.

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
        self, x: Float[Tensor, "batch 2 freq frame"], cache: Cache | None = None
    ) -> Float[Tensor, "batch 2 freq frame"]:
        skips, last = [], len(self.encoders) - 1
        for i, encoder in enumerate(self.encoders):
            if self.recurrence and i > 0:
                x = self.encoder_memories[i](x)
            x = encoder(x, cache=cache)
            if i < last:
                skips.append(self.gated(i, x, cache))
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

    def gated(self, i: int, x: Tensor, cache: Cache | None) -> Tensor:
        """Return what encoder i sends across: its output, gated."""
        if self.attention == "se":
            return self.encoder_gates[i](x, cache)
        return self.encoder_gates[i](x) if self.attention == "ccbam" else x


def _complex_product(a: Tensor, b: Tensor) -> Tensor:
    (a_re, a_im), (b_re, b_im) = a.unbind(1), b.unbind(1)
    return torch.stack([a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re], 1)


class MatrixSpectrum(Spectrum):
    """The same transform as matrix products, for runtimes whose FFT of 640 is inexact.

    onnxruntime's is off by 2e-3, its inverse returns NaN; the product is exact and exports.
    """

    analysis: Tensor
    synthesis: Tensor

    def __init__(self, config: FRCRNConfig) -> None:
        super().__init__(config)
        units = torch.eye(self.n_fft // 2 + 1, dtype=torch.complex128)
        synthesis = torch.fft.irfft(torch.cat([units, 1j * units]), n=self.n_fft)[:, : self.win]
        self.register_buffer("analysis", dft_kernel(config)[:, None], persistent=False)
        self.register_buffer("synthesis", synthesis.float(), persistent=False)

    def forward(self, signal: Float[Tensor, "batch time"]) -> Float[Tensor, "batch 2 freq frame"]:
        spectrum = functional.conv1d(signal[:, None], self.analysis, stride=self.hop)
        return spectrum.unflatten(1, (2, -1))

    def frames(self, spectrum: Float[Tensor, "batch 2 freq frame"]) -> Tensor:
        """Return (batch, frame, win) before the synthesis window."""
        return spectrum.flatten(1, 2).transpose(1, 2) @ self.synthesis


def dft_kernel(config: FRCRNConfig) -> Float[Tensor, "freq2 win"]:
    """Return the windowed rows of the DFT, real parts first: official ``stft.weight``."""
    unit = torch.fft.rfft(torch.eye(config.n_fft, dtype=torch.float64)[: config.win_length]).T
    return torch.cat([unit.real, unit.imag]).float() * Spectrum(config).window


class Enhancer(nn.Module):
    """A folded FRCRN that maps a signal to a signal, for export."""

    def __init__(self, model: FRCRN) -> None:
        super().__init__()
        self.model = model.folded()
        self.model.spectrum = MatrixSpectrum(model.config)

    def forward(self, noisy: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time_out"]:
        return self.model.estimate(noisy).waveform


def exportable(model: FRCRN) -> tuple[nn.Module, tuple[Tensor], dict[str, dict[int, Any]]]:
    """Return what `sixfold.core.weights.export` takes: whole frames, any length, any batch."""
    window = model.config.win_length
    time = torch.export.Dim("time", min=2 * window)
    noise = torch.randn(2, 5 * window, generator=torch.Generator().manual_seed(0))
    return (
        Enhancer(model),
        (noise * 10 ** (-25 / 20),),
        {"noisy": {0: torch.export.Dim("batch"), 1: time}},
    )


OFFICIAL = {  # official key -> ours
    "{u}.encoder{i}.conv.conv_{p}.{leaf}": "unets.{u}.encoders.{i}.{leaf}_{p}",
    "{u}.encoder{i}.bn.bn_{p}.{leaf}": "unets.{u}.encoders.{i}.norm.{leaf}.{p}",
    "{u}.decoder{i}.transconv.tconv_{p}.{leaf}": "unets.{u}.decoders.{i}.{leaf}_{p}",
    "{u}.decoder{i}.bn.bn_{p}.{leaf}": "unets.{u}.decoders.{i}.norm.{leaf}.{p}",
    "{u}.fsmn_enc{i}.fsmn_{p}_L1.{*leaf}": "unets.{u}.encoder_memories.{i}.{p}.{leaf}",
    "{u}.fsmn_dec{i}.fsmn_{p}_L1.{*leaf}": "unets.{u}.decoder_memories.{i}.{p}.{leaf}",
    "{u}.se_layer_enc{i}.fc_r.{*leaf}": "unets.{u}.encoder_gates.{i}.re.{leaf}",
    "{u}.se_layer_enc{i}.fc_i.{*leaf}": "unets.{u}.encoder_gates.{i}.im.{leaf}",
    "{u}.se_layer_dec{i}.fc_r.{*leaf}": "unets.{u}.decoder_gates.{i}.re.{leaf}",
    "{u}.se_layer_dec{i}.fc_i.{*leaf}": "unets.{u}.decoder_gates.{i}.im.{leaf}",
    "{u}.fsmn.fsmn_{p}_L1.{*leaf}": "unets.{u}.time_memory.0.{p}.{leaf}",
    "{u}.fsmn.fsmn_{p}_L2.{*leaf}": "unets.{u}.time_memory.1.{p}.{leaf}",
    "{u}.linear.conv_{p}.{leaf}": "unets.{u}.linear.{leaf}_{p}",
    "stft.{leaf}": None,  # constants, see `_check_transform`
    "istft.{leaf}": None,
}
for _one in ("encoder", "decoder", "se_layer_enc", "se_layer_dec", "fsmn_enc", "fsmn_dec"):
    # The official checkpoint holds these modules twice: encoder0 is also encoders.0.
    _many = {"encoder": "encoders", "decoder": "decoders"}.get(
        _one, _one.replace("layer", "layers")
    )
    OFFICIAL |= {
        old.replace(f"{_one}{{i}}", f"{_many}.{{i}}"): new
        for old, new in OFFICIAL.items()
        if f".{_one}{{i}}." in old
    }


def convert(official: Mapping[str, Tensor]) -> tuple[FRCRNConfig, dict[str, Tensor]]:
    """Turn an official state dict into settings and a state dict of `FRCRN`.

    Raises:
        UserError: a key is missing, unknown, or one of two copies that differ.
    """
    config = _read_config(official)
    _check_transform(official, config)
    named = rename(official, OFFICIAL, what="this FRCRN checkpoint")
    state = {}
    for key, value in named.items():
        if key.endswith(".re") and ".norm." in key:  # two batch norms become one over both halves
            other = named.get(key[:-2] + "im", value.new_empty(0))
            state[key[:-3]] = torch.cat([value, other]) if value.ndim else value
        elif key.endswith("conv1.weight"):
            state[key.replace("conv1.weight", "taps")] = value.flatten(2)
        elif not (key.endswith(".im") and ".norm." in key):
            state[key] = value
    return config, state


def _read_config(official: Mapping[str, Tensor]) -> FRCRNConfig:
    try:
        channels = official["unet.encoder0.conv.conv_re.weight"].shape[0]
        memory = official["unet.fsmn.fsmn_re_L1.conv1.weight"].shape[2]
    except KeyError as error:
        raise UserError(
            f"this is no FRCRN checkpoint: it has no {error}, but {', '.join(sorted(official)[:3])}"
        ) from None
    modules = {key.partition(".")[0]: None for key in official}
    encoders = {key.split(".")[1] for key in official if key.startswith("unet.encoder")}
    squeeze = official.get("unet.se_layer_enc0.fc_r.0.weight")
    window = official.get("istft.window")
    values = {
        "channels": channels,
        "depth": 2 * sum(name.startswith("encoder") and name != "encoders" for name in encoders),
        "memory": memory,
        "unets": sum(name.startswith("unet") for name in modules),
        "frequency_recurrence": any(key.startswith("unet.fsmn_enc") for key in official),
        "attention": "none" if squeeze is None else "se",
    }
    if squeeze is not None:
        values["reduction"] = channels // squeeze.shape[0]
    if window is not None:
        size = window.numel()
        values |= {"n_fft": size, "win_length": size, "hop_length": size // 2}
    return FRCRNConfig.parse(values, "this FRCRN checkpoint")


def _check_transform(official: Mapping[str, Tensor], config: FRCRNConfig) -> None:
    """Compare the stored STFT kernels, if any, with what `Spectrum` computes."""
    window = Spectrum(config).window
    for key, expected in {"istft.window": window, "stft.weight": dft_kernel(config)}.items():
        stored = official.get(key, expected)
        same = stored.numel() == expected.numel()
        if not same or not torch.allclose(stored.view_as(expected), expected, atol=1e-4):
            raise UserError(
                f"this FRCRN checkpoint's {key} is not that of a square-root Hann window of "
                f"{config.win_length}; it was trained with another transform"
            )


SYSTEM = System(
    name="frcrn",
    paper="arXiv:2206.07293",
    config=FRCRNConfig,
    build=FRCRN,
    convert=convert,
    published={"FRCRN_SE_16K": (FRCRNConfig(), 13_141_844)},
    weights={
        "FRCRN_SE_16K": File(
            "FRCRN_SE_16K/last_best_checkpoint.pt",
            url="https://huggingface.co/alibabasglab/FRCRN_SE_16K/resolve/main/last_best_checkpoint.pt",
            licence="Apache-2.0",
        )
    },
    run="sixfold.speech.models.frcrn.inference:run",
    export="sixfold.speech.models.frcrn.model:exportable",
)
