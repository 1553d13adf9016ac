"""The part of FCN's cross layer after its matrix product: self-mask, product, shortcut.

    m = relu(layer_norm(h; gamma, beta))   (or relu(h))        h = x W^T, half as wide as x
    y = x0 * ([h, h m] + bias) + x                             x0 = x in the exponential network

In eager mode the chain writes some six arrays of the width of x and reads twice as many. The fused
kernel reads h, x and x0 once and writes y once, 3.5 arrays in all; its backward pass reads the
same and the gradient of y, and normalises again rather than storing anything.
"""

from functools import partial, reduce

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.kernels._dispatch import DEVICES, jit, reference_vjp, tl, use_fused
from sixfold.kernels.layer_norm_cf import layer_norm_last

WIDEST = 2048  # coordinates of h that one program holds; wider rows would spill registers
PROGRAMS = 512  # of the backward pass, each with its own sums over rows


def cross_epilogue(
    h: Float[Tensor, "*batch half"],
    x: Float[Tensor, "*batch width"],
    bias: Float[Tensor, " width"],
    *,
    x0: Float[Tensor, "*batch width"] | None = None,
    norm: tuple[Tensor, Tensor] | None = None,
    eps: float = 1e-5,
) -> Float[Tensor, "*batch width"]:
    """Turn the half-width product of a cross layer into the layer's output, before dropout.

    Args:
        h: Product of x and the layer's weight, batch-normalised if the layer has a batch norm.
        x: Input of the layer.
        bias: Bias of both halves.
        x0: Input of the first layer (linear cross); None stands for x (exponential cross).
        norm: Scale and offset (half,) of the layer norm; None if the layer has none.
        eps: Constant added to the variance of the layer norm.

    Raises:
        ValueError: sizes do not agree.
    """
    half, width = h.shape[-1], x.shape[-1]
    gamma, beta = norm or (None, None)
    shapes = [value.shape for value in (gamma, beta) if value is not None]
    rows = h.shape[:-1] == x.shape[:-1] and (x0 is None or x0.shape == x.shape)
    if not rows or width != 2 * half or bias.shape != (width,) or any(s != (half,) for s in shapes):
        raise ValueError(
            f"cross_epilogue: h {tuple(h.shape)} needs x and bias of {2 * half} coordinates and a "
            f"norm of {half}, got x {tuple(x.shape)}, bias {tuple(bias.shape)}"
            + ("" if x0 is None else f", x0 {tuple(x0.shape)}")
            + "".join(f", norm {tuple(s)}" for s in shapes)
        )
    wide = None if half <= WIDEST else f"{half} coordinates are more than the {WIDEST} it holds"
    if use_fused("cross_epilogue", h, x, bias, x0, gamma, beta, unsupported=wide):
        return cross_epilogue_fused(h, x, bias, x0, gamma, beta, eps)
    return cross_epilogue_reference(h, x, bias, x0, gamma, beta, eps)


def cross_epilogue_reference(
    h: Tensor,
    x: Tensor,
    bias: Tensor,
    x0: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    eps: float,
) -> Tensor:
    """Compute the layer in plain PyTorch, which ``torch.compile`` fuses into one kernel."""
    normal = h if gamma is None or beta is None else layer_norm_last(h, gamma, beta, eps)
    cross = torch.cat([h, h * normal.relu()], -1) + bias
    return torch.addcmul(x, x if x0 is None else x0, cross)


