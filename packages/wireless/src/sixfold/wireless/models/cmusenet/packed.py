"""Convolutions of inference on a CPU: kernels in oneDNN's own layout, batch norms within.

PyTorch brings a kernel to that layout in every call, which for the widest layers takes as long as
the convolution. The operators are those that PyTorch's compiler puts in the place of convolutions;
they know neither gradients nor exports.

A batch norm is a real 2 x 2 matrix a channel. In block form it is part of the kernel, and ReLU and
shortcut are part of the convolution. Gauss' form of three convolutions, faster from
`GAUSS_CHANNELS` on, has it where the three are put together.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sixfold.wireless.models.cmusenet.layers import (
    BasicBlock,
    Bottleneck,
    ComplexBatchNorm2d,
    ComplexConv2d,
    folded_conv,
    shortcut_unit,
)
from sixfold.wireless.models.cmusenet.recomputed import GAUSS_CHANNELS

Planar = Float[Tensor, "batch _channels2 _height _width"]


def can_pack(kernel: Tensor) -> bool:
    """Return whether this PyTorch has the operators, and a kernel's device and type are theirs."""
    return (
        kernel.device.type == "cpu"
        and kernel.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
    )


def packed(conv: ComplexConv2d, norm: ComplexBatchNorm2d, *, relu: bool) -> "Packed | GaussPacked":
    """Pack a convolution and the batch norm after it, followed by a ReLU if asked for."""
    if conv.conv_r.in_channels >= GAUSS_CHANNELS:
        return GaussPacked(conv, norm, relu=relu)
    return Packed(folded_conv(conv, norm), relu=relu)


class Packed(nn.Module):
    """A real convolution with a bias."""

    def __init__(self, conv: nn.Conv2d, *, relu: bool) -> None:
        super().__init__()
        self.geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.after = "relu" if relu else "none"
        self.bias = None if conv.bias is None else conv.bias.detach()
        pack = torch.ops.aten.mkldnn_reorder_conv2d_weight
        self.kernel = pack(conv.weight.detach().to_mkldnn(), *self.geometry)

    def forward(self, x: Planar) -> Planar:
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.kernel, self.bias, *self.geometry, self.after, [], ""
        )

    def add_to(self, other: Planar, x: Planar) -> Planar:
        """Return relu(other + convolution of x), written over ``other``."""
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            other, x, self.kernel, self.bias, *self.geometry, "add", 1.0, "relu", [], ""
        )


class GaussPacked(nn.Module):
    """Three real convolutions, put together by the batch norm's matrices."""

    def __init__(self, conv: ComplexConv2d, norm: ComplexBatchNorm2d, *, relu: bool) -> None:
        super().__init__()
        real, imag = conv.conv_r.weight.detach(), conv.conv_i.weight.detach()
        kernels = (real + imag, real - imag, imag)
        self.convs = nn.ModuleList(
            Packed(_real_conv(kernel, conv), relu=False) for kernel in kernels
        )
        matrix, offset = norm.as_matrix()
        self.matrix = matrix.detach().to(real.dtype)[..., None, None]
        self.offset = offset.detach().to(real.dtype).flatten()[:, None, None]
        self.relu = relu

    def forward(self, x: Planar) -> Planar:
        y = self._sums(x).add_(self.offset)
        return y.relu_() if self.relu else y

    def add_to(self, other: Planar, x: Planar) -> Planar:
        """Return relu(other + convolution of x), written over ``other``."""
        return other.add_(self._sums(x)).add_(self.offset).relu_()

    def _sums(self, x: Planar) -> Planar:
        re, im = x.chunk(2, 1)
        given = (re, im, re + im)
        p, q, shared = (conv(part) for conv, part in zip(self.convs, given, strict=True))
        real, imaginary = p.sub_(shared), q.add_(shared)
        size = (len(x), 2 * real.shape[1], *real.shape[2:])
        y = torch.empty(size, dtype=x.dtype).to(memory_format=torch.channels_last)
        for (from_real, from_imag), part in zip(self.matrix, y.chunk(2, 1), strict=True):
            torch.mul(real, from_real, out=part).addcmul_(imaginary, from_imag)
        return y


class PackedBlock(nn.Module):
    """A residual block; it writes over its input where the shortcut is the input itself."""

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        units = block.units()
        self.convs = nn.ModuleList(packed(unit.conv, unit.norm, relu=True) for unit in units)
        shortcut = shortcut_unit(block.downsample)
        self.shortcut = shortcut and packed(shortcut.conv, shortcut.norm, relu=False)

    def forward(self, x: Planar) -> Planar:
        other = x if self.shortcut is None else self.shortcut(x)
        *before, last = self.convs
        for conv in before:
            x = conv(x)
        assert isinstance(last, Packed | GaussPacked)
        return last.add_to(other, x)


def _real_conv(kernel: Tensor, conv: ComplexConv2d) -> nn.Conv2d:
    outputs, inputs, side, _ = kernel.shape
    real = nn.Conv2d(inputs, outputs, side, conv.stride, conv.padding, bias=False)
    real.weight = nn.Parameter(kernel)
    return real
