"""MossFormer2, MossFormer and MossFormer2_SE_48K for export, from recording to recording."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import UserError
from sixfold.core.weights.export import Exportable
from sixfold.speech.models.mossformer2.inference import check_rate_is_known, with_aligned_polarity
from sixfold.speech.models.mossformer2.model import MossFormer2
from sixfold.speech.models.mossformer2.se_48k import FULL_SCALE, MossFormer2SE, MossFormer2SEConfig


class Separator(nn.Module):
    """`sixfold.speech.models.mossformer2.separate` in one window, of a batch of mixtures."""

    def __init__(self, model: MossFormer2) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)

    def forward(self, mixture: Float[Tensor, "batch time"]) -> Float[Tensor, "batch speaker time"]:
        return with_aligned_polarity(self.model)(mixture)


def exportable(model: MossFormer2) -> Exportable:
    """Prepare the export of mixtures of two frames or more, in batches of any size."""
    check_rate_is_known(model)
    config = model.config
    hop, generator = config.kernel_size // 2, torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(2, (config.group + 1) * hop + 5, generator=generator)
    time = torch.export.Dim("time", min=3 * hop)
    dynamic = {"mixture": {0: torch.export.Dim("batch"), 1: time}}
    facts = {"sample_rate": config.sample_rate}
    return Exportable(Separator(model).eval(), (noise,), dynamic, ["speakers"], facts)


class FullBandEnhancer(nn.Module):
    """`MossFormer2SE` in real arithmetic: Kaldi's features and the STFT are matrix products.

    ONNX has neither Kaldi's features nor the inverse STFT, and onnxruntime's FFT is inexact.
    """

    window: Tensor
    analysis: Tensor
    synthesis: Tensor
    feature_analysis: Tensor
    mel: Tensor
    slope: Tensor

    def __init__(self, model: MossFormer2SE) -> None:
        super().__init__()
        self.mask = copy.deepcopy(model.mask)
        size, self.hop = model.config.n_fft, model.config.hop_length
        window = torch.hamming_window(size, periodic=False, dtype=torch.float64)
        units = torch.eye(size // 2 + 1, dtype=torch.complex128)
        inverse = torch.fft.irfft(torch.cat([units, 1j * units]), n=size)
        padded = 1 << (size - 1).bit_length()  # Kaldi pads its frames to a power of two
        constants = {
            "window": window,
            "analysis": window[:, None] * dft(size, size),
            "synthesis": (window * inverse)[:, None],
            "feature_analysis": FULL_SCALE * window[:, None] * dft(size, padded),
            "mel": mel_bands(model.config, padded),
            "slope": torch.arange(-2.0, 3.0)[None, None] / 10,  # regression over five frames
        }
        for name, value in constants.items():
            self.register_buffer(name, value.float(), persistent=False)

    def forward(self, noisy: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        time, size = noisy.shape[1], len(self.window)
        hops = (time - size + self.hop - 1) // self.hop
        padded = functional.pad(noisy, (0, size + hops * self.hop - time))
        frames = padded.unfold(1, size, self.hop)
        mask = self.mask(self.features(frames))[:, :, 0]
        masked = (frames @ self.analysis).unflatten(-1, (2, -1)) * mask[:, :, None]
        return self.overlap_add(masked.flatten(2))[:, :time]

    def features(
        self, frames: Float[Tensor, "batch frame size"]
    ) -> Float[Tensor, "batch frame feature"]:
        """Compute log-mel energies, their deltas and the deltas of those, as `MossFormer2SE`."""
        frames = frames - frames.mean(-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], -1)
        values = ((frames - 0.97 * before) @ self.feature_analysis).unflatten(-1, (2, -1))
        energies = values.square().sum(-2) @ self.mel
        mel = energies.clamp(min=torch.finfo(torch.float32).eps).log()
        delta = self.deltas(mel)
        return torch.cat([mel, delta, self.deltas(delta)], -1)

    def deltas(self, x: Float[Tensor, "batch frame band"]) -> Float[Tensor, "batch frame band"]:
        """Compute the slope of each band over five frames, the first and last one repeated."""
        edges = [x[:, :1], x[:, :1], x, x[:, -1:], x[:, -1:]]
        bands = torch.cat(edges, 1).mT
        slopes = functional.conv1d(bands.flatten(0, 1)[:, None], self.slope)[:, 0]
        return slopes.unflatten(0, (-1, x.shape[2])).mT

    def overlap_add(
        self, spectrum: Float[Tensor, "batch frame parts"]
    ) -> Float[Tensor, "batch covered"]:
        """Compute the inverse STFT, divided by the sum of the squared windows."""
        signal = functional.conv_transpose1d(spectrum.mT, self.synthesis, stride=self.hop)
        ones = torch.ones_like(spectrum[:1, None, :, 0])
        squares = self.window.square()[None, None]
        return (signal / functional.conv_transpose1d(ones, squares, stride=self.hop))[:, 0]


def dft(size: int, padded: int) -> Float[Tensor, "size parts"]:
    """Compute the matrix from frames, padded with zeros, to their real and imaginary parts."""
    unit = torch.fft.rfft(torch.eye(size, dtype=torch.float64), n=padded)
    return torch.cat([unit.real, unit.imag], 1)


def mel_bands(config: MossFormer2SEConfig, padded: int) -> Float[Tensor, "frequency band"]:
    """Compute Kaldi's triangular mel bands from 20 Hz to half the sample rate."""
    from torchaudio.compliance import kaldi

    rate = float(config.sample_rate)
    bands, _ = kaldi.get_mel_banks(config.n_mels, padded, rate, 20.0, 0.0, 100.0, -500.0, 1.0)
    return functional.pad(bands, (0, 1)).T  # the bin at half the sample rate is in no band


def exportable_se_48k(model: MossFormer2SE) -> Exportable:
    """Prepare the export of recordings of more than one frame (40 ms), in batches of any size.

    Raises:
        UserError: the features are dithered, which makes every call differ.
    """
    config = model.config
    if config.dither:
        raise UserError(f"dither {config.dither} makes every call differ; export with dither 0")
    samples, generator = (
        config.n_fft + (config.group + 1) * config.hop_length + 5,
        torch.Generator(),
    )
    noise = 0.1 * torch.randn(2, samples, generator=generator)
    time = torch.export.Dim("time", min=config.n_fft + 1)
    dynamic = {"noisy": {0: torch.export.Dim("batch"), 1: time}}
    facts = {"sample_rate": config.sample_rate}
    return Exportable(FullBandEnhancer(model).eval(), (noise,), dynamic, ["enhanced"], facts)