@jit
def _forward(
    h, x, x0, bias, gamma, beta, y, half, eps, NORM: tl.constexpr, BLOCK: tl.constexpr
):  # one row a program
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < half
    value = tl.load(h + row * half + at, mask=inside, other=0).to(tl.float32)
    mask = value
    if NORM:
        centred = tl.where(inside, value - tl.sum(value, 0) / half, 0.0)
        normal = centred / tl.sqrt(tl.sum(centred * centred, 0) / half + eps)
        mask = normal * tl.load(gamma + at, mask=inside, other=0).to(tl.float32)
        mask += tl.load(beta + at, mask=inside, other=0).to(tl.float32)
    left = row * 2 * half + at
    right = left + half
    bias_1 = tl.load(bias + at, mask=inside).to(tl.float32)
    bias_2 = tl.load(bias + half + at, mask=inside).to(tl.float32)
    first_1 = tl.load(x0 + left, mask=inside).to(tl.float32)
    first_2 = tl.load(x0 + right, mask=inside).to(tl.float32)
    last_1 = tl.load(x + left, mask=inside).to(tl.float32)
    last_2 = tl.load(x + right, mask=inside).to(tl.float32)
    masked = value * tl.maximum(mask, 0.0)
    tl.store(y + left, first_1 * (value + bias_1) + last_1, mask=inside)
    tl.store(y + right, first_2 * (masked + bias_2) + last_2, mask=inside)


