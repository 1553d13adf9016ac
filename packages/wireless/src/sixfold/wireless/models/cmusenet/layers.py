"""Complex layers and residual blocks on planar tensors: real parts of all channels come first.

A complex ReLU, which acts on both parts separately, is the real ReLU of a planar tensor.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.kernels import complex_batch_norm, complex_conv2d, complex_linear
from sixfold.wireless.models.cmusenet.recomputed import (
    EPS,
    Unit,
    block_output,
    trains_here,
    whitened,
)

Planar = Float[Tensor, "batch _channels2 _height _width"]


class ComplexConv2d(nn.Module):
    """Convolve with a complex kernel: two real convolutions used crosswise.

    Args:
        inputs: Number of complex input channels.
        outputs: Number of complex output channels.
        kernel: Side of the square kernel.
        stride: Stride along both axes.
        padding: Number of zeros on each side.
        bias: Whether both real convolutions have a bias; CMuSeNet's have none.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.conv_r = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias)
        self.conv_i = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias)

    def forward(self, x: Planar) -> Planar:
        return complex_conv2d(
            [x],
            (self.conv_r.weight, self.conv_r.bias),
            (self.conv_i.weight, self.conv_i.bias),
            stride=(self.stride, self.stride),
            padding=(self.padding, self.padding),
        )

    def planar_kernel(self) -> Float[Tensor, "out2 in2 height width"]:
        """Return the real kernel [[A, -B], [B, A]] that acts on planar tensors."""
        a, b = self.conv_r.weight, self.conv_i.weight
        return torch.cat([torch.cat([a, -b], 1), torch.cat([b, a], 1)])


class ComplexLinear(nn.Module):
    """Multiply by a complex matrix; the bias is (b_r - b_i) + i (b_r + b_i)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fc_r = nn.Linear(inputs, outputs)
        self.fc_i = nn.Linear(inputs, outputs)

    def forward(self, x: Float[Tensor, "*batch in2"]) -> Float[Tensor, "*batch out2"]:
        return complex_linear(
            x, (self.fc_r.weight, self.fc_r.bias), (self.fc_i.weight, self.fc_i.bias)
        )


class ComplexBatchNorm2d(nn.Module):
    """Whiten the real and imaginary part of each channel, then scale and shift them."""

    running_mean: Tensor
    running_covar: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        root = 2**0.5
        self.weight = nn.Parameter(torch.tensor([root, root, 0.0]).repeat(channels, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 2))
        self.register_buffer("running_mean", torch.zeros(channels, 2))
        self.register_buffer("running_covar", torch.tensor([root, root, 0.0]).repeat(channels, 1))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long))

    def forward(self, x: Planar) -> Planar:
        if trains_here(x, self.training):
            return whitened(x, self)
        moments = (self.running_mean, self.running_covar)
        y, (mean, covar) = complex_batch_norm(
            x, moments, self.weight, self.bias, training=self.training
        )
        if self.training:
            with torch.no_grad():
                self.running_mean.copy_(mean)
                self.running_covar.copy_(covar)
                self.num_batches_tracked.add_(1)
        return y

    @torch.no_grad()
    def follow(self, mean: Tensor, covariance: Tensor, numbers: int) -> None:
        """Move the running moments a tenth of the way to those of a batch.

        Args:
            mean: Means (channel, 2).
            covariance: Covariances (channel, 3), without the constant that the layer adds.
            numbers: Number of values of a channel.
        """
        guard = covariance.new_tensor([EPS, EPS, 0.0])
        unbiased = (covariance + guard) * (numbers / (numbers - 1))
        self.running_mean.lerp_(mean, 0.1)
        self.running_covar.lerp_(unbiased, 0.1)
        self.num_batches_tracked.add_(1)

    def as_matrix(self) -> tuple[Float[Tensor, "2 2 channel"], Float[Tensor, "2 channel"]]:
        """Return the real matrix and offset of each channel in evaluation.

        They are read off three points, as the layer is affine there.
        """
        channels = len(self.weight)
        points = self.weight.new_zeros(3, 2, channels)
        points[1, 0], points[2, 1] = 1, 1
        moments = (self.running_mean.double(), self.running_covar.double())
        weight, bias = self.weight.double(), self.bias.double()
        y, _ = complex_batch_norm(
            points.double().flatten(1)[..., None, None], moments, weight, bias, training=False
        )
        offset, *columns = y.view(3, 2, channels)
        return torch.stack([column - offset for column in columns], 1), offset


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ComplexConv2d(inputs, width, 3, stride, 1)
        self.bn1 = ComplexBatchNorm2d(width)
        self.conv2 = ComplexConv2d(width, width, 3, 1, 1)
        self.bn2 = ComplexBatchNorm2d(width)
        self.downsample = shortcut(inputs, width, stride)

    def units(self) -> list[Unit]:
        """Return the convolutions with their norms, in order."""
        return [Unit(self.conv1, self.bn1), Unit(self.conv2, self.bn2)]

    def forward(self, x: Planar) -> Planar:
        if trains_here(x, self.training):
            return block_output(x, self.units(), shortcut_unit(self.downsample))
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """A 1 x 1, a 3 x 3 (with the stride) and a widening 1 x 1 convolution around a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.conv1 = ComplexConv2d(inputs, width, 1)
        self.bn1 = ComplexBatchNorm2d(width)
        self.conv2 = ComplexConv2d(width, width, 3, stride, 1)
        self.bn2 = ComplexBatchNorm2d(width)
        self.conv3 = ComplexConv2d(width, outputs, 1)
        self.bn3 = ComplexBatchNorm2d(outputs)
        self.downsample = shortcut(inputs, outputs, stride)

    def units(self) -> list[Unit]:
        """Return the convolutions with their norms, in order."""
        return [
            Unit(self.conv1, self.bn1),
            Unit(self.conv2, self.bn2),
            Unit(self.conv3, self.bn3),
        ]

    def forward(self, x: Planar) -> Planar:
        if trains_here(x, self.training):
            return block_output(x, self.units(), shortcut_unit(self.downsample))
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """Make the 1 x 1 convolution of a shortcut; None where the input fits as it is."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(ComplexConv2d(inputs, outputs, 1, stride), ComplexBatchNorm2d(outputs))


def shortcut_unit(downsample: nn.Sequential | None) -> Unit | None:
    """Return a shortcut as `recomputed` takes it."""
    return None if downsample is None else Unit(*downsample)


@torch.no_grad()
def folded_conv(conv: ComplexConv2d, norm: ComplexBatchNorm2d) -> nn.Conv2d:
    """Fold a batch norm into the bias-free convolution before it: one real convolution.

    Whitening is a real 2 x 2 matrix a channel, which no complex kernel can hold but a planar one.
    """
    matrix, offset = norm.as_matrix()
    kernel = conv.planar_kernel().double().unflatten(0, (2, -1))
    kernel = torch.einsum("pqc,qcihw->pcihw", matrix, kernel).flatten(0, 1)
    outputs, inputs, side, _ = kernel.shape
    folded = nn.Conv2d(inputs, outputs, side, conv.stride, conv.padding)
    folded.to(conv.conv_r.weight)
    folded.weight.copy_(kernel)
    assert folded.bias is not None  # nn.Conv2d's default
    folded.bias.copy_(offset.flatten())
    return folded
