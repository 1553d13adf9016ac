"""CFSR as it was published: channels first, a chain of means and squares for each norm, four
depth-wise convolutions for the edges, and a product of its own for every layer scale.

The same parameters under the same names as `sixfold.vision.CFSR`, for tests and benchmarks.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from sixfold.vision import CFSR
from sixfold.vision.models.cfsr.layers import Block, EdgeNetwork, LargeKernelMixer, LayerNorm


class ReferenceCFSR(nn.Module):
    """Compute a CFSR's output, and gradients of its parameters, by the published formulation."""

    def __init__(self, model: CFSR) -> None:
        super().__init__()
        self.model = model

    def forward(self, pictures: Tensor) -> Tensor:
        model = self.model
        x = (pictures - model.mean) * model.config.img_range
        shallow = model.conv_first(x)
        y = shallow
        for layer in model.layers:
            for part in layer.blocks:  # type: ignore[union-attr]
                y = block(part, y)
            y = layer.conv(y) + y  # type: ignore[operator]
        features = model.conv_after_body(norm(model.norm, y)) + shallow
        y = model.upsample(features) if model.config.upsampler else x + model.conv_last(features)
        return y / model.config.img_range + model.mean


def block(part: Block, x: Tensor) -> Tensor:
    x = x + part.layer_scale_1[:, None, None] * mixer(part.attn, x)
    return x + part.layer_scale_2[:, None, None] * network(part.mlp, x)


def mixer(part: LargeKernelMixer, x: Tensor) -> Tensor:
    n = norm(part.norm, x)
    return part.proj(part.a(n) * part.v(n))


def network(part: EdgeNetwork, x: Tensor) -> Tensor:
    h = functional.gelu(part.fc1(norm(part.norm, x)))
    edges = part.pos(h)
    for scale, mask, bias in part.branches():
        edges = edges + functional.conv2d(h, scale * mask, bias, padding=1, groups=h.shape[1])
    return part.fc2(h + functional.gelu(edges))


def norm(part: LayerNorm, x: Tensor) -> Tensor:
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    x = (x - mean) / torch.sqrt(variance + 1e-6)
    return part.weight[:, None, None] * x + part.bias[:, None, None]
