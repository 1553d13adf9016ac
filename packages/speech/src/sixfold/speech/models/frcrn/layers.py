"""The complex layers of FRCRN, on planar channels-last feature maps.

Shapes: B batch, C complex channels, F frequency bins, L frames. A planar map is (B, 2 C, F, L)
with the real parts first, in memory (B, F, L, 2 C): convolutions read it as it is, and the FSMN
cells, which work on the channel axis, need no transpose.
"""

from collections.abc import Hashable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.kernels import (
    apply_kernel,
    apply_transposed,
    complex_bias,
    complex_conv2d,
    complex_conv_transpose2d,
    complex_kernel,
    dwconv1d,
    linear,
    scaled_kernel,
    transposed_kernels,
)

Cache = dict[Hashable, Tensor]
"""State that a causal network carries from one call to the next, by module."""


class ComplexBlock(nn.Module):
    """A complex convolution of stride (2, 1) or its transpose, batch norm, LeakyReLU.

    The "complex" batch norm normalises real and imaginary parts separately: one batch norm over
    planar channels. The kernel has two taps in time: an encoder reads a frame and the previous one
    and returns one frame more than its input; a decoder reads a frame and the next one and returns
    one less. If causal, both read a frame and the previous one, and keep the number of frames.

    Args:
        channels: Number of complex channels of each input; the inputs are concatenated.
        out: Number of complex channels of the output.
        kernel: Kernel size along frequency.
        causal: Whether a frame may depend on no later one.
        transposed: Whether to decode (transposed convolution) rather than encode.
    """

    def __init__(
        self, channels: list[int], out: int, kernel: int, *, causal: bool, transposed: bool = False
    ) -> None:
        super().__init__()
        self.channels, self.causal, self.transposed = channels, causal, transposed
        layer = nn.ConvTranspose2d if transposed else nn.Conv2d
        real, imag = (layer(sum(channels), out, (kernel, 2)) for _ in range(2))
        self.weight_re, self.bias_re = real.parameters()
        self.weight_im, self.bias_im = imag.parameters()
        self.norm = nn.BatchNorm2d(2 * out)

    def forward(self, *inputs: Tensor, cache: Cache | None = None) -> Tensor:
        inputs = _with_past(self, inputs, cache)
        real, imag = (self.weight_re, self.bias_re), (self.weight_im, self.bias_im)
        if self.transposed:
            x = complex_conv_transpose2d(inputs, real, imag)
        else:
            x = complex_conv2d(inputs, real, imag, stride=(2, 1), padding=_padding(self))
        return functional.leaky_relu_(self.norm(x))

    def kernels(self) -> tuple[Tensor, ...]:
        """Build the real kernels that are equivalent to the complex one."""
        if self.transposed:
            return transposed_kernels(self.weight_re, self.weight_im, self.channels)
        return (complex_kernel(self.weight_re, self.weight_im, self.channels),)

    def bias(self) -> Tensor:
        """Build the planar bias."""
        return complex_bias(self.bias_re, self.bias_im)


class FoldedBlock(nn.Module):
    """A `ComplexBlock` for inference, with its batch norm folded into real kernels."""

    def __init__(self, block: ComplexBlock) -> None:
        super().__init__()
        self.causal, self.transposed = block.causal, block.transposed
        norm = block.norm
        mean, variance, _ = norm.buffers()
        scale = norm.weight / torch.sqrt(variance + norm.eps)
        self.scale = nn.Parameter(scale, False)
        self.bias = nn.Parameter(norm.bias + (block.bias() - mean) * scale, False)
        self.kernels = nn.ParameterList(
            nn.Parameter(scaled_kernel(kernel, scale).to(memory_format=torch.channels_last), False)
            for kernel in block.kernels()
        )

    def forward(self, *inputs: Tensor, cache: Cache | None = None) -> Tensor:
        inputs, kernels = _with_past(self, inputs, cache), tuple(self.kernels)
        if self.transposed:
            x = apply_transposed(inputs, kernels, self.bias, self.scale)
        else:
            x = apply_kernel(inputs, kernels[0], self.bias, (2, 1), _padding(self), self.scale)
        return functional.leaky_relu_(x)


