"""U-Net-Mod of two levels and two blocks, zero-padded, block by block as its description says."""

import torch
from torch import Tensor
from torch.nn import functional


def reference_unet_mod(model, frames: Tensor) -> Tensor:
    """Compute what a network of ``mults=(1, 2)`` predicts, from its parameters."""
    down, up = model.down, model.up
    h0 = conv(model.image_proj, frames.flatten(1, 2))
    h1 = residual(down[0].res, h0)
    h2 = residual(down[1].res, h1)
    h3 = conv(down[2].conv, h2, stride=2)
    h4 = residual(down[3].res, h3)
    h5 = residual(down[4].res, h4)
    y = residual(model.middle.res2, residual(model.middle.res1, h5))
    for block, skip in ((up[0], h5), (up[1], h4), (up[2], h3)):
        y = residual(block.res, torch.cat((y, skip), 1))
    transposed = up[3].conv
    y = functional.conv_transpose2d(y, transposed.weight, transposed.bias, 2, 1)
    for block, skip in ((up[4], h2), (up[5], h1), (up[6], h0)):
        y = residual(block.res, torch.cat((y, skip), 1))
    y = functional.gelu(functional.group_norm(y, 8, model.norm.weight, model.norm.bias))
    return conv(model.final, y)[:, None]


def residual(block, x: Tensor) -> Tensor:
    y = conv(block.conv1, functional.gelu(norm(block.norm1, x)))
    y = conv(block.conv2, functional.gelu(norm(block.norm2, y)))
    if x.shape[1] == y.shape[1]:
        return y + x
    return y + functional.conv2d(x, block.shortcut.weight, block.shortcut.bias)


def norm(layer, x: Tensor) -> Tensor:
    return functional.group_norm(x, 1, layer.weight, layer.bias, 1e-5)


def conv(layer, x: Tensor, stride: int = 1) -> Tensor:
    return functional.conv2d(x, layer.weight, layer.bias, stride, 1)
