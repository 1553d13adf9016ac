"""The layers of MossFormer and MossFormer2, on channels-last sequences (batch, frame, channel).

Sizes: D channels of the network, P channels of a memory block. No layer transposes: the 1 x 1
convolutions are matrix products, and the depthwise ones take channels-last sequences.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.kernels import dwconv1d, gau_attention

TAPS = 17  # kernel size of the convolution that follows every linear layer
ROTARY = 32  # most features that the rotary embedding rotates

Sequence = Float[Tensor, "batch frame _channel"]


class ConvLinear(nn.Module):
    """A linear layer, SiLU, and a depthwise convolution over time with a shortcut ("FFConvM").

    The norm before it is left to the caller, so that layers with a common input run as one.
    """

    def __init__(self, inputs: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, out)
        self.taps = nn.Parameter(nn.Conv1d(out, out, TAPS, groups=out, bias=False).weight.detach())

    def forward(self, x: Sequence) -> Sequence:
        return conv_linear(x, self.linear.weight, self.linear.bias, self.taps)


def conv_linear(x: Tensor, weight: Tensor, bias: Tensor, taps: Tensor) -> Tensor:
    """Apply a `ConvLinear` with these parameters."""
    return silu_convolution(functional.linear(x, weight, bias), taps)


def silu_convolution(hidden: Sequence, taps: Float[Tensor, "c 1 taps"]) -> Sequence:
    """Apply the part of a `ConvLinear` after the product: SiLU, convolution, shortcut."""
    reach = TAPS // 2
    return dwconv1d(hidden, taps, padding=(reach, reach), residual=True, pre_act="silu")


def scale_norm(x: Sequence) -> Sequence:
    """Divide by the root mean square over channels, clamped to at least 1e-5."""
    return x * _gain(x)


def _gain(x: Sequence) -> Float[Tensor, "batch frame 1"]:
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return (norm * x.shape[-1] ** -0.5).clamp(min=1e-5).reciprocal()


def global_norm(
    x: Sequence, weight: Float[Tensor, " c"], bias: Float[Tensor, " c"], eps: float
) -> Sequence:
    """Normalise each item over time and channels: a group norm of one group."""
    return functional.layer_norm(x, x.shape[1:], eps=eps) * weight + bias


class GlobalNorm(nn.Module):
    """`global_norm` with learned weight and bias, and eps 1e-8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(start(channels)) for start in (torch.ones, torch.zeros)
        )

    def forward(self, x: Sequence) -> Sequence:
        return global_norm(x, self.weight, self.bias, 1e-8)


class Attention(nn.Module):
    """A gated attention unit: quadratic attention inside groups, linear across them.

    Args:
        channels: Number of channels D.
        group: Number of frames in a group.
        key: Width of queries and keys.
        expansion: Width of [v, u] relative to D.
        dropout: Dropout rate after each `ConvLinear` and on the quadratic attention.
        causal: Whether attention excludes later frames. The convolutions look ahead in any case,
            as in the released code.
    """

    def __init__(
        self, channels: int, group: int, key: int, expansion: float, dropout: float, causal: bool
    ) -> None:
        super().__init__()
        self.group, self.dropout, self.causal = group, dropout, causal
        width = int(channels * expansion)
        self.hidden_scale, self.key_scale, self.out_scale = (
            nn.Parameter(torch.ones(1)) for _ in range(3)
        )
        self.hidden, self.key = ConvLinear(channels, width), ConvLinear(channels, key)
        self.out = ConvLinear(width // 2, channels)
        self.gamma = nn.Parameter(0.02 * torch.randn(4, key))
        self.beta = nn.Parameter(torch.zeros(4, key))

    def forward(self, x: Sequence, rotary: Float[Tensor, "frame pair 2"]) -> Sequence:
        # v, u and the keys have a common input: one product, one convolution.
        scales = (self.hidden_scale, self.key_scale)
        layers = (self.hidden, self.key)
        weight = torch.cat([w.linear.weight * g for w, g in zip(layers, scales, strict=True)])
        bias = torch.cat([layer.linear.bias for layer in layers])
        taps = torch.cat([layer.taps for layer in layers])
        joined = conv_linear(scale_norm(token_shift(x)), weight, bias, taps)
        width = self.out.linear.in_features
        v, u, keys = self.apply_dropout(joined).split([width, width, self.gamma.shape[1]], -1)
        copies = torch.addcmul(self.beta[:, None, None], keys, self.gamma[:, None, None])
        quad_q, lin_q, quad_k, lin_k = rotate(copies, rotary).unbind(0)
        options = {"group": self.group, "causal": self.causal}
        dropout = self.dropout if self.training else 0.0
        gated = gau_attention(quad_q, quad_k, lin_q, lin_k, v, u, **options, dropout=dropout)
        return x + self.apply_dropout(self.project_out(gated))

    def project_out(self, gated: Sequence) -> Sequence:
        """Apply norm and output layer; the norm is a factor behind the product, half as wide."""
        linear = self.out.linear
        hidden = functional.linear(gated, linear.weight * self.out_scale)
        return silu_convolution(torch.addcmul(linear.bias, hidden, _gain(gated)), self.out.taps)

    def apply_dropout(self, x: Tensor) -> Tensor:
        """Apply dropout, in training only."""
        return functional.dropout(x, self.dropout, self.training)


def token_shift(x: Sequence) -> Sequence:
    """Delay the first half of the channels by one frame."""
    first, second = x.chunk(2, -1)
    return torch.cat([functional.pad(first, (0, 0, 1, -1)), second], -1)


def rotary_table(frames: int, key: int, like: Tensor) -> Float[Tensor, "frame pair 2"]:
    """Compute the rotary embedding: cosine and sine for every frame and pair of features."""
    pairs = min(ROTARY, key) // 2
    position = torch.arange(frames, device=like.device, dtype=torch.float32)
    exponent = torch.arange(pairs, device=like.device, dtype=torch.float32) / pairs
    angle = position[:, None] * 10000.0**-exponent
    return torch.stack([angle.cos(), angle.sin()], -1).to(like.dtype)


def rotate(
    x: Float[Tensor, "*batch frame key"], table: Float[Tensor, "frame pair 2"]
) -> Float[Tensor, "*batch frame key"]:
    """Rotate adjacent pairs of the first features by the frame's angles; keep the others."""
    rotated, rest = x.split([2 * table.shape[1], x.shape[-1] - 2 * table.shape[1]], -1)
    even, odd = rotated.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = table.unbind(-1)
    pairs = torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1)
    return torch.cat([pairs.flatten(-2), rest], -1)