def _with_past(block, inputs: tuple[Tensor, ...], cache: Cache | None) -> tuple[Tensor, ...]:
    if not block.causal:
        return inputs
    return tuple(with_past(x, 1, cache, (block, i)) for i, x in enumerate(inputs))


def _padding(block) -> tuple[int, int]:
    return (0, 0 if block.causal else 1)


class ComplexFSMN(nn.Module):
    """A complex FSMN of two real cells R and I: (R(re) - I(im), R(im) + I(re))."""

    def __init__(self, width: int, memory: int) -> None:
        super().__init__()
        self.re, self.im = FSMN(width, memory), FSMN(width, memory)

    def forward(self, x: Float[Tensor, "batch c2 frequency frame"]) -> Tensor:
        """Recur along frequency, from low to high, in every frame separately."""
        rows = x.permute(0, 2, 3, 1)
        return self.crosswise(self.re(rows), self.im(rows)).permute(0, 3, 1, 2)

    def over_time(self, x: Float[Tensor, "batch c2 1 frame"], cache: Cache | None = None) -> Tensor:
        """Recur along time."""
        rows = x.permute(0, 3, 2, 1)
        real, imag = self.re(rows, cache), self.im(rows, cache)
        return self.crosswise(real, imag).permute(0, 3, 2, 1)

    def crosswise(self, real: Tensor, imag: Tensor) -> Tensor:
        """Combine the outputs of both cells, planar on the last axis, to a complex product."""
        return real + _times_i(imag)


