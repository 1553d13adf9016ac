"""The layers of DeFTAN-II, on channels-last maps.

A map is (B, R, S, C): batch, rows, steps of a sequence, channels. Attention and its companions work
along the steps of every row by itself; for the other axis the map is transposed.
"""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Map = Float[Tensor, "batch row _step _channel"]


def convolve(
    x: Map, layer: nn.Conv2d, padding: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> Map:
    """Convolve over rows and steps; the memory stays as it is."""
    image = x.permute(0, 3, 1, 2)
    y = functional.conv2d(image, layer.weight, layer.bias, 1, padding, dilation)
    return y.permute(0, 2, 3, 1)


class GroupNorm(nn.Module):
    """A group norm of one group, over the channels and all or the last of the other axes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(start(channels)) for start in (torch.ones, torch.zeros)
        )

    def forward(self, x: Map, axes: int) -> Map:
        normed = functional.layer_norm(x, x.shape[-axes:], eps=1e-5)
        return torch.addcmul(self.bias, normed, self.weight)


class SplitDense(nn.Module):
    """A dense block over subgroups: each convolution reads the result before and one more group.

    Args:
        channels: Of a group, and of the output.
        groups: How many there are.
        kernel: Rows and steps.
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
            seen = y if k == 0 else torch.cat([y, parts[k]], -1)
            y = norm(convolve(seen, cast(nn.Conv2d, convolution), self.padding), axes)
            y = prelu(y, cast(Tensor, slope.weight))
        return y

    def split(self, x: Map) -> list[Tensor]:
        """Return the subgroups of a map: every groups-th channel."""
        return list(x.unflatten(-1, (-1, self.groups)).unbind(-1))


def prelu(x: Tensor, slope: Float[Tensor, " c"]) -> Tensor:
    """Apply PReLU with a slope for each channel, which come last."""
    return torch.where(x > 0, x, x * slope)


class Axis(nn.Module):
    """One half of a block: window the steps, attend, feed forward, and spread back.

    Args:
        channels: C.
        window: Steps of a window.
        stride: Steps between windows.
        heads: Of the attention.
        head_channels: Of each head.
        hidden: Of the feed-forward network, both halves together.
        dropout: In training.
        dilation: Of the feed-forward network's convolution.
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
        self.leave = nn.ConvTranspose2d(channels, channels, (1, window), (1, stride))

    def forward(self, x: Map) -> Map:
        normed = self.norm(x)
        last = x.shape[2] - self.window + 1
        parts = [normed[:, :, k : k + last : self.stride] for k in range(self.window)]
        z = self.dense(parts, 2)
        z = z + self.attention(self.attention_norm(z))
        z = z + self.feedforward(self.feedforward_norm(z))
        return x + self.leave(z.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class LinearAttention(nn.Module):
    """Attention of cost linear in the steps ("CEA"): keys gather values once for all queries."""

    def __init__(self, channels: int, heads: int, head_channels: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.scale, self.dropout = heads, head_channels**-0.5, dropout
        width = heads * head_channels
        self.mix = nn.Conv2d(channels, 2 * channels, (1, 3), bias=False)
        self.q, self.k, self.v = (nn.Linear(channels, width, bias=False) for _ in range(3))
        self.out = nn.Identity() if heads == 1 and width == channels else nn.Linear(width, channels)

    def forward(self, x: Map) -> Map:
        mixed = functional.glu(convolve(x, self.mix, (0, 1)), -1)
        heads = (self.heads, -1)
        q, k, v = (
            layer(seen).unflatten(-1, heads).transpose(2, 3)  # (B, R, head, S, d)
            for layer, seen in ((self.q, mixed), (self.k, mixed), (self.v, x))
        )
        context = k.softmax(-2).mT @ v * self.scale
        context = functional.dropout(context, self.dropout, self.training)
        return self.out((q.softmax(-1) @ context).transpose(2, 3).flatten(3))


class FeedForward(nn.Module):
    """Two projections ("DPFN"): one plain, one followed by a dilated convolution."""

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
            self.dropped(functional.gelu(layer(x))) for layer in (self.plain, self.filtered)
        )
        reach = (0, 2 * self.dilation)
        filtered = convolve(filtered, self.filter, reach, (1, self.dilation))
        filtered = prelu(self.norm(filtered, 2), self.prelu.weight)
        return self.dropped(self.out(torch.cat([plain, filtered], -1)))

    def dropped(self, x: Tensor) -> Tensor:
        """Drop out in training."""
        return functional.dropout(x, self.dropout, self.training)
