"""A linear layer on a CPU at the speed of its vector units.

PyTorch hands float32 products to MKL, which is slow on an AMD processor; its convolutions go to
oneDNN, which is not (``python benchmarks/frcrn.py`` and ``deftan2.py`` have the figures). A linear
layer *is* a convolution of kernel size 1. With one thread PyTorch would hand that one to MKL too,
unless it is dilated, which means nothing at this size.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

PRODUCTS = 2**22  # multiplications up to which setting up the convolution costs more than it saves


def linear(
    x: Float[Tensor, "*batch channel_in"],
    weight: Float[Tensor, "channel channel_in"],
    bias: Float[Tensor, " channel"] | None = None,
) -> Float[Tensor, "*batch channel"]:
    """Compute ``torch.nn.functional.linear``.

    Args:
        x: Channels-last tensor.
        weight: Weight of an ``nn.Linear``.
        bias: Bias of an ``nn.Linear``.
    """
    small = x.numel() * len(weight) <= PRODUCTS
    if small or x.is_cuda or x.dtype != torch.float32 or torch.compiler.is_compiling():
        return functional.linear(x, weight, bias)
    rows = x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)  # an image, channels last
    y = functional.conv2d(rows, weight[:, :, None, None], bias, dilation=2)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))
