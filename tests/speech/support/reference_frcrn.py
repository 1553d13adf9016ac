"""A plain reference implementation of FRCRN, which the tests compare our network with.

Four real convolutions for one complex, tensors (batch, channel, frequency, frame, 2), the STFT as a
convolution, FSMN cells between transposes. Module names are the official checkpoint's, so that an
official state dict loads as it is.
"""

import functools

import numpy as np
import torch
from torch import Tensor, nn

DECODER_KERNELS = (2, 5, 5, 5, 6, 5, 5)


@functools.cache
def stft_kernels(n_fft: int = 640) -> tuple[Tensor, Tensor, Tensor]:
    """Compute analysis and synthesis (n_fft + 2, 1, n_fft) and the window (n_fft,), in float64."""
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft))
    spectrum = np.fft.rfft(np.eye(n_fft))
    basis = np.concatenate([spectrum.real, spectrum.imag], axis=1).T
    analysis, synthesis = basis * window, np.linalg.pinv(basis).T * window
    analysis, synthesis, window = (torch.from_numpy(k) for k in (analysis, synthesis, window))
    return analysis[:, None], synthesis[:, None], window


class ReferenceFRCRN(nn.Module):
    """The two U-Nets between a convolution STFT and its inverse."""

    analysis: Tensor
    synthesis: Tensor
    window: Tensor

    def __init__(self, channels: int, memory: int = 20, reduction: int = 8) -> None:
        super().__init__()
        for name, kernel in zip(("analysis", "synthesis", "window"), stft_kernels(), strict=True):
            self.register_buffer(name, kernel.float(), persistent=False)
        self.unet = ReferenceUNet(channels, memory, reduction)
        self.unet2 = ReferenceUNet(channels, memory, reduction)

    def forward(self, noisy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        spec = nn.functional.conv1d(noisy[:, None], self.analysis, stride=320)
        re, im = spec[:, :321], spec[:, 321:]
        first = self.unet(torch.stack([re, im], -1)[:, None])
        mask = (torch.tanh(self.unet2(first)) + torch.tanh(first))[:, 0]
        est = torch.cat(
            [re * mask[..., 0] - im * mask[..., 1], re * mask[..., 1] + im * mask[..., 0]], 1
        )
        wav = nn.functional.conv_transpose1d(est, self.synthesis, stride=320)
        squares = (self.window**2)[None, :, None].expand(1, -1, est.shape[-1])
        total = nn.functional.fold(squares, (1, wav.shape[-1]), (1, 640), stride=(1, 320))[:, :, 0]
        wav = (wav / (total + 1e-8))[:, 0]
        return est, wav, torch.cat([mask[..., 0], mask[..., 1]], 1)


class ReferenceUNet(nn.Module):
    """Seven encoders, a temporal memory, seven decoders."""

    def __init__(self, channels: int, memory: int, reduction: int) -> None:
        super().__init__()
        for i in range(7):
            kernel = (5, 2) if i < 6 else (2, 2)
            setattr(self, f"fsmn_enc{i}", FrequencyMemory(channels, memory))
            setattr(self, f"encoder{i}", Encoder(1 if i == 0 else channels, channels, kernel))
            setattr(self, f"se_layer_enc{i}", SqueezeExcite(channels, reduction))
        self.fsmn = TimeMemory(channels, memory)
        for j, size in enumerate(DECODER_KERNELS):
            out = channels if j < 6 else 1
            setattr(self, f"fsmn_dec{j}", FrequencyMemory(channels, memory))
            setattr(self, f"decoder{j}", Decoder(channels * (1 + (j > 0)), out, (size, 2)))
            if j < 6:
                setattr(self, f"se_layer_dec{j}", SqueezeExcite(channels, reduction))
        self.linear = ComplexConv(1, 1, (1, 1), (1, 1), (0, 0))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for i in range(7):
            if i > 0:
                x = getattr(self, f"fsmn_enc{i}")(x)
            x = getattr(self, f"encoder{i}")(x)
            skips.append(getattr(self, f"se_layer_enc{i}")(x))
        x = self.fsmn(x)
        for j in range(7):
            x = getattr(self, f"decoder{j}")(x)
            if j < 6:
                x = getattr(self, f"fsmn_dec{j}")(x)
            if j < 5:
                x = getattr(self, f"se_layer_dec{j}")(x)
            if j < 6:
                x = torch.cat([x, skips[5 - j]], 1)
        return self.linear(x)


class ComplexConv(nn.Module):
    """Two real convolutions, used crosswise."""

    def __init__(self, cin: int, cout: int, kernel, stride, padding) -> None:
        super().__init__()
        self.conv_re = nn.Conv2d(cin, cout, kernel, stride, padding)
        self.conv_im = nn.Conv2d(cin, cout, kernel, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        re, im = x[..., 0], x[..., 1]
        return torch.stack(
            [self.conv_re(re) - self.conv_im(im), self.conv_re(im) + self.conv_im(re)], -1
        )


class ComplexDeconv(nn.Module):
    """Two real transposed convolutions, used crosswise."""

    def __init__(self, cin: int, cout: int, kernel) -> None:
        super().__init__()
        self.tconv_re = nn.ConvTranspose2d(cin, cout, kernel, (2, 1), (0, 1))
        self.tconv_im = nn.ConvTranspose2d(cin, cout, kernel, (2, 1), (0, 1))

    def forward(self, x: Tensor) -> Tensor:
        re, im = x[..., 0], x[..., 1]
        return torch.stack(
            [self.tconv_re(re) - self.tconv_im(im), self.tconv_re(im) + self.tconv_im(re)], -1
        )


class SplitNorm(nn.Module):
    """One BatchNorm for the real parts, another for the imaginary ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn_re, self.bn_im = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.bn_re(x[..., 0]), self.bn_im(x[..., 1])], -1)


class Encoder(nn.Module):
    def __init__(self, cin: int, cout: int, kernel) -> None:
        super().__init__()
        self.conv = ComplexConv(cin, cout, kernel, (2, 1), (0, 1))
        self.bn = SplitNorm(cout)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(self.bn(self.conv(x)))


class Decoder(nn.Module):
    def __init__(self, cin: int, cout: int, kernel) -> None:
        super().__init__()
        self.transconv = ComplexDeconv(cin, cout, kernel)
        self.bn = SplitNorm(cout)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(self.bn(self.transconv(x)))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        few = channels // reduction
        self.fc_r, self.fc_i = (
            nn.Sequential(
                nn.Linear(channels, few), nn.ReLU(), nn.Linear(few, channels), nn.Sigmoid()
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        re, im = x[..., 0].mean((2, 3)), x[..., 1].mean((2, 3))
        gate_re = self.fc_r(re) - self.fc_i(im)
        gate_im = self.fc_r(im) + self.fc_i(re)
        return x * torch.stack([gate_re, gate_im], -1)[:, :, None, None]


class Cell(nn.Module):
    """One FSMN cell on (sequences, steps, features)."""

    def __init__(self, width: int, memory: int) -> None:
        super().__init__()
        self.memory = memory
        self.linear = nn.Linear(width, width)
        self.project = nn.Linear(width, width, bias=False)
        self.conv1 = nn.Conv2d(width, width, (memory, 1), groups=width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        p = self.project(torch.relu(self.linear(x)))
        p = p[:, None].permute(0, 3, 2, 1)
        past = nn.functional.pad(p, (0, 0, self.memory - 1, 0))
        return x + (p + self.conv1(past)).permute(0, 3, 2, 1)[:, 0]


class FrequencyMemory(nn.Module):
    """A complex FSMN layer along frequency, with every frame as a separate sequence."""

    def __init__(self, width: int, memory: int) -> None:
        super().__init__()
        self.fsmn_re_L1, self.fsmn_im_L1 = Cell(width, memory), Cell(width, memory)

    def forward(self, x: Tensor) -> Tensor:
        b, c, f, t, _ = x.shape
        rows = x.permute(4, 0, 3, 2, 1).reshape(2, b * t, f, c)
        re = self.fsmn_re_L1(rows[0]) - self.fsmn_im_L1(rows[1])
        im = self.fsmn_re_L1(rows[1]) + self.fsmn_im_L1(rows[0])
        return torch.stack([re, im], -1).reshape(b, t, f, c, 2).permute(0, 3, 2, 1, 4)


class TimeMemory(nn.Module):
    """Two complex FSMN layers along time, on channels of one frequency."""

    def __init__(self, width: int, memory: int) -> None:
        super().__init__()
        for layer in ("L1", "L2"):
            setattr(self, f"fsmn_re_{layer}", Cell(width, memory))
            setattr(self, f"fsmn_im_{layer}", Cell(width, memory))

    def forward(self, x: Tensor) -> Tensor:
        b, c, f, t, _ = x.shape
        re, im = x.reshape(b, c * f, t, 2).permute(3, 0, 2, 1)
        for layer in ("L1", "L2"):
            real, imag = getattr(self, f"fsmn_re_{layer}"), getattr(self, f"fsmn_im_{layer}")
            re, im = real(re) - imag(im), real(im) + imag(re)
        return torch.stack([re, im], -1).permute(0, 2, 1, 3).reshape(b, c, f, t, 2)