class MemoryBlock(nn.Module):
    """The recurrent block of MossFormer2: a gated FSMN between two linear layers.

    Args:
        channels: Number of channels D.
        inner: Number of channels P inside the block.
        memory: Number of steps of the memory on either side, the current one included.
        dropout: Dropout rate after each `ConvLinear`.
        dense: Whether the memory is a `DenseMemory` (two dilated convolutions, densely connected)
            or a `Memory` (one convolution with a shortcut).
    """

    def __init__(
        self, channels: int, inner: int, memory: int, dropout: float, *, dense: bool
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.in_proj, self.in_prelu = nn.Linear(channels, inner), nn.PReLU()
        self.in_norm = nn.LayerNorm(inner)
        self.signal_norm, self.gate_norm = nn.LayerNorm(inner), nn.LayerNorm(inner)
        self.signal, self.gate = ConvLinear(inner, inner), ConvLinear(inner, inner)
        self.memory = (DenseMemory if dense else Memory)(inner, memory)
        self.out_norm, self.out_proj = nn.LayerNorm(inner), nn.Linear(inner, channels)

    def forward(self, x: Sequence) -> Sequence:
        inner = self.in_norm(self.in_prelu(self.in_proj(x)))
        # The norms of signal and gate differ in their affine part alone, which joins the product.
        norms, layers = (self.signal_norm, self.gate_norm), (self.signal, self.gate)
        pairs = list(zip(norms, layers, strict=True))
        weight = torch.cat([layer.linear.weight * norm.weight for norm, layer in pairs])
        bias = torch.cat([layer.linear(norm.bias) for norm, layer in pairs])
        taps = torch.cat([layer.taps for layer in layers])
        normed = functional.layer_norm(inner, inner.shape[-1:])
        joined = conv_linear(normed, weight, bias, taps)
        signal, gate = functional.dropout(joined, self.dropout, self.training).chunk(2, -1)
        return x + self.out_proj(self.out_norm(inner + gate * self.memory(signal)))


class Memory(nn.Module):
    """A non-causal FSMN: x + p + (filter of p), with p = project(relu(linear(x)))."""

    def __init__(self, channels: int, memory: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels, bias=False)
        self.taps = _taps(channels, 1, memory)

    def forward(self, x: Sequence) -> Sequence:
        p, reach = self.project(torch.relu(self.linear(x))), self.taps.shape[-1] // 2
        return x + dwconv1d(p, self.taps, padding=(reach, reach), residual=True)


class DenseMemory(nn.Module):
    """The dilated FSMN of MossFormer2: two filters, the second reads the first's output and p.

    Output channel j of the second filter reads the channels 2j and 2j + 1 of [first output, p], so
    the first half of its output channels does not depend on p. The published code's grouped
    convolution on the concatenation does this, and the published weights need it.
    """

    def __init__(self, channels: int, memory: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels, bias=False)
        self.taps = nn.ParameterList(_taps(channels, m, memory) for m in (1, 2))
        self.norm_weight, self.norm_bias, self.prelu = (
            nn.ParameterList(nn.Parameter(torch.full((channels,), value)) for _ in range(2))
            for value in (1.0, 0.0, 0.25)
        )

    def forward(self, x: Sequence) -> Sequence:
        inputs = y = self.project(torch.relu(self.linear(x)))
        for i, taps in enumerate(self.taps):
            dilation = 2**i
            reach = dilation * (taps.shape[-1] // 2)
            y = dwconv1d(inputs, taps, padding=(reach, reach), dilation=dilation)
            y = instance_norm(y, self.norm_weight[i], self.norm_bias[i])
            y = functional.prelu(y.mT, self.prelu[i]).mT
            inputs = torch.cat([y, inputs], -1) if i == 0 else y
        return x + y


def instance_norm(
    x: Sequence, weight: Float[Tensor, " c"], bias: Float[Tensor, " c"], eps: float = 1e-5
) -> Sequence:
    """Normalise each channel of each item over time."""
    centred = x - x.mean(1, keepdim=True)  # torch.var is slow over the first axes
    scale = weight * torch.rsqrt(centred.square().mean(1, keepdim=True) + eps)
    return torch.addcmul(bias, centred, scale)


def _taps(channels: int, inputs: int, memory: int) -> nn.Parameter:
    size = 2 * memory - 1
    layer = nn.Conv1d(channels * inputs, channels, size, groups=channels, bias=False)
    return nn.Parameter(layer.weight.detach())
