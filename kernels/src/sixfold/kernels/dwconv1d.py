"""Depthwise convolution along one axis of a channels-last tensor, with an optional residual.

    y[b, t, .., c] = sum_j weight[c, 0, j] x[b, t + j dilation - left, .., c]  (+ x[b, t, .., c])

The usual way, ``conv1d`` between two transposes, copies the tensor twice and then runs a
convolution that PyTorch does not vectorise over channels. Here the tensor is *viewed* as a
channels-last image of height ``time``: x is read once, y is written once, nothing else moves.
PyTorch's own gradient of that convolution is slow in the weight (2 to 7 times here), so the
operator brings its backward: the input's gradient is the same call with the taps reversed, the
weight's is one multiply-and-sum per tap.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional


def dwconv1d(
    x: Float[Tensor, "batch time *rest channel"],
    weight: Float[Tensor, "channel 1 taps"],
    *,
    padding: tuple[int, int] = (0, 0),
    dilation: int = 1,
    residual: bool = False,
) -> Float[Tensor, "batch time_out *rest channel"]:
    """Filter every channel with its own taps along axis 1 (cross-correlation, as in torch).

    The output has ``time + left + right - dilation (taps - 1)`` steps. Causal is
    ``padding=(dilation * (taps - 1), 0)``.

    Args:
        x: Any number of axes may stand between time and channel; each position is a sequence.
        weight: As of a depthwise ``nn.Conv1d``.
        padding: Zeros before the first and after the last step.
        dilation: Steps between two taps.
        residual: Add the input; needs as many steps out as in.

    Raises:
        ValueError: sizes do not fit; the message names both.
    """
    channels, taps = x.shape[-1], weight.shape[-1]
    if weight.ndim != 3 or weight.shape[0] != channels or weight.shape[1] != 1:
        raise ValueError(
            f"dwconv1d: weight should be ({channels}, 1, taps) for x with {channels} channels "
            f"(its last axis), got weight {tuple(weight.shape)} and x {tuple(x.shape)}"
        )
    steps = x.shape[1] + sum(padding) - dilation * (taps - 1)
    if steps < 0 or (residual and steps != x.shape[1]):
        raise ValueError(
            f"dwconv1d: {x.shape[1]} steps padded by {padding} give {steps} with {taps} taps of "
            f"dilation {dilation}" + ("; residual needs as many out as in" if residual else "")
        )
    if residual:  # a residual is one more on the tap that reads the present step
        present = torch.zeros_like(weight)
        present[..., padding[0] // dilation] = 1
        if padding[0] % dilation:
            return _Dwconv1d.apply(x, weight, padding, dilation) + x
        weight = weight + present
    return _Dwconv1d.apply(x, weight, padding, dilation)


class _Dwconv1d(Function):
    @staticmethod
    def forward(ctx, x, weight, padding, dilation):
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.dilation = padding, dilation
        return _convolve(x, weight, padding, dilation)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        (left, right), dilation, taps = ctx.padding, ctx.dilation, weight.shape[-1]
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            reach = dilation * (taps - 1)
            mirrored = (reach - left, reach - right)
            grad_x = _Dwconv1d.apply(grad, weight.flip(-1), mirrored, dilation)
        if ctx.needs_input_grad[1]:  # not differentiable again
            grad_weight = _weight_gradient(x, grad, taps, left, dilation)
        return grad_x, grad_weight, None, None


def _convolve(x: Tensor, weight: Tensor, padding: tuple[int, int], dilation: int) -> Tensor:
    batch, time, channels = x.shape[0], x.shape[1], x.shape[-1]
    left, right = padding
    image = x.reshape(batch, time, -1, channels).permute(0, 3, 1, 2)  # channels-last strides
    if left < 0 or right < 0:  # only in a backward pass, where a narrow padding turns into a crop
        image = functional.pad(image, (0, 0, left, right))
        left = right = 0
    both = max(left, right)  # padding is cheapest inside the convolution, where it is symmetric
    y = functional.conv2d(
        image, weight[..., None], padding=(both, 0), dilation=(dilation, 1), groups=channels
    )
    steps = time + left + right - dilation * (weight.shape[-1] - 1)
    y = y[:, :, both - left :][:, :, :steps]
    return y.permute(0, 2, 3, 1).reshape(batch, steps, *x.shape[2:])


def _weight_gradient(x: Tensor, grad: Tensor, taps: int, left: int, dilation: int) -> Tensor:
    """Correlate x with the output's gradient, one tap and one item of the batch at a time.

    All products go through one buffer: fresh memory for each would cost more than the product.
    """
    time, steps, channels = x.shape[1], grad.shape[1], x.shape[-1]
    x, grad = x.reshape(len(x), time, -1, channels), grad.reshape(len(x), steps, -1, channels)
    buffer, total = torch.empty_like(x[0]), x.new_zeros(taps, channels)
    for item, sent in zip(x, grad, strict=True):
        for tap in range(taps):
            shift = tap * dilation - left  # this tap of output step t reads x at t + shift
            first, last = max(0, -shift), min(steps, time - shift)
            if last > first:
                seen = item[first + shift : last + shift]
                product = torch.mul(sent[first:last], seen, out=buffer[: last - first])
                total[tap] += product.sum((0, 1))
    return total.t()[:, None]
