"""Depthwise convolution along one axis of a channels-last tensor, with an optional residual.

    y[b, t, .., c] = sum_j weight[c, 0, j] x[b, t + j dilation - left, .., c]  (+ x[b, t, .., c])

The usual way, ``conv1d`` between two transposes, copies the tensor twice and then runs a
convolution that PyTorch does not vectorise over channels. Here the tensor is *viewed* as a
channels-last image of height ``time``: x is read once, y is written once, nothing else moves.
PyTorch's own gradient of that convolution is slow in the weight, so the
operator brings its backward: the input's gradient is the same call with the taps reversed, the
weight's is one multiply-and-sum per tap.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

CHUNK = 2**20  # numbers


def dwconv1d(
    x: Float[Tensor, "batch time *rest channel"],
    weight: Float[Tensor, "channel 1 taps"],
    *,
    padding: tuple[int, int] = (0, 0),
    dilation: int = 1,
    residual: bool = False,
) -> Float[Tensor, "batch time_out *rest channel"]:
    """Filter every channel with its own taps along axis 1 (cross-correlation, as in torch).

    The output has ``time + left + right - dilation (taps - 1)`` steps, perhaps none. Causal is
    ``padding=(dilation * (taps - 1), 0)``.

    Args:
        x: Any number of axes may stand between time and channel; each position is a sequence.
        weight: As of a depthwise ``nn.Conv1d``.
        padding: Zeros before the first and after the last step; a negative number cuts steps off.
        dilation: Steps between two taps.
        residual: Add the input; needs as many steps out as in.

    Raises:
        ValueError: sizes do not fit; the message names both.
    """
    channels, taps = x.shape[-1], weight.shape[-1]
    if x.ndim < 3 or weight.ndim != 3 or weight.shape[0] != channels or weight.shape[1] != 1:
        raise ValueError(
            "dwconv1d: x should be (batch, time, ..., channels) and weight (channels, 1, taps), "
            f"got x {tuple(x.shape)} and weight {tuple(weight.shape)}"
        )
    left, reach = padding[0], dilation * (taps - 1)
    steps = x.shape[1] + sum(padding) - reach
    if steps < 0 or (residual and steps != x.shape[1]):
        raise ValueError(
            f"dwconv1d: {x.shape[1]} steps padded by {padding} give {steps} with {taps} taps of "
            f"dilation {dilation}" + ("; residual needs as many out as in" if residual else "")
        )
    if residual and 0 <= left <= reach and left % dilation == 0:
        present = torch.zeros_like(weight)
        present[..., left // dilation] = 1  # one more on the tap that reads the present step
        return _Dwconv1d.apply(x, weight + present, padding, dilation)
    y = _Dwconv1d.apply(x, weight, padding, dilation)
    return y + x if residual else y


class _Dwconv1d(Function):
    @staticmethod
    def forward(ctx, x, weight, padding, dilation):
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.dilation = padding, dilation
        return _convolve(x, weight, padding, dilation)

    @staticmethod
    def backward(ctx, grad):  # under autocast x, weight and grad may each have their own dtype
        x, weight = ctx.saved_tensors
        (left, right), dilation, taps = ctx.padding, ctx.dilation, weight.shape[-1]
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            reach = dilation * (taps - 1)
            mirrored = (reach - left, reach - right)
            grad_x = _Dwconv1d.apply(grad, weight.flip(-1), mirrored, dilation).to(x.dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = _weight_gradient(x, grad, taps, left, dilation).to(weight.dtype)
        return grad_x, grad_weight, None, None


def _convolve(x: Tensor, weight: Tensor, padding: tuple[int, int], dilation: int) -> Tensor:
    left, right = padding
    steps = x.shape[1] + left + right - dilation * (weight.shape[-1] - 1)
    if steps == 0 or x.numel() == 0:  # which conv2d refuses; nothing or zeros come out
        return x.new_zeros(x.shape[0], steps, *x.shape[2:])
    image = _flat(x).permute(0, 3, 1, 2)  # channels-last strides
    if left < 0 or right < 0:  # in a backward pass, where a wide padding turns into a crop
        image = functional.pad(image, (0, 0, left, right))
        left = right = 0
    both = max(left, right)  # padding is cheapest inside the convolution, where it is symmetric
    y = functional.conv2d(
        image,
        weight[..., None].to(x.dtype),
        padding=(both, 0),
        dilation=(dilation, 1),
        groups=x.shape[-1],
    )
    y = y.narrow(2, both - left, steps)
    return y.permute(0, 2, 3, 1).reshape(x.shape[0], steps, *x.shape[2:])


def _weight_gradient(x: Tensor, grad: Tensor, taps: int, left: int, dilation: int) -> Tensor:
    """Correlate x with the output's gradient, one tap at a time, in chunks.

    The products of a chunk go through one buffer that stays in the cache: fresh memory for each
    would cost more than the product. A compiler fuses product and sum by itself, and a gradient to
    be differentiated again must keep the products: both take everything at once and no buffer.
    """
    time, steps = x.shape[1], grad.shape[1]
    x, grad = _flat(x), _flat(grad)
    total = x.new_zeros(taps, x.shape[-1], dtype=torch.promote_types(x.dtype, torch.float32))
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        chunks, buffer = [(x, grad)], None
    else:
        items = max(1, CHUNK // max(1, x[0:1].numel()))
        others = max(1, CHUNK // max(1, time * x.shape[-1]))
        chunks = [
            pair
            for batch in zip(x.split(items), grad.split(items), strict=True)
            for pair in zip(*(part.split(others, 2) for part in batch), strict=True)
        ]
        buffer = x.new_empty(chunks[0][0].numel())
    for seen, sent in chunks:
        for tap in range(taps):
            shift = tap * dilation - left  # this tap of output step t reads x at t + shift
            first, last = max(0, -shift), min(steps, time - shift)
            if last > first:
                a, b = sent[:, first:last], seen[:, first + shift : last + shift]
                out = None if buffer is None else buffer[: a.numel()].view(a.shape)
                total[tap] += torch.mul(a, b, out=out).sum((0, 1, 2), dtype=total.dtype)
    return total.t()[:, None]


def _flat(x: Tensor) -> Tensor:
    """View (batch, time, ..., channel) as (batch, time, rest, channel)."""
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:-1]), x.shape[-1])
