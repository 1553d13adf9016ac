"""Depthwise convolution along one axis of a channels-last tensor, with an optional residual.

    y[b, t, .., c] = sum_ij weight[c, i, j] u[b, t + j dilation - left, .., m c + i]

(+ u[b, t, .., c]) with u = x or silu(x), and m consecutive input channels for each output channel.

On a CPU, the usual way, ``conv1d`` between two transposes, copies the tensor twice and then runs a
convolution that PyTorch does not vectorise over channels. Here the tensor is *viewed* as a
channels-last image of height ``time``: x is read once, y is written once, nothing else moves.
PyTorch's own gradient of that convolution is slow in the weight where it pads, so the operator
defines its own backward pass: the input's gradient is the same call with the taps reversed, the
weight's is PyTorch's for an input padded before. Of the activation only x is kept; u is computed
again.

On a GPU one kernel reads x and writes y, where the chain of activation, two transposes,
convolution and sum moves the tensor nine times.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from sixfold.kernels._dispatch import DEVICES, autotune, jit, reference_vjp, tl, use_fused

CHUNK = 2**20  # numbers of x in a chunk
ROWS = 256  # steps of a chunk, at least: its edges are activated twice


def dwconv1d(
    x: Float[Tensor, "batch time *rest channel_in"],
    weight: Float[Tensor, "channel m taps"],
    *,
    padding: tuple[int, int] = (0, 0),
    dilation: int = 1,
    residual: bool = False,
    pre_act: Literal["none", "silu"] = "none",
) -> Float[Tensor, "batch time_out *rest channel"]:
    """Filter every channel with its own taps along axis 1 (cross-correlation, as in torch).

    The output has ``time + left + right - dilation (taps - 1)`` steps, perhaps none.
    ``padding=(dilation * (taps - 1), 0)`` makes the filter causal.

    Args:
        x: Channels-last sequences; any number of axes may stand between time and channel.
        weight: Weight of a depthwise ``nn.Conv1d``; with m > 1, of an ``nn.Conv1d`` with
            ``groups=channel``, whose output c reads the input channels m c to m c + m - 1.
        padding: Number of zeros before the first and after the last step; a negative number crops.
        dilation: Number of steps between two taps.
        residual: Whether to add the (activated) input; needs as many steps and channels out as in.
        pre_act: Activation applied to x first.

    Raises:
        ValueError: sizes do not fit; the message names both.
    """
    _check(x, weight, padding, dilation, residual)
    options = (*padding, dilation, residual, pre_act == "silu")
    if use_fused("dwconv1d", x, weight):
        return dwconv1d_fused(x, weight, *options)
    return dwconv1d_reference(x, weight, *options)


def dwconv1d_reference(
    x: Tensor, weight: Tensor, left: int, right: int, dilation: int, residual: bool, silu: bool
) -> Tensor:
    """Compute the operator in the plain PyTorch that is fastest on a CPU."""
    _, m, taps = weight.shape
    if m > 1:  # one depthwise convolution for each input channel of the groups
        parts = x.unflatten(-1, (-1, m)).unbind(-1)
        columns = zip(parts, weight.split(1, 1), strict=True)
        filtered = [
            dwconv1d_reference(part.contiguous(), column, left, right, dilation, False, silu)
            for part, column in columns
        ]
        return torch.stack(filtered).sum(0)
    padding = (left, right)
    if residual and 0 <= left <= dilation * (taps - 1) and left % dilation == 0:
        present = torch.zeros_like(weight)
        present[..., left // dilation] = 1  # one more on the tap that reads the present step
        return _Dwconv1d.apply(x, weight + present, padding, dilation, silu)
    y = _Dwconv1d.apply(x, weight, padding, dilation, silu)
    return y + _activate(x, silu) if residual else y


class _Dwconv1d(Function):
    @staticmethod
    def forward(ctx, x, weight, padding, dilation, silu):
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.dilation, ctx.silu = padding, dilation, silu
        if silu and not torch.compiler.is_compiling():
            return _in_chunks(x, weight, padding, dilation, before=functional.silu)
        return _convolve(_activate(x, silu), weight, padding, dilation)

    @staticmethod
    def backward(ctx, grad):  # under autocast x, weight and grad may each have their own dtype
        x, weight = ctx.saved_tensors
        (left, right), dilation, taps = ctx.padding, ctx.dilation, weight.shape[-1]
        # What a compiler fuses, or is to be differentiated again, takes everything at once.
        whole = torch.compiler.is_compiling() or torch.is_grad_enabled()
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            reach, mirror = dilation * (taps - 1), weight.flip(-1)
            padding = (reach - left, reach - right)
            if whole or not ctx.silu:
                grad_x = _Dwconv1d.apply(grad, mirror, padding, dilation, False).to(x.dtype)
                if ctx.silu:
                    gate = torch.sigmoid(x)
                    grad_x = grad_x * gate * (1 + x * (1 - gate))
            else:

                def pulled(part: Tensor, seen: slice) -> Tensor:
                    return torch.ops.aten.silu_backward(part.to(x.dtype), x[:, seen])

                grad_x = _in_chunks(grad, mirror, padding, dilation, after=pulled)
        if ctx.needs_input_grad[1]:
            sizes = (taps, left, dilation, ctx.silu, whole)
            grad_weight = _weight_gradient(x, grad, *sizes).to(weight.dtype)
        return grad_x, grad_weight, None, None, None


def _activate(x: Tensor, silu: bool) -> Tensor:
    return functional.silu(x) if silu else x


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


def _in_chunks(
    x: Tensor,
    weight: Tensor,
    padding: tuple[int, int],
    dilation: int,
    before: Callable[[Tensor], Tensor] = lambda part: part,
    after: Callable[[Tensor, slice], Tensor] = lambda part, steps: part,
) -> Tensor:
    """Activate, convolve and add in chunks of time, each while it is in the cache.

    No intermediate tensor then has the size of x: fresh memory of that size costs more than the
    arithmetic.
    """
    (left, right), reach, time = padding, dilation * (weight.shape[-1] - 1), x.shape[1]
    steps, y = time + left + right - reach, None
    rows = max(ROWS, CHUNK // 4 // max(1, x[:, :1].numel()))
    if steps <= rows or not (0 <= left <= reach and 0 <= right <= reach):
        return after(_convolve(before(x), weight, padding, dilation), slice(0, steps))
    for start in range(0, steps, rows):
        stop = min(start + rows, steps)
        first, last = max(0, start - left), min(time, stop - left + reach)
        edges = (first - start + left, stop - left + reach - last)
        part = _convolve(before(x[:, first:last]), weight, edges, dilation)
        part = after(part, slice(start, stop))
        y = part.new_empty(x.shape[0], steps, *x.shape[2:]) if y is None else y
        y[:, start:stop] = part
    assert y is not None
    return y


def _weight_gradient(
    x: Tensor, grad: Tensor, taps: int, left: int, dilation: int, silu: bool, whole: bool
) -> Tensor:
    """Correlate (activated) x with the output's gradient, in chunks of steps or whole.

    PyTorch's gradient is fast on channels-last images without padding and dilation only: zeros are
    put around a chunk first, and the steps that a dilation does not connect become columns.
    """
    (batch, time, *_, channels), steps, reach = x.shape, grad.shape[1], dilation * (taps - 1)
    x, grad, shape = _flat(x), _flat(grad), (channels, 1, taps, 1)
    total = x.new_zeros(channels, 1, taps, dtype=torch.promote_types(x.dtype, torch.float32))
    if x.numel() == 0 or grad.numel() == 0:
        return total
    items, rows = batch, steps
    if not whole:
        items = max(1, CHUNK // x[:1].numel())
        rows = max(1, CHUNK // (min(items, batch) * x[0, 0].numel()))
    for seen, sent in zip(x.split(items), grad.split(items), strict=True):
        for start in range(0, steps, rows):
            part = sent[:, start : start + rows]
            if dilation > 1:
                part = functional.pad(part, (0, 0, 0, 0, 0, -part.shape[1] % dilation))
            begin, end = start - left, start - left + part.shape[1] + reach  # steps of x it reads
            first, last = (min(max(0, step), time) for step in (begin, end))
            window = _activate(seen[:, first:last], silu).to(part.dtype)
            window = functional.pad(window, (0, 0, 0, 0, first - begin, end - last))
            seen_image, sent_image = (
                image.unflatten(1, (-1, dilation)).flatten(2, 3).permute(0, 3, 1, 2)
                for image in (window, part)
            )
            total += conv2d_weight(seen_image, shape, sent_image, groups=channels)[..., 0]
    return total


def _flat(x: Tensor) -> Tensor:
    """View (batch, time, ..., channel) as (batch, time, rest, channel)."""
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:-1]), x.shape[-1])


def _check(
    x: Tensor, weight: Tensor, padding: tuple[int, int], dilation: int, residual: bool
) -> None:
    fits = x.ndim > 2 and weight.ndim == 3 and x.shape[-1] == weight.shape[0] * weight.shape[1]
    if not fits:
        raise ValueError(
            "dwconv1d: x should be (batch, time, ..., channels m) and weight (channels, m, taps), "
            f"got x {tuple(x.shape)} and weight {tuple(weight.shape)}"
        )
    if dilation < 1 or weight.shape[-1] < 1:
        raise ValueError(
            f"dwconv1d: dilation {dilation} and the number of taps {weight.shape[-1]} should be "
            "at least 1"
        )
    if x.device != weight.device:
        raise ValueError(f"dwconv1d: x is on {x.device}, weight on {weight.device}")
    taps, steps = weight.shape[-1], x.shape[1] + sum(padding) - dilation * (weight.shape[-1] - 1)
    if steps < 0 or (residual and steps != x.shape[1]):
        raise ValueError(
            f"dwconv1d: {x.shape[1]} steps padded by {padding} give {steps} with {taps} taps of "
            f"dilation {dilation}" + ("; residual needs as many out as in" if residual else "")
        )
    if residual and weight.shape[1] > 1:
        raise ValueError(
            f"dwconv1d: residual needs as many channels out as in, got {x.shape[-1]} in and "
            f"{weight.shape[0]} out"
        )


# Tensors of the kernels are contiguous: x (batch, time, others, channels m), y likewise without m.
# A column is one (other, channel) of the output, or one (other, input channel) of the input.

TILES = [{"STEPS": s, "COLUMNS": c} for s, c in ((16, 64), (32, 64), (8, 128), (16, 128), (64, 32))]


@autotune(TILES, key=["channels", "TAPS", "M", "DILATION"])
@jit
def _forward(
    x, weight, y, time, steps, columns, channels, left,
    TAPS: tl.constexpr, M: tl.constexpr, DILATION: tl.constexpr, RESIDUAL: tl.constexpr,
    SILU: tl.constexpr, STEPS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(2).to(tl.int64)
    t = tl.program_id(1) * STEPS + tl.arange(0, STEPS)[:, None]
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    channel, there = column % channels, column < columns
    rows = x + batch * time * columns * M
    total = tl.zeros((STEPS, COLUMNS), tl.float32)
    for tap in tl.static_range(TAPS):
        seen = t + (tap * DILATION - left)
        inside = there & (seen >= 0) & (seen < time)
        for i in tl.static_range(M):
            u = tl.load(rows + seen.to(tl.int64) * columns * M + column * M + i, inside, 0.0)
            u = u.to(tl.float32)
            if SILU:
                u = u * tl.sigmoid(u)
            total += u * tl.load(weight + (channel * M + i) * TAPS + tap, there, 0.0).to(tl.float32)
    inside = there & (t < steps)
    if RESIDUAL:
        u = tl.load(rows + t.to(tl.int64) * columns + column, inside, 0.0).to(tl.float32)
        if SILU:
            u = u * tl.sigmoid(u)
        total += u
    tl.store(y + batch * steps * columns + t.to(tl.int64) * columns + column, total, inside)


@autotune(TILES, key=["channels", "TAPS", "M", "DILATION"])
@jit
def _backward_input(
    grad, x, weight, grad_x, time, steps, columns, channels, left,
    TAPS: tl.constexpr, M: tl.constexpr, DILATION: tl.constexpr, RESIDUAL: tl.constexpr,
    SILU: tl.constexpr, STEPS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(2).to(tl.int64)
    t = tl.program_id(1) * STEPS + tl.arange(0, STEPS)[:, None]
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]  # of the input
    channel, there = column % (channels * M), column < columns * M
    rows = grad + batch * steps * columns
    total = tl.zeros((STEPS, COLUMNS), tl.float32)
    for tap in tl.static_range(TAPS):
        wrote = t + (left - tap * DILATION)  # the output step that read step t through this tap
        inside = there & (wrote >= 0) & (wrote < steps)
        sent = tl.load(rows + wrote.to(tl.int64) * columns + column // M, inside, 0.0)
        total += sent.to(tl.float32) * tl.load(weight + channel * TAPS + tap, there, 0.0).to(
            tl.float32
        )
    inside = there & (t < time)
    if RESIDUAL:
        total += tl.load(rows + t.to(tl.int64) * columns + column, inside, 0.0).to(tl.float32)
    place = batch * time * columns * M + t.to(tl.int64) * columns * M + column
    if SILU:
        v = tl.load(x + place, inside, 0.0).to(tl.float32)
        gate = tl.sigmoid(v)
        total *= gate * (1 + v * (1 - gate))
    tl.store(grad_x + place, total, inside)


@jit
def _backward_weight(
    grad, x, partial, time, steps, others, channels, positions, left,
    TAPS: tl.constexpr, M: tl.constexpr, DILATION: tl.constexpr, SILU: tl.constexpr,
    TAPS_2: tl.constexpr, CHUNK_ROWS: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sum one chunk of positions (batch, step, other) for a block of input channels."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    tap, there = tl.arange(0, TAPS_2), channel < channels * M
    first = tl.program_id(1).to(tl.int64) * CHUNK_ROWS
    total = tl.zeros((TAPS_2, CHANNELS), tl.float32)
    for row in range(0, CHUNK_ROWS, ROWS):
        position = first + row + tl.arange(0, ROWS)
        valid = position < positions
        other, t = position % others, position // others % steps
        batch = position // (others * steps)
        sent = tl.load(
            grad + position[:, None] * channels + channel[None, :] // M,
            valid[:, None] & there[None, :], 0.0,
        ).to(tl.float32)  # fmt: skip
        seen = t[:, None] + (tap[None, :] * DILATION - left)
        inside = valid[:, None] & (tap[None, :] < TAPS) & (seen >= 0) & (seen < time)
        place = ((batch[:, None] * time + seen) * others + other[:, None]) * channels * M
        u = tl.load(
            x + place[:, :, None] + channel[None, None, :],
            inside[:, :, None] & there[None, None, :], 0.0,
        ).to(tl.float32)  # fmt: skip
        if SILU:
            u = u * tl.sigmoid(u)
        total += tl.sum(u * sent[:, None, :], 0)
    place = (tl.program_id(1) * channels * M + channel[None, :]) * TAPS + tap[:, None]
    tl.store(partial + place, total, there[None, :] & (tap[:, None] < TAPS))


@torch.library.custom_op("sixfold::dwconv1d", mutates_args=(), device_types=DEVICES)
def dwconv1d_fused(
    x: Tensor, weight: Tensor, left: int, right: int, dilation: int, residual: bool, silu: bool
) -> Tensor:
    """Run the Triton kernel; the arguments are those of `dwconv1d_reference`."""
    x, weight = x.contiguous(), weight.contiguous()
    channels, m, taps = weight.shape
    batch, time, *rest, _ = x.shape
    steps, columns = time + left + right - dilation * (taps - 1), math.prod(rest) * channels
    y = x.new_empty(batch, steps, *rest, channels)
    if y.numel():
        _forward[_grid(columns, steps, batch)](
            x, weight, y, time, steps, columns, channels, left,
            TAPS=taps, M=m, DILATION=dilation, RESIDUAL=residual, SILU=silu,
        )  # fmt: skip
    return y


@dwconv1d_fused.register_fake
def _(x, weight, left, right, dilation, residual, silu):
    steps = x.shape[1] + left + right - dilation * (weight.shape[-1] - 1)
    return x.new_empty(x.shape[0], steps, *x.shape[2:-1], weight.shape[0])


@torch.library.custom_op("sixfold::dwconv1d_backward", mutates_args=(), device_types=DEVICES)
def dwconv1d_backward(
    grad: Tensor, x: Tensor, weight: Tensor, left: int, dilation: int, residual: bool, silu: bool,
    need_x: bool, need_weight: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the gradients of x and of weight; a gradient that is not needed is empty."""
    grad, x, weight = grad.contiguous(), x.contiguous(), weight.contiguous()
    channels, m, taps = weight.shape
    batch, time, *rest, _ = x.shape
    steps, others = grad.shape[1], math.prod(rest)
    columns = others * channels
    grad_x = torch.empty_like(x) if need_x else x.new_empty(0)
    if grad_x.numel():
        _backward_input[_grid(columns * m, time, batch)](
            grad, x, weight, grad_x, time, steps, columns, channels, left,
            TAPS=taps, M=m, DILATION=dilation, RESIDUAL=residual, SILU=silu,
        )  # fmt: skip
    if not need_weight:
        return grad_x, x.new_empty(0)
    positions = batch * steps * others
    rows = min(512, 1 << (positions - 1).bit_length())  # few kernels: a power of two
    chunks, block = -(-positions // rows), 16 if taps > 32 else 32
    partial = x.new_empty(chunks, channels * m, taps, dtype=torch.float32)
    if partial.numel():
        _backward_weight[(-(-channels * m // block), chunks)](
            grad, x, partial, time, steps, others, channels, positions, left,
            TAPS=taps, M=m, DILATION=dilation, SILU=silu, TAPS_2=1 << (taps - 1).bit_length(),
            CHUNK_ROWS=rows, ROWS=min(4, rows), CHANNELS=block,
        )  # fmt: skip
    return grad_x, partial.sum(0).view(weight.shape).to(weight.dtype)


@dwconv1d_backward.register_fake
def _(grad, x, weight, left, dilation, residual, silu, need_x, need_weight):
    grad_x = x.new_empty(x.shape) if need_x else x.new_empty(0)
    return grad_x, weight.new_empty(weight.shape) if need_weight else x.new_empty(0)


def _grid(columns: int, steps: int, batch: int):
    return lambda tile: (-(-columns // tile["COLUMNS"]), -(-steps // tile["STEPS"]), batch)


def _setup(ctx, inputs, output):
    x, weight, *ctx.options = inputs
    ctx.save_for_backward(x, weight)


def _pull(ctx, grad):
    needed, options = ctx.needs_input_grad[:2], ctx.options
    if torch.is_grad_enabled():
        grads = reference_vjp(
            "dwconv1d",
            lambda x, weight: dwconv1d_reference(x, weight, *options),
            ctx.saved_tensors, needed, grad,
        )  # fmt: skip
    else:
        left, _, dilation, residual, silu = options
        found = dwconv1d_backward(grad, *ctx.saved_tensors, left, dilation, residual, silu, *needed)
        grads = (g if need else None for g, need in zip(found, needed, strict=True))
    return *grads, None, None, None, None, None


dwconv1d_fused.register_autograd(_pull, setup_context=_setup)