@jit
def _backward(
    sent, h, x0, bias, gamma, beta, grad_h, grad_x0, sums, rows, chunk, half, eps,
    SAME: tl.constexpr, NORM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Process ``chunk`` rows; each program writes its own sums over them, (2 or 4, half)."""
    program = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < half
    bias_1 = tl.load(bias + at, mask=inside, other=0).to(tl.float32)
    bias_2 = tl.load(bias + half + at, mask=inside, other=0).to(tl.float32)
    weight = tl.load(gamma + at, mask=inside, other=0).to(tl.float32)
    offset = tl.load(beta + at, mask=inside, other=0).to(tl.float32)
    sum_1 = tl.zeros((BLOCK,), tl.float32)
    sum_2 = tl.zeros((BLOCK,), tl.float32)
    sum_gamma = tl.zeros((BLOCK,), tl.float32)
    sum_beta = tl.zeros((BLOCK,), tl.float32)
    row = program * chunk
    last = tl.minimum(row + chunk, rows)
    while row < last:
        value = tl.load(h + row * half + at, mask=inside, other=0).to(tl.float32)
        before = value
        if NORM:  # two sums over a row at hand are cheaper than statistics in memory
            centred = tl.where(inside, value - tl.sum(value, 0) / half, 0.0)
            scale = 1 / tl.sqrt(tl.sum(centred * centred, 0) / half + eps)
            normal = centred * scale
            before = normal * weight + offset
        mask = tl.maximum(before, 0.0)
        place = row * 2 * half + at
        sent_1 = tl.load(sent + place, mask=inside, other=0).to(tl.float32)
        sent_2 = tl.load(sent + place + half, mask=inside, other=0).to(tl.float32)
        cross_1 = sent_1 * tl.load(x0 + place, mask=inside, other=0).to(tl.float32)
        cross_2 = sent_2 * tl.load(x0 + place + half, mask=inside, other=0).to(tl.float32)
        sum_1 += cross_1
        sum_2 += cross_2
        first_1 = sent_1 * (value + bias_1)
        first_2 = sent_2 * (value * mask + bias_2)
        if SAME:  # x0 is x, which the shortcut reaches too
            first_1 += sent_1
            first_2 += sent_2
        tl.store(grad_x0 + place, first_1, mask=inside)
        tl.store(grad_x0 + place + half, first_2, mask=inside)
        grad = cross_1 + cross_2 * mask
        through = tl.where(before > 0, cross_2 * value, 0.0)
        if NORM:
            sum_gamma += through * normal
            sum_beta += through
            through = through * weight
            along = normal * (tl.sum(through * normal, 0) / half)
            through = scale * (through - tl.sum(through, 0) / half - along)
        tl.store(grad_h + row * half + at, grad + through, mask=inside)
        row += 1
    own = sums + program * (4 if NORM else 2) * half + at
    tl.store(own, sum_1, mask=inside)
    tl.store(own + half, sum_2, mask=inside)
    if NORM:
        tl.store(own + 2 * half, sum_gamma, mask=inside)
        tl.store(own + 3 * half, sum_beta, mask=inside)


def _block(half: int) -> dict[str, int]:
    block = 1 << (half - 1).bit_length()
    return {"BLOCK": block, "num_warps": max(block // 256, 1)}


def _common_dtype(*tensors: Tensor | None) -> torch.dtype:
    return reduce(torch.promote_types, [t.dtype for t in tensors if t is not None])


@torch.library.custom_op("sixfold::cross_epilogue", mutates_args=(), device_types=DEVICES)
def cross_epilogue_fused(
    h: Tensor,
    x: Tensor,
    bias: Tensor,
    x0: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    eps: float,
) -> Tensor:
    """Launch the forward kernel; the arguments are those of the reference."""
    half, rows = h.shape[-1], h.numel() // max(h.shape[-1], 1)
    y = x.new_empty(x.shape, dtype=_common_dtype(h, x, bias, x0))
    h, x, bias = h.contiguous(), x.contiguous(), bias.contiguous()
    x0 = x if x0 is None else x0.contiguous()
    scale, offset = (bias if v is None else v.contiguous() for v in (gamma, beta))
    if y.numel():
        _forward[(rows,)](
            h, x, x0, bias, scale, offset, y, half, eps, NORM=gamma is not None, **_block(half)
        )
    return y


@cross_epilogue_fused.register_fake
def _(h, x, bias, x0, gamma, beta, eps):
    return x.new_empty(x.shape, dtype=_common_dtype(h, x, bias, x0))


@torch.library.custom_op("sixfold::cross_epilogue_backward", mutates_args=(), device_types=DEVICES)
def cross_epilogue_backward(
    sent: Tensor,
    h: Tensor,
    x: Tensor,
    bias: Tensor,
    x0: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of h and of x0 (of x, if there is no x0), and sums over rows.

    The sums are the gradients of the halves of bias and, with a norm, of gamma and beta.
    """
    half, rows = h.shape[-1], h.numel() // max(h.shape[-1], 1)
    same, norm = x0 is None, gamma is not None
    first = x if x0 is None else x0
    grad_h, grad_first = h.new_empty(h.shape), first.new_empty(first.shape)
    chunk = -(-rows // PROGRAMS) or 1
    programs = -(-rows // chunk)
    sums = h.new_empty((programs, 4 if norm else 2, half), dtype=torch.float32)
    if h.numel():
        sent, h, first, bias = (v.contiguous() for v in (sent, h, first, bias))
        scale, offset = (bias if v is None else v.contiguous() for v in (gamma, beta))
        _backward[(programs,)](
            sent, h, first, bias, scale, offset, grad_h, grad_first, sums, rows, chunk, half, eps,
            SAME=same, NORM=norm, **_block(half),
        )  # fmt: skip
    return grad_h, grad_first, sums.sum(0)


@cross_epilogue_backward.register_fake
def _(sent, h, x, bias, x0, gamma, beta, eps):
    first = x if x0 is None else x0
    sums = (2 if gamma is None else 4, h.shape[-1])
    return h.new_empty(h.shape), first.new_empty(first.shape), h.new_empty(sums).float()


def _setup(ctx, inputs, output):
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _pull(ctx, sent):
    h, x, bias, x0, gamma, beta = ctx.saved_tensors
    if torch.is_grad_enabled():
        reference = partial(cross_epilogue_reference, eps=ctx.eps)
        needed = ctx.needs_input_grad[:6]
        return *reference_vjp("cross_epilogue", reference, ctx.saved_tensors, needed, sent), None
    grad_h, grad_first, sums = cross_epilogue_backward(sent, h, x, bias, x0, gamma, beta, ctx.eps)
    grads = [grad_h, sent.to(x.dtype), sums[:2].flatten().to(bias.dtype), grad_first, None, None]
    if x0 is None:
        grads[1], grads[3] = grad_first, None
    if gamma is not None and beta is not None:
        grads[4:] = sums[2].to(gamma.dtype), sums[3].to(beta.dtype)
    return *grads, None


cross_epilogue_fused.register_autograd(_pull, setup_context=_setup)
