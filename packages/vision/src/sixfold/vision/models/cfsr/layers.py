"""CFSR's parts: the ConvFormer block, its large kernel mixer and its edge-preserving network.

Everything is computed channels last. Two products with small numbers replace passes over images,
while training too: the edge kernels are added before the convolution, and the layer scale is
multiplied into the last 1x1 convolution of each branch.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.kernels import edge_conv, edge_conv_merge, layer_norm_cf

Features = Float[Tensor, "batch channel height width"]

EDGES = ("sobel_x", "sobel_y", "laplacian")
MASKS = {
    "true": {
        "sobel_x": ((1, 0, -1), (2, 0, -2), (1, 0, -1)),
        "sobel_y": ((1, 2, 1), (0, 0, 0), (-1, -2, -1)),
        "laplacian": ((0, 1, 0), (1, -4, 1), (0, 1, 0)),
    },
    "official": {  # with which the released networks were trained
        "sobel_x": ((0, 1, -1), (2, 0, -2), (1, 0, -1)),
        "sobel_y": ((1, 2, 1), (0, 0, 0), (-1, -2, -1)),
        "laplacian": ((1, 0, 0), (1, -4, 1), (0, 1, 0)),
    },
}


class Block(nn.Module):
    """ConvFormer block: x + s_1 mixer(x), then x + s_2 network(x), with a scale per channel."""

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        ratio: int,
        *,
        edge_masks: str | None,
        layer_scale: float,
    ) -> None:
        super().__init__()
        self.layer_scale_1 = nn.Parameter(torch.full((channels,), layer_scale))
        self.layer_scale_2 = nn.Parameter(torch.full((channels,), layer_scale))
        self.attn = LargeKernelMixer(channels, kernel_size)
        self.mlp = EdgeNetwork(channels, ratio * channels, edge_masks)

    def forward(self, x: Features) -> Features:
        x = x + self.attn(x, self.layer_scale_1)
        return x + self.mlp(x, self.layer_scale_2)


class LargeKernelMixer(nn.Module):
    """Mix pixels by a depth-wise convolution of a large kernel that gates their values.

    ``proj(DWConv(GELU(a(n))) * v(n))`` with n the normalised input: what stands for attention.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.a = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.GELU(), DepthwiseConv(channels, kernel_size)
        )
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Features, scale: Float[Tensor, " channel"] | None = None) -> Features:
        n = self.norm(x)
        return scaled(self.proj, self.a(n) * self.v(n), scale)


class DepthwiseConv(nn.Module):
    """Depth-wise convolution that keeps the size; the official code re-parameterised it once."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.lkb_reparam = nn.Conv2d(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels
        )

    def forward(self, x: Features) -> Features:
        return self.lkb_reparam(x)


class EdgeNetwork(nn.Module):
    """Edge-preserving feed-forward network (EFN): ``fc2(h + GELU(edges(h)))``, h = GELU(fc1(n)).

    ``edges`` is a learned 3x3 depth-wise convolution and, in the training form, three of fixed
    masks with learned scales and biases; all four are computed as one.
    """

    def __init__(self, channels: int, width: int, edge_masks: str | None) -> None:
        super().__init__()
        self.edges = EDGES if edge_masks else ()
        for edge in self.edges:
            scale, bias = 1e-3 * torch.randn(width, 1, 1, 1), 1e-3 * torch.randn(width)
            self.register_parameter(f"scale_{edge}", nn.Parameter(scale))
            self.register_parameter(f"{edge}_bias", nn.Parameter(bias))
            mask = torch.tensor(MASKS[str(edge_masks)][edge], dtype=torch.float32)
            self.register_buffer(f"mask_{edge}", mask.repeat(width, 1, 1, 1))
        self.norm = LayerNorm(channels)
        self.fc1 = nn.Conv2d(channels, width, 1)
        self.pos = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.fc2 = nn.Conv2d(width, channels, 1)

    def branches(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """List scale, mask and bias of each edge branch; none in the merged form."""
        names = ((f"scale_{edge}", f"mask_{edge}", f"{edge}_bias") for edge in self.edges)
        return [(getattr(self, s), getattr(self, m), getattr(self, b)) for s, m, b in names]

    def kernel(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Compute the one kernel and bias that equal all branches, in a given precision."""
        branches = [(s.to(dtype), m.to(dtype), b.to(dtype)) for s, m, b in self.branches()]
        assert self.pos.bias is not None
        return edge_conv_merge(self.pos.weight.to(dtype), self.pos.bias.to(dtype), branches)

    def forward(self, x: Features, scale: Float[Tensor, " channel"] | None = None) -> Features:
        h = functional.gelu(self.fc1(self.norm(x)))
        assert self.pos.bias is not None
        # without a name for what only the next call needs: its memory is free by then
        edges = functional.gelu(edge_conv(h, self.pos.weight, self.pos.bias, self.branches()))
        return scaled(self.fc2, edges + h if edges.requires_grad else edges.add_(h), scale)


class LayerNorm(nn.Module):
    """Normalise every pixel over its channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Features) -> Features:
        return layer_norm_cf(x, self.weight, self.bias)


def scaled(conv: nn.Conv2d, x: Tensor, scale: Float[Tensor, " channel"] | None) -> Tensor:
    """Apply a 1x1 convolution whose output channels are scaled, without a pass for the scale."""
    if scale is None:
        return conv(x)
    assert conv.bias is not None
    return functional.conv2d(x, conv.weight * scale[:, None, None, None], conv.bias * scale)
