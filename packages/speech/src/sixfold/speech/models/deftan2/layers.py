"""The layers of DeFTAN-II, on channels-last feature maps.

A map is (B, R, S, C): batch, rows, steps of a sequence, channels. All layers but the first and the
last dense block work along the steps of each row separately; for the other axis, the map is
transposed.
"""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from sixfold.kernels import linear

Map = Float[Tensor, "batch row _step _channel"]
POSITIONS = {"cpu": 4096, "cuda": 65536}  # number of positions per chunk of inference


def convolve(
    x: Map, layer: nn.Conv2d, padding: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> Map:
    """Convolve over rows and steps, in channels-last memory.

    If gradients are needed, rows that no tap connects become items of a batch: torch's weight
    gradient is faster for that layout, its forward pass for the other.
    """
    separate = layer.kernel_size[0] == 1 and torch.is_grad_enabled()
    image = (x.flatten(0, 1)[:, None] if separate else x).permute(0, 3, 1, 2)
    y = functional.conv2d(image, layer.weight, layer.bias, 1, padding, dilation)
    y = y.permute(0, 2, 3, 1)
    return y.reshape(*x.shape[:2], *y.shape[2:]) if separate else y


class GroupNorm(nn.Module):
    """A group norm of one group, over all axes but the batch, or (``axes=2``) of each row."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(start(channels)) for start in (torch.ones, torch.zeros)
        )

    def forward(self, x: Map, axes: int) -> Map:
        image = (x if axes == 3 else x.flatten(0, 1)[:, None]).permute(0, 3, 1, 2)
        normed = functional.group_norm(image, 1, self.weight, self.bias, 1e-5)
        return normed.permute(0, 2, 3, 1).reshape(x.shape)


class SplitDense(nn.Module):
    """A dense block over subgroups: each convolution reads the last output and one more group.

    Args:
        channels: Number of channels of a group, and of the output.
        groups: Number of groups.
        kernel: Kernel size along rows and steps.
    """

    def __init__(self, channels: int, groups: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        self.groups = groups
        self.padding = (kernel[0] // 2, kernel[1] // 2)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels if k == 0 else 2 * channels, channels, kernel) for k in range(groups)
        )
        self.norms = nn.ModuleList(GroupNorm(channels) for _ in range(groups))
        self.prelus = nn.ModuleList(nn.PReLU(channels) for _ in range(groups))

    def forward(self, parts: list[Tensor], axes: int) -> Map:
        y, layers = parts[0], zip(self.convolutions, self.norms, self.prelus, strict=True)
        for k, (convolution, norm, slope) in enumerate(layers):
            inputs = y if k == 0 else torch.cat([y, parts[k]], -1)
            y = norm(convolve(inputs, cast(nn.Conv2d, convolution), self.padding), axes)
            y = prelu(y, cast(Tensor, slope.weight))
        return y

    def split(self, x: Map) -> list[Tensor]:
        """Split a map into subgroups: group k holds channels k, k + groups, ..."""
        return list(x.unflatten(-1, (-1, self.groups)).unbind(-1))


def prelu(x: Tensor, slope: Float[Tensor, " c"]) -> Tensor:
    """Apply PReLU with a slope for each channel, on the last axis."""
    if x.is_cuda or torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return functional.prelu(x.movedim(-1, 1), slope).movedim(1, -1)
    return _PReLU.apply(x, slope)


class _PReLU(Function):
    """PReLU with a gradient in vectorised passes: PyTorch's takes four times as long on a CPU."""

    @staticmethod
    def forward(ctx, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return functional.prelu(x.movedim(-1, 1), slope).movedim(1, -1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        passed = torch.ops.aten.threshold_backward(grad, x, 0)  # where x is positive
        scaled = grad - passed
        grad_slope = (scaled * x).flatten(0, -2).sum(0)
        return torch.addcmul(passed, scaled, slope), grad_slope


class Axis(nn.Module):
    """Half a block: windows of steps, attention, feed-forward network, transposed convolution.

    Args:
        channels: Number of channels C.
        window: Number of steps in a window.
        stride: Number of steps between windows.
        heads: Number of attention heads.
        head_channels: Number of channels per head.
        hidden: Width of the feed-forward network, both halves together.
        dropout: Dropout rate.
        dilation: Dilation of the feed-forward network's convolution.
    """

    def __init__(
        self,
        channels: int,
        window: int,
        stride: int,
        heads: int,
        head_channels: int,
        hidden: int,
        dropout: float,
        dilation: int,
    ) -> None:
        super().__init__()
        self.window, self.stride = window, stride
        self.norm = nn.LayerNorm(channels)
        self.dense = SplitDense(channels, window, (1, 3))
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = LinearAttention(channels, heads, head_channels, dropout)
        self.feedforward = FeedForward(channels, hidden, dropout, dilation)
        self.out_proj = nn.ConvTranspose2d(channels, channels, (1, window), (1, stride))

    def forward(self, x: Map) -> Map:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.process_rows(x)
        # rows are independent: a few at a time stay in the cache and need less memory
        positions = POSITIONS.get(x.device.type, POSITIONS["cuda"])
        few = max(1, positions // (x.shape[0] * x.shape[2]))
        return torch.cat([self.process_rows(piece) for piece in x.split(few, 1)], 1)

    def process_rows(self, x: Map) -> Map:
        """Apply the layers to some rows."""
        x = x.contiguous()
        normed = self.norm(x)
        last = x.shape[2] - self.window + 1
        parts = [normed[:, :, k : k + last : self.stride] for k in range(self.window)]
        z = self.dense(parts, 2)
        z = z + self.attention(self.attention_norm(z))
        z = z + self.feedforward(self.feedforward_norm(z))
        return x + self.out_proj(z.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class LinearAttention(nn.Module):
    """Convolutional efficient attention ("CEA"), whose cost is linear in the number of steps.

    softmax(q) (softmax(k)^T v), where v and the output are linear in the input: the keys weigh the
    input itself, and the result, with a row per feature and not per step, is multiplied by the
    product of the value and output matrices.
    """

    def __init__(self, channels: int, heads: int, head_channels: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.scale, self.dropout = heads, head_channels**-0.5, dropout
        width = heads * head_channels
        self.mix = nn.Conv2d(channels, 2 * channels, (1, 3), bias=False)
        self.q, self.k, self.v = (nn.Linear(channels, width, bias=False) for _ in range(3))
        self.out = nn.Identity() if heads == 1 and width == channels else nn.Linear(width, channels)

    def forward(self, x: Map) -> Map:
        rows = x.flatten(0, 1)
        mixed = functional.glu(convolve(x, self.mix, (0, 1)), -1).flatten(0, 1)
        k = linear(mixed, self.k.weight).softmax(1)  # over the steps
        q = linear(mixed, self.q.weight).unflatten(-1, (self.heads, -1)).softmax(-1).flatten(2)
        weighted = (k.mT @ rows).unflatten(1, (self.heads, -1)).unbind(1)
        if isinstance(self.out, nn.Linear):
            out_weight, y = self.out.weight, self.out.bias
        else:
            out_weight, y = torch.eye(x.shape[3]).to(x), x.new_zeros(())
        heads = (weighted, self.v.weight.chunk(self.heads), out_weight.chunk(self.heads, 1))
        contexts = [self.context(*head) for head in zip(*heads, strict=True)]
        return torch.baddbmm(y, q, torch.cat(contexts, 1)).view(x.shape)  # sums over the heads

    def context(
        self,
        weighted: Float[Tensor, "row key channel"],
        value: Float[Tensor, "key channel"],
        out: Float[Tensor, "channel key"],
    ) -> Float[Tensor, "row key channel"]:
        """Multiply a head's key-weighted input by the head's value and output matrices."""
        if not (self.training and self.dropout):
            return linear(weighted, self.scale * out @ value)
        context = linear(weighted, self.scale * value)
        return linear(functional.dropout(context, self.dropout), out)


class FeedForward(nn.Module):
    """Feed-forward network ("DPFN") of two projections, one followed by a dilated convolution."""

    def __init__(self, channels: int, hidden: int, dropout: float, dilation: int) -> None:
        super().__init__()
        half = hidden // 2
        self.dropout, self.dilation = dropout, dilation
        self.plain, self.filtered = nn.Linear(channels, half), nn.Linear(channels, half)
        self.filter = nn.Conv2d(half, half, (1, 5))
        self.norm, self.prelu = GroupNorm(half), nn.PReLU(half)
        self.out = nn.Linear(hidden, channels)

    def forward(self, x: Map) -> Map:
        plain, filtered = (
            self.apply_dropout(functional.gelu(linear(x, layer.weight, layer.bias)))
            for layer in (self.plain, self.filtered)
        )
        reach = (0, 2 * self.dilation)
        filtered = convolve(filtered, self.filter, reach, (1, self.dilation))
        filtered = prelu(self.norm(filtered, 2), self.prelu.weight)
        left, right = self.out.weight.chunk(2, 1)  # without a concatenated copy
        y = linear(plain, left, self.out.bias) + linear(filtered, right)
        return self.apply_dropout(y)

    def apply_dropout(self, x: Tensor) -> Tensor:
        """Apply dropout, in training only."""
        return functional.dropout(x, self.dropout, self.training)
