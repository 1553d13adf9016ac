"""Parts of the network, in the order of use; parameters have the official names."""

import math
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.wireless.models.adafortitran import on_cpu

# Scales of (SNR in dB, delay spread in ns, Doppler in Hz) where `condition_scaling` is on.
CONDITION_CENTRE = (12.5, 0.0, 0.0)
CONDITION_SCALE = (12.5, 300.0, 1000.0)


class ConvEnhancer(nn.Module):
    """Filter a grid by four 3x3 convolutions with ReLU in between; zeros lie around the grid."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 8, 32, 8, 1)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
        self.conv_block = nn.Sequential(*layers[:-1])

    def forward(
        self, grid: Float[Tensor, "batch 1 subcarrier symbol"]
    ) -> Float[Tensor, "batch 1 subcarrier symbol"]:
        if on_cpu.runs_here(grid):
            return on_cpu.in_parts(self.conv_block, grid)
        return self.conv_block(grid)

    @torch.no_grad()
    def become_identity(self) -> None:
        """Set the weights so that the output is the input; the spare channels stay random.

        Two channels carry the positive and the negative part through the ReLUs.
        """
        first, *middle, last = (m for m in self.conv_block if isinstance(m, nn.Conv2d))
        for conv in (first, *middle):
            conv.weight[:2] = 0
            conv.bias[:2] = 0  # type: ignore[index]
        for sign in (0, 1):
            first.weight[sign, 0, 1, 1] = 1 - 2 * sign
            for conv in middle:
                conv.weight[sign, sign, 1, 1] = 1
        last.weight.zero_()
        last.bias.zero_()  # type: ignore[union-attr]
        last.weight[0, :2, 1, 1] = torch.tensor([1.0, -1.0])


def to_patches(
    grid: Float[Tensor, "batch subcarrier symbol"], patch: tuple[int, int]
) -> Float[Tensor, "batch token value"]:
    """Cut a grid into patches: tokens, and values of a token, are in row-major order."""
    height, width = patch
    cut = grid.unflatten(2, (-1, width)).unflatten(1, (-1, height))  # batch, i, h, j, w
    return cut.transpose(2, 3).flatten(3).flatten(1, 2)


def from_patches(
    tokens: Float[Tensor, "batch token value"], patch: tuple[int, int], subcarriers: int
) -> Float[Tensor, "batch subcarrier symbol"]:
    """Put patches back in their places: the inverse of `to_patches`."""
    height, width = patch
    rows = subcarriers // height
    cut = tokens.unflatten(2, (height, width)).unflatten(1, (rows, -1))  # batch, i, j, h, w
    return cut.transpose(2, 3).flatten(3).flatten(1, 2)


class ChannelAdapter(nn.Module):
    """Make features of every token from SNR, delay spread and Doppler, by a network of each."""

    centre: Tensor
    scale: Tensor

    def __init__(self, tokens: int, hidden: tuple[int, int], features: int, scaled: bool) -> None:
        super().__init__()
        self.tokens = tokens
        sizes = (1, *hidden, tokens * features)
        self.snr_encoder = _condition_encoder(sizes)
        self.ds_encoder = _condition_encoder(sizes)
        self.dop_encoder = _condition_encoder(sizes)
        centre, scale = (CONDITION_CENTRE, CONDITION_SCALE) if scaled else ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("centre", torch.tensor(centre), persistent=False)
        self.register_buffer("scale", torch.tensor(scale), persistent=False)

    def forward(
        self, conditions: Float[Tensor, "batch 3"]
    ) -> Float[Tensor, "batch token condition_feature"]:
        scaled = (conditions - self.centre) / self.scale
        encoders = (self.snr_encoder, self.ds_encoder, self.dop_encoder)
        encoded = [encoder(scaled[:, i, None]) for i, encoder in enumerate(encoders)]
        return torch.cat([one.unflatten(1, (self.tokens, -1)) for one in encoded], -1)


def _condition_encoder(sizes: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class LearnedPositions(nn.Module):
    """Add a learned vector to each token."""

    def __init__(self, most: int, width: int) -> None:
        super().__init__()
        self.position_embeddings = nn.Parameter(torch.empty(1, most, width))
        nn.init.trunc_normal_(self.position_embeddings, std=0.02)

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        return x + self.position_embeddings[:, : x.shape[1]]


class SinusoidalPositions(nn.Module):
    """Add sines (even columns) and cosines (odd ones) of the token's number."""

    pe: Tensor

    def __init__(self, most: int, width: int) -> None:
        super().__init__()
        columns = torch.arange(0, width, 2)
        angles = torch.arange(most)[:, None] * torch.exp(-math.log(10_000.0) * columns / width)
        table = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]
        self.register_buffer("pe", table[None])

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        return x + self.pe[:, : x.shape[1]]


class SelfAttention(nn.Module):
    """Multi-head self-attention, initialised as `torch.nn.MultiheadAttention` is."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        if on_cpu.runs_here(x):
            projected = on_cpu.linear(x, self.in_proj_weight, self.in_proj_bias)
            share = self.dropout if self.training else 0.0
            mixed = on_cpu.attention(projected, self.heads, share)
            return on_cpu.linear(mixed, self.out_proj.weight, self.out_proj.bias)
        projected = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        split = projected.unflatten(2, (3, self.heads, -1))  # batch, token, q k v, head, feature
        q, k, v = split.permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Post-norm transformer layer, as `torch.nn.TransformerEncoderLayer`.

    That one takes another path where no gradient is wanted, which ONNX cannot express.
    """

    def __init__(
        self, width: int, heads: int, dropout: float, activation: Literal["gelu", "relu"]
    ) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, heads, dropout)
        self.linear1 = nn.Linear(width, 2 * width)
        self.linear2 = nn.Linear(2 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.activation = functional.gelu if activation == "gelu" else functional.relu

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        if on_cpu.runs_here(x):
            share = self.dropout.p if self.training else 0.0
            x = self.norm1(x + on_cpu.dropout(self.self_attn(x), share))
            hidden = on_cpu.linear(x, self.linear1.weight, self.linear1.bias)
            hidden = on_cpu.dropout(self.activation(hidden), share)
            hidden = on_cpu.linear(hidden, self.linear2.weight, self.linear2.bias)
            return self.norm2(x + on_cpu.dropout(hidden, share))
        x = self.norm1(x + self.dropout(self.self_attn(x)))
        hidden = self.dropout(self.activation(self.linear1(x)))
        return self.norm2(x + self.dropout(self.linear2(hidden)))


class PatchTransformer(nn.Module):
    """Map tokens of some values to tokens of others, by attention between all of them."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        positions: LearnedPositions | SinusoidalPositions,
        layers: list[EncoderLayer],
    ) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, width)
        self.positional_encoding = positions
        self.transformer = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.linear_2 = nn.Linear(width, outputs)

    def forward(
        self, tokens: Float[Tensor, "batch token value"]
    ) -> Float[Tensor, "batch token value_out"]:
        if on_cpu.runs_here(tokens):
            return on_cpu.in_parts(self._mapped, tokens)
        return self._mapped(tokens)

    def _mapped(
        self, tokens: Float[Tensor, "batch token value"]
    ) -> Float[Tensor, "batch token value_out"]:
        x = self.positional_encoding(self.linear_1(tokens))
        for layer in self.transformer["layers"]:  # type: ignore[union-attr]
            x = layer(x)
        return self.linear_2(x)
