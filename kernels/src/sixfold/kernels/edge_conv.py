"""Edge-preserving depthwise convolution of CFSR: a learned kernel plus scaled fixed ones, as one.

    y = conv(x, W) + b + sum over branches of conv(x, scale_i mask_i) + b_i

Convolution is linear in its kernel, so the sum of the convolutions is the convolution with the sum
of the kernels, while training too: the kernels hold nine numbers a channel, the images thousands.
One convolution reads x once, where four read it four times and add three images.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Branch = tuple[Tensor, Tensor, Tensor]


def edge_conv(
    x: Float[Tensor, "batch channel height width"],
    weight: Float[Tensor, "channel 1 kh kw"],
    bias: Float[Tensor, " channel"],
    branches: Sequence[Branch],
) -> Float[Tensor, "batch channel height width"]:
    """Convolve with the sum of all kernels, zeros around the image so that its size is kept.

    Args:
        x: Image.
        weight: Learned kernel of each channel, of odd height and width.
        bias: Bias of the learned kernel.
        branches: Scale, fixed mask and bias of each branch, shaped as in `edge_conv_merge`.

    Raises:
        ValueError: channels do not agree, or the kernel has an even side.
    """
    merged, merged_bias = edge_conv_merge(weight, bias, branches)
    channels, _, height, width = merged.shape
    if x.shape[1] != channels or height % 2 == 0 or width % 2 == 0:
        raise ValueError(
            f"edge_conv: x of {x.shape[1]} channels needs a kernel ({x.shape[1]}, 1, odd, odd), "
            f"got {tuple(merged.shape)}"
        )
    padding = (height // 2, width // 2)
    return functional.conv2d(x, merged, merged_bias, padding=padding, groups=channels)


def edge_conv_merge(
    weight: Float[Tensor, "channel 1 kh kw"],
    bias: Float[Tensor, " channel"],
    branches: Sequence[Branch],
) -> tuple[Float[Tensor, "channel 1 kh kw"], Float[Tensor, " channel"]]:
    """Return the one kernel and bias that equal the learned kernel and all branches together.

    Args:
        weight: Learned kernel of each channel.
        bias: Bias of the learned kernel.
        branches: Scale (channel, 1, 1, 1), fixed mask (channel or 1, 1, kh, kw) and bias (channel,)
            of each branch.

    Raises:
        ValueError: a branch has other sizes.
    """
    channels = weight.shape[0]
    if bias.shape != (channels,):
        raise ValueError(f"edge_conv: bias should be ({channels},), got {tuple(bias.shape)}")
    for i, (scale, mask, offset) in enumerate(branches):
        expected = ((channels, 1, 1, 1), weight.shape[1:], (channels,))
        got = (scale.shape, mask.shape[1:], offset.shape)
        if got != expected or mask.shape[0] not in (1, channels):
            raise ValueError(
                f"edge_conv: a kernel {tuple(weight.shape)} needs branches of a scale "
                f"{expected[0]}, a mask like the kernel and a bias ({channels},), got in branch "
                f"{i} {tuple(scale.shape)}, {tuple(mask.shape)} and {tuple(offset.shape)}"
            )
        weight = weight + scale * mask
        bias = bias + offset
    return weight, bias
