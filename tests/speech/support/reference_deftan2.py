"""A plain reference implementation of DeFTAN-II, which the tests compare our network with.

Maps are (batch, channel, frame, frequency); the windows of the split dense blocks are unfolded, and
every part permutes its input and output. Module names are the official checkpoint's, so
that an official state dict loads as it is. Stride 1, as in all published sizes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class ReferenceDeFTAN2(nn.Module):
    """The network between a transform and its inverse."""

    def __init__(
        self,
        microphones: int = 4,
        sources: int = 1,
        blocks: int = 6,
        channels: int = 64,
        heads: int = 4,
        head_channels: int = 64,
        hidden: int = 256,
        window: int = 4,
        n_fft: int = 512,
    ) -> None:
        super().__init__()
        self.n_fft = n_fft
        c, out = channels, 2 * sources
        self.up_conv = nn.Sequential(
            nn.Conv2d(2 * microphones, c * heads, 3, padding=1),
            nn.GroupNorm(1, c * heads),
            SplitDense(nn.Conv2d, c, heads),
        )
        self.blocks = nn.ModuleList(
            Block(c, heads, head_channels, hidden, window, 2**i) for i in range(blocks)
        )
        self.down_conv = nn.Sequential(
            nn.Conv2d(c, out * heads, 3, padding=1), SplitDense(nn.Conv2d, out, heads)
        )

    def forward(self, noisy: Tensor) -> Tensor:
        batch, microphones, time = noisy.shape
        size, hop = self.n_fft, self.n_fft // 2
        rest = size - (hop + time % size) % size
        noisy = functional.pad(noisy, (hop, rest + hop))
        level = noisy.std((1, 2), keepdim=True)
        hann = torch.hann_window(size)
        spec = torch.stft(
            (noisy / level).flatten(0, 1), size, hop, window=hann, return_complex=True
        )
        x = torch.view_as_real(spec).reshape(batch, microphones, size // 2 + 1, -1, 2)
        x = x.permute(0, 1, 4, 3, 2).flatten(1, 2)  # (B, 2 M, L, F)
        x = self.up_conv(x)
        for block in self.blocks:
            x = block(x)
        x = self.down_conv(x)
        parts = x.unflatten(1, (-1, 2)).flatten(0, 1).permute(0, 3, 2, 1).contiguous()
        signal = torch.istft(torch.view_as_complex(parts), size, hop, window=hann)
        return signal.reshape(batch, -1, signal.shape[-1])[..., hop : hop + time] * level


class SplitDense(nn.Module):
    """A dense block over subgroups; subgroup k is every groups-th channel from the k-th on."""

    def __init__(self, convolution, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.blocks = nn.ModuleList(
            nn.Sequential(
                convolution(channels * (1 + (k > 0)), channels, 3, padding=1),
                nn.GroupNorm(1, channels),
                nn.PReLU(channels),
            )
            for k in range(groups)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = x[:, 0 :: self.groups]
        for k, block in enumerate(self.blocks):
            y = block(y if k == 0 else torch.cat([y, x[:, k :: self.groups]], 1))
        return y


class Block(nn.Module):
    """Attention along frequency, then along time."""

    def __init__(
        self, channels: int, heads: int, head_channels: int, hidden: int, window: int, dilation: int
    ) -> None:
        super().__init__()
        self.window = window
        for axis in "FT":
            setattr(self, f"{axis}_norm", ChannelNorm(channels))
            setattr(self, f"{axis}_inv", SplitDense(nn.Conv1d, channels, window))
            attention = Attention(channels, heads, head_channels)
            setattr(self, f"{axis}_att", Normed(channels, attention))
            setattr(self, f"{axis}_ffw", Normed(channels, FeedForward(channels, hidden, dilation)))
            setattr(self, f"{axis}_linear", nn.ConvTranspose1d(channels, channels, window))

    def forward(self, x: Tensor) -> Tensor:
        x = self.along("F", x.transpose(2, 3)).transpose(2, 3)
        return self.along("T", x)

    def along(self, axis: str, x: Tensor) -> Tensor:
        """Process along axis 2 of (batch, channel, step, row)."""
        batch, channels, steps, rows = x.shape
        z = getattr(self, f"{axis}_norm")(x).permute(0, 3, 1, 2).reshape(-1, channels, steps)
        z = functional.unfold(z[..., None], (self.window, 1))  # channel * window + tap
        z = getattr(self, f"{axis}_inv")(z).transpose(1, 2)
        z = z + getattr(self, f"{axis}_att")(z)
        z = z + getattr(self, f"{axis}_ffw")(z)
        z = getattr(self, f"{axis}_linear")(z.transpose(1, 2))
        return x + z.reshape(batch, rows, channels, steps).permute(0, 2, 3, 1)


class ChannelNorm(nn.Module):
    """A layer norm over channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-5) * self.gamma + self.beta


class Normed(nn.Module):
    """A part after a layer norm."""

    def __init__(self, channels: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(channels), fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.norm(x))


class Attention(nn.Module):
    """Convolutional efficient attention."""

    def __init__(self, channels: int, heads: int, head_channels: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, head_channels**-0.5
        width = heads * head_channels
        self.cv_qk = nn.Sequential(
            nn.Conv1d(channels, 2 * channels, 3, padding=1, bias=False), nn.GLU(1)
        )
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, width, bias=False) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(width, channels))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.cv_qk(x.transpose(1, 2)).transpose(1, 2)
        q, k, v = (
            layer(seen).unflatten(2, (self.heads, -1)).permute(0, 2, 1, 3)
            for layer, seen in ((self.to_q, mixed), (self.to_k, mixed), (self.to_v, x))
        )
        q, k = q.softmax(-1), k.softmax(-2)
        context = torch.einsum("bhsd,bhse->bhde", k, v) * self.scale
        out = torch.einsum("bhsd,bhde->bhse", q, context)
        return self.to_out(out.permute(0, 2, 1, 3).flatten(2))


class FeedForward(nn.Module):
    """Dual-path feed-forward network."""

    def __init__(self, channels: int, hidden: int, dilation: int) -> None:
        super().__init__()
        half = hidden // 2
        self.PW1 = nn.Sequential(nn.Linear(channels, half), nn.GELU())
        self.PW2 = nn.Sequential(nn.Linear(channels, half), nn.GELU())
        self.DW_Conv = nn.Sequential(
            nn.Conv1d(half, half, 5, padding=2 * dilation, dilation=dilation),
            nn.GroupNorm(1, half),
            nn.PReLU(half),
        )
        self.PW3 = nn.Sequential(nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        filtered = self.DW_Conv(self.PW2(x).transpose(1, 2)).transpose(1, 2)
        return self.PW3(torch.cat([self.PW1(x), filtered], 2))
