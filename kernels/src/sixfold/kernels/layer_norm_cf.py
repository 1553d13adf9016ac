"""Layer norm over the channels of an image, at every pixel.

    y = (x - mean) / sqrt(var + eps) * weight + bias      mean and biased variance over channels

The literal chain of means, differences and squares passes over the image some eight times. On a
channels-last image the channels of a pixel lie together, and the chain is PyTorch's ordinary layer
norm of a *view*: x is read once, y is written once. An image in the other layout is copied first.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def layer_norm_cf(
    x: Float[Tensor, "batch channel height width"],
    weight: Float[Tensor, " channel"],
    bias: Float[Tensor, " channel"],
    *,
    eps: float = 1e-6,
) -> Float[Tensor, "batch channel height width"]:
    """Normalise every pixel over its channels; the result is laid out channels last.

    Args:
        x: Images, fastest in channels-last memory.
        weight: Scale of each channel.
        bias: Offset of each channel.
        eps: Constant added to the variance, inside the square root.

    Raises:
        ValueError: weight or bias does not have one number a channel.
    """
    channels = x.shape[1]
    if weight.shape != (channels,) or bias.shape != (channels,):
        raise ValueError(
            f"layer_norm_cf: x of shape {tuple(x.shape)} needs a weight and a bias of {channels} "
            f"numbers, got {tuple(weight.shape)} and {tuple(bias.shape)}"
        )
    return layer_norm_last(x.permute(0, 2, 3, 1), weight, bias, eps).permute(0, 3, 1, 2)


def layer_norm_last(
    x: Float[Tensor, "*batch channel"],
    weight: Float[Tensor, " channel"],
    bias: Float[Tensor, " channel"],
    eps: float,
) -> Float[Tensor, "*batch channel"]:
    """Compute ``torch.nn.functional.layer_norm`` over the last axis, with exact gradients.

    PyTorch's CPU kernel sums the gradients of weight and bias over all rows in the dtype of x,
    which loses them in half precision, so there the norm is computed in float32.
    """
    channels = (x.shape[-1],)
    if x.dtype in (torch.bfloat16, torch.float16) and not x.is_cuda:
        y = functional.layer_norm(x.float(), channels, weight.float(), bias.float(), eps)
        return y.to(x.dtype)
    return functional.layer_norm(x, channels, weight, bias, eps)