class FSMN(nn.Module):
    """A memory cell: y = x + p + (causal filter of p), with p = project(relu(linear(x))).

    Real and imaginary parts share the weights, so planar channels are two sequences of ``width``.
    """

    def __init__(self, width: int, memory: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.project = nn.Linear(width, width, bias=False)
        self.taps = nn.Parameter(torch.empty(width, 1, memory))
        bound = memory**-0.5  # the initialisation of nn.Conv1d
        nn.init.uniform_(self.taps, -bound, bound)

    def forward(
        self, x: Float[Tensor, "batch step other c2"], cache: Cache | None = None
    ) -> Tensor:
        parts = x.unflatten(-1, (2, -1))
        hidden = torch.relu(linear(parts, self.linear.weight, self.linear.bias))
        p = linear(hidden, self.project.weight).flatten(-2)
        taps, reach = torch.cat([self.taps, self.taps]), self.taps.shape[-1] - 1
        if cache is None:
            return x + dwconv1d(p, taps, padding=(reach, 0), residual=True)
        return x + p + dwconv1d(with_past(p, reach, cache, self, axis=1), taps)


class Gate(nn.Module):
    """Squeeze-and-excitation: scale each channel by a gate computed from all channels' means.

    The means are over frequency and time; if causal, over frequency and the frames so far.
    """

    def __init__(self, channels: int, reduction: int, *, causal: bool) -> None:
        super().__init__()
        self.causal, few = causal, channels // reduction
        self.re, self.im = (
            nn.Sequential(
                nn.Linear(channels, few), nn.ReLU(), nn.Linear(few, channels), nn.Sigmoid()
            )
            for _ in range(2)
        )

    def forward(
        self, x: Float[Tensor, "batch c2 frequency frame"], cache: Cache | None = None
    ) -> Float[Tensor, "batch c2 frequency frame"]:
        means = self.means_so_far(x.mean(2), cache) if self.causal else x.mean((2, 3))[..., None]
        parts = means.unflatten(1, (2, -1)).transpose(2, 3)  # (B, 2, L or 1, C)
        real, imag = self.re(parts), self.im(parts)
        gate = torch.stack([real[:, 0] - imag[:, 1], real[:, 1] + imag[:, 0]], 1)
        return x * gate.transpose(2, 3).flatten(1, 2)[:, :, None]

    def means_so_far(self, now: Float[Tensor, "batch c2 frame"], cache: Cache | None) -> Tensor:
        """Average the means of each frame and all earlier frames."""
        total, count = torch.zeros_like(now[..., :1]), now.new_zeros(())
        if cache is not None:
            total = cache.get((self, "total"), total)
            count = cache.get((self, "count"), count)
        totals = total + now.cumsum(-1)
        counts = count + torch.arange(1, now.shape[-1] + 1, device=now.device)
        if cache is not None:
            cache[self, "total"] = totals[..., -1:].clone()
            cache[self, "count"] = counts[-1].clone()
        return totals / counts


class CCBAM(nn.Module):
    """Complex convolutional block attention, the paper's gate on the skip connections.

    Channel attention from the mean and the maximum over frequency and time through a shared
    complex perceptron, then spatial attention from the mean and the maximum over channels through
    a complex 7 x 7 convolution; real and imaginary part are each scaled by the sigmoid of the same
    part. After the paper and CBAM (arXiv:1807.06521): no code or weights of CCBAM are published.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        few = channels // reduction
        self.re, self.im = (
            nn.Sequential(nn.Linear(channels, few), nn.ReLU(), nn.Linear(few, channels))
            for _ in range(2)
        )
        self.spatial_re, self.spatial_im = (nn.Conv2d(2, 1, 7, padding=3) for _ in range(2))

    def forward(
        self, x: Float[Tensor, "batch c2 frequency frame"], cache: Cache | None = None
    ) -> Tensor:
        gate = self.perceptron(x.mean((2, 3))) + self.perceptron(x.amax((2, 3)))
        x = x * torch.sigmoid(gate)[:, :, None, None]
        re, im = x.chunk(2, 1)
        pooled = torch.stack([re.mean(1), re.amax(1), im.mean(1), im.amax(1)], 1)
        (a, bias_re), (b, bias_im) = self.spatial_re.parameters(), self.spatial_im.parameters()
        gate = complex_conv2d([pooled], (a, bias_re), (b, bias_im), padding=(3, 3))
        gate_re, gate_im = torch.sigmoid(gate).chunk(2, 1)
        return torch.cat([re * gate_re, im * gate_im], 1)

    def perceptron(self, planar: Float[Tensor, "batch c2"]) -> Float[Tensor, "batch c2"]:
        """Apply the two real perceptrons as one complex perceptron."""
        parts = planar.unflatten(1, (2, -1))
        return self.re(parts).flatten(1) + _times_i(self.im(parts).flatten(1))


class ComplexScale(nn.Module):
    """The output layer: a complex 1 x 1 convolution of one channel."""

    def __init__(self) -> None:
        super().__init__()
        real, imag = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
        self.weight_re, self.bias_re = real.parameters()
        self.weight_im, self.bias_im = imag.parameters()

    def forward(self, x: Float[Tensor, "batch 2 frequency frame"]) -> Tensor:
        real, imag = (self.weight_re, self.bias_re), (self.weight_im, self.bias_im)
        return complex_conv2d([x], real, imag)


def with_past(
    x: Tensor, count: int, cache: Cache | None, owner: Hashable, axis: int = -1
) -> Tensor:
    """Prepend the ``count`` steps before x: from the cache, or zeros at the start of a signal.

    With a cache, the last ``count`` steps are stored in it under ``owner`` for the next call.
    """
    before = None if cache is None else cache.get(owner)
    if before is None:
        shape = list(x.shape)
        shape[axis] = count
        before = x.new_zeros(shape)
    x = torch.cat([before, x], axis)
    if cache is not None:
        past = x.narrow(axis, x.shape[axis] - count, count)
        cache[owner] = past.clone()  # a view would keep the whole map alive
    return x


def _times_i(planar: Float[Tensor, "*batch c2"]) -> Float[Tensor, "*batch c2"]:
    re, im = planar.chunk(2, -1)
    return torch.cat([-im, re], -1)
