"""FDConv's kernel for each sample: a weighted sum of bases, modulated by up to four factors.

    W[b, o, i, t] = spatial[b, t] channel[b, i] filter[b, o] gate[b, o, i, t] mixture[b, o, i, t]

with mixture = sum_g attention[b, g] basis[g] and gate = mult sigmoid(logit) or 1 + tanh(logit).
In eager mode a matrix product writes the mixture and every factor reads and writes it again, some
ten passes over batch * kernel numbers. The fused kernel reads the logits once, the basis once for
every eight samples, and writes W once. Only the inputs are kept for the backward pass, which
computes the mixture again and is one kernel between matrix products.
"""

from functools import partial, reduce
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.kernels._dispatch import DEVICES, jit, reference_vjp, tl, use_fused

SAMPLES, PLACES, ROWS = 8, 256, 16  # of a program: samples, (in, tap) places, output channels
LARGEST_GRID = 65535


def fdconv_weight(
    attention: Float[Tensor, "batch members"] | None,
    basis: Float[Tensor, "members out in kh kw"],
    spatial: Float[Tensor, "batch 1 1 kh kw"] | None = None,
    channel: Float[Tensor, "batch 1 in 1 1"] | None = None,
    filter: Float[Tensor, "batch out 1 1 1"] | None = None,
    local_logit: Float[Tensor, "batch out in kh kw"] | None = None,
    mult: float = 2.0,
    *,
    activation: Literal["sigmoid", "tanh"] = "sigmoid",
) -> Float[Tensor, "batch out in kh kw"]:
    """Return a convolution kernel for each sample. A factor that is None counts as 1.

    Args:
        attention: Weight of each member of the basis; None if ``basis`` holds a kernel for each
            sample already, as `fdconv_mixture` returns.
        basis: Members of the basis, from `fdconv_basis`.
        spatial: Factor of each tap.
        channel: Factor of each input channel.
        filter: Factor of each output channel.
        local_logit: Logits of a gate for each entry of the kernel, in any memory layout.
        mult: Factor of the sigmoid; not used by tanh.
        activation: Activation of the logits.

    Raises:
        ValueError: sizes do not agree, or there is no such activation.
    """
    batch, shape = (basis if attention is None else attention).shape[0], basis.shape[1:]
    _check(attention, basis, (spatial, channel, filter, local_logit), batch)
    if activation not in ("sigmoid", "tanh"):
        raise ValueError(f"fdconv_weight: activation should be sigmoid or tanh, got {activation!r}")
    many = None if shape[0] <= LARGEST_GRID else f"{shape[0]} output channels are too many"
    given = (attention, basis, spatial, channel, filter, local_logit, float(mult), activation)
    if use_fused("fdconv_weight", *given[:6], unsupported=many):
        return fdconv_weight_fused(*given)
    return fdconv_weight_reference(*given)


def _check(attention, basis, factors, batch: int) -> None:
    members, (out, inputs, height, width) = basis.shape[0], basis.shape[1:]
    expected = {
        "spatial": (batch, 1, 1, height, width),
        "channel": (batch, 1, inputs, 1, 1),
        "filter": (batch, out, 1, 1, 1),
        "local_logit": (batch, out, inputs, height, width),
    }
    given = dict(zip(expected, factors, strict=True))
    if attention is not None:
        expected["attention"], given["attention"] = (batch, members), attention
    for name, value in given.items():
        if value is not None and value.shape != expected[name]:
            raise ValueError(
                f"fdconv_weight: a basis {tuple(basis.shape)} and {batch} samples need {name} "
                f"{expected[name]}, got {tuple(value.shape)}"
            )


def fdconv_weight_reference(
    attention: Tensor | None,
    basis: Tensor,
    spatial: Tensor | None,
    channel: Tensor | None,
    filter: Tensor | None,
    local_logit: Tensor | None,
    mult: float,
    activation: str,
) -> Tensor:
    """Compute the kernels in plain PyTorch: a matrix product and a chain that compilers fuse."""
    small = [value for value in (spatial, channel) if value is not None]
    if local_logit is not None and activation == "sigmoid" and filter is not None:
        filter, mult = filter * mult, 1.0  # where it costs least
    weight = basis
    if attention is not None:
        weight = (attention @ basis.flatten(1)).unflatten(1, basis.shape[1:])
    for factor in (reduce(torch.mul, small) if small else None, filter):
        weight = weight if factor is None else weight * factor
    if local_logit is None:
        return weight if weight is not basis else weight.clone()
    if activation == "tanh":
        return torch.addcmul(weight, weight, local_logit.tanh())
    gated = weight * local_logit.sigmoid()
    return gated if mult == 1 else gated * mult


@jit
def _forward(
    attention, basis, spatial, channel, filter, logit, weight, batch, places, taps, members,
    logit_batch, logit_out, logit_in, logit_tap, mult,
    MIXED: tl.constexpr, SPATIAL: tl.constexpr, CHANNEL: tl.constexpr, FILTER: tl.constexpr,
    LOGIT: tl.constexpr, TANH: tl.constexpr, SAMPLES: tl.constexpr, PLACES: tl.constexpr,
):  # fmt: skip
    """Compute, a program, one output channel, a block of places and a block of samples."""
    place = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    row, rows = tl.program_id(1).to(tl.int64), tl.num_programs(1).to(tl.int64)
    sample = tl.program_id(2).to(tl.int64) * SAMPLES + tl.arange(0, SAMPLES)
    seen, here = place < places, sample < batch
    both = here[:, None] & seen[None, :]
    size = rows * places
    at = sample[:, None] * size + row * places + place[None, :]
    if MIXED:
        value = tl.load(basis + at, mask=both, other=0).to(tl.float32)
    else:
        value = tl.zeros((SAMPLES, PLACES), tl.float32)
        member = 0
        while member < members:
            part = tl.load(basis + member * size + row * places + place, mask=seen, other=0)
            share = tl.load(attention + sample * members + member, mask=here, other=0)
            value += share.to(tl.float32)[:, None] * part.to(tl.float32)[None, :]
            member += 1
    tap, inputs = place % taps, place // taps
    if SPATIAL:
        where = spatial + sample[:, None] * taps + tap[None, :]
        value = value * tl.load(where, mask=both, other=0).to(tl.float32)
    if CHANNEL:
        where = channel + sample[:, None] * (places // taps) + inputs[None, :]
        value = value * tl.load(where, mask=both, other=0).to(tl.float32)
    if FILTER:
        where = filter + sample * rows + row
        value = value * tl.load(where, mask=here, other=0).to(tl.float32)[:, None]
    if LOGIT:
        of_place = inputs.to(tl.int64) * logit_in + tap * logit_tap
        where = logit + sample[:, None] * logit_batch + row * logit_out + of_place[None, :]
        raw = tl.load(where, mask=both, other=0).to(tl.float32)
        value = value * tl.sigmoid(2 * raw if TANH else raw) * (2.0 if TANH else mult)
    tl.store(weight + at, value, mask=both)


@jit
def _backward(
    sent, mixture, spatial, channel, filter, logit,
    grad_mixture, grad_logit, by_place, by_filter, batch, rows, places, taps,
    logit_batch, logit_out, logit_in, logit_tap,
    grad_batch, grad_out, grad_in, grad_tap, mult,
    SPATIAL: tl.constexpr, CHANNEL: tl.constexpr, FILTER: tl.constexpr, LOGIT: tl.constexpr,
    TANH: tl.constexpr, SAMPLES: tl.constexpr, PLACES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Process ``ROWS`` output channels; each program writes its own sums over them and the places.

    by_place is (row blocks, batch, places), by_filter is (place blocks, batch, rows).
    """
    block, row_block = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    sample = tl.program_id(2).to(tl.int64) * SAMPLES + tl.arange(0, SAMPLES)
    here = sample < batch
    both = here[:, None] & (place < places)[None, :]
    tap, inputs = place % taps, place // taps
    of_place = inputs.to(tl.int64) * logit_in + tap * logit_tap
    of_grad = inputs.to(tl.int64) * grad_in + tap * grad_tap
    shared = tl.full((SAMPLES, PLACES), 1.0, tl.float32)
    if SPATIAL:
        where = spatial + sample[:, None] * taps + tap[None, :]
        shared = shared * tl.load(where, mask=both, other=0).to(tl.float32)
    if CHANNEL:
        where = channel + sample[:, None] * (places // taps) + inputs[None, :]
        shared = shared * tl.load(where, mask=both, other=0).to(tl.float32)
    total = tl.zeros((SAMPLES, PLACES), tl.float32)
    row = row_block * ROWS
    last = tl.minimum(row + ROWS, rows)
    while row < last:
        at = (sample[:, None] * rows + row) * places + place[None, :]
        mixed = tl.load(mixture + at, mask=both, other=0).to(tl.float32)
        grad = tl.load(sent + at, mask=both, other=0).to(tl.float32)
        own = tl.full((SAMPLES,), 1.0, tl.float32)
        if FILTER:
            own = tl.load(filter + sample * rows + row, mask=here, other=0).to(tl.float32)
        if LOGIT:
            here_logit = sample[:, None] * logit_batch + row * logit_out + of_place[None, :]
            raw = tl.load(logit + here_logit, mask=both, other=0).to(tl.float32)
            raw = raw * (2.0 if TANH else 1.0)
            gate = tl.sigmoid(raw) * (2.0 if TANH else mult)
            slope = gate * tl.sigmoid(-raw) * (2.0 if TANH else 1.0)
            here_grad = sample[:, None] * grad_batch + row * grad_out + of_grad[None, :]
            change = grad * mixed * shared * own[:, None] * slope
            tl.store(grad_logit + here_grad, change, mask=both)
            grad = grad * gate
        tl.store(grad_mixture + at, grad * shared * own[:, None], mask=both)
        through = grad * mixed
        total += through * own[:, None]
        own_sum = by_filter + (block * batch + sample) * rows + row
        tl.store(own_sum, tl.sum(through * shared, 1), mask=here)
        row += 1
    where = by_place + (row_block * batch + sample[:, None]) * places + place[None, :]
    tl.store(where, total, mask=both)


def _options(batch: int, places: int, factors: list[Tensor | None], activation: str) -> dict:
    names = ("SPATIAL", "CHANNEL", "FILTER", "LOGIT")
    given = {name: value is not None for name, value in zip(names, factors, strict=True)}
    samples, block = (1 << (size - 1).bit_length() for size in (batch, places))
    tile = {"SAMPLES": min(samples, SAMPLES), "PLACES": min(block, PLACES)}
    return {**given, "TANH": activation == "tanh", **tile}


def _one_tap_axis(logit: Tensor) -> Tensor:
    """Return the logits with one stride for both axes of taps; a transposed layout is kept."""
    fits = logit.stride(3) == logit.shape[4] * logit.stride(4)
    return logit if fits or 1 in logit.shape[3:] else logit.contiguous()


def _strides(logit: Tensor) -> list[int]:
    """Return the strides of batch, out, in and tap; an axis of length one does not count."""
    tap = logit.stride(3) if logit.shape[4] == 1 else logit.stride(4)
    return [*logit.stride()[:3], tap]


def _result(basis: Tensor, tensors: list[Tensor | None]) -> Tensor:
    given = [tensor for tensor in tensors if tensor is not None]
    dtype = reduce(torch.promote_types, [tensor.dtype for tensor in given], basis.dtype)
    batch = given[0].shape[0] if given and tensors[0] is not None else basis.shape[0]
    return basis.new_empty((batch, *basis.shape[1:]), dtype=dtype)


def _dense(tensors: list[Tensor | None], stand_in: Tensor) -> list[Tensor]:
    return [stand_in if tensor is None else tensor.contiguous() for tensor in tensors]


@torch.library.custom_op("sixfold::fdconv_weight", mutates_args=(), device_types=DEVICES)
def fdconv_weight_fused(
    attention: Tensor | None,
    basis: Tensor,
    spatial: Tensor | None,
    channel: Tensor | None,
    filter: Tensor | None,
    local_logit: Tensor | None,
    mult: float,
    activation: str,
) -> Tensor:
    """Launch the forward kernel; the arguments are those of the reference."""
    factors = [spatial, channel, filter, local_logit]
    weight = _result(basis, [attention, *factors])
    if not weight.numel():
        return weight
    batch, rows, inputs, height, width = weight.shape
    places = inputs * height * width
    options = _options(batch, places, factors, activation)
    basis = basis.contiguous()
    small = _dense([attention, spatial, channel, filter], basis)
    logit = basis if local_logit is None else _one_tap_axis(local_logit)
    grid = (-(-places // options["PLACES"]), rows, -(-batch // options["SAMPLES"]))
    _forward[grid](
        small[0], basis, *small[1:], logit, weight, batch, places, height * width,
        basis.shape[0], *_strides(logit), mult, MIXED=attention is None, **options,
    )  # fmt: skip
    return weight


@fdconv_weight_fused.register_fake
def _(attention, basis, spatial, channel, filter, local_logit, mult, activation):
    return _result(basis, [attention, spatial, channel, filter, local_logit])


def _grad_places(sent: Tensor, local_logit: Tensor | None) -> tuple[Tensor, Tensor]:
    """Allocate the gradients of the mixture and of the logits, the latter in their layout."""
    mixture = sent.new_empty(sent.shape)
    if local_logit is None:
        return mixture, sent.new_empty(0)
    grad = torch.empty_like(local_logit)
    if _one_tap_axis(grad) is not grad:
        grad = local_logit.new_empty(local_logit.shape)
    return mixture, grad


@torch.library.custom_op("sixfold::fdconv_weight_backward", mutates_args=(), device_types=DEVICES)
def fdconv_weight_backward(
    sent: Tensor,
    attention: Tensor | None,
    basis: Tensor,
    spatial: Tensor | None,
    channel: Tensor | None,
    filter: Tensor | None,
    local_logit: Tensor | None,
    mult: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return gradients of the mixture and of the logits, and two sums of the product rule.

    The sums are over the output channels, (batch, 1, in, kh, kw), without the factors of tap and
    input channel, and over all the rest, (batch, out), without the filter's factor.
    """
    batch, rows, inputs, height, width = sent.shape
    grad_mixture, grad_logit = _grad_places(sent, local_logit)
    places = inputs * height * width
    factors = [spatial, channel, filter, local_logit]
    options = _options(batch, places, factors, activation)
    blocks, row_blocks = -(-places // options["PLACES"]), -(-rows // ROWS)
    by_place = sent.new_empty((row_blocks, batch, places), dtype=torch.float32)
    by_filter = sent.new_empty((blocks, batch, rows), dtype=torch.float32)
    if sent.numel():
        mixture = basis
        if attention is not None:
            mixture = attention.to(sent.dtype) @ basis.flatten(1).to(sent.dtype)
        mixture = mixture.contiguous()
        logit = mixture if local_logit is None else _one_tap_axis(local_logit)
        strides = (0,) * 8 if local_logit is None else (*_strides(logit), *_strides(grad_logit))
        _backward[(blocks, row_blocks, -(-batch // options["SAMPLES"]))](
            sent.contiguous(), mixture, *_dense(factors[:3], mixture), logit,
            grad_mixture, grad_logit, by_place, by_filter, batch, rows, places, height * width,
            *strides, mult, **options, ROWS=ROWS, num_warps=8,
        )  # fmt: skip
    summed = by_place.sum(0).view(batch, 1, inputs, height, width)
    return grad_mixture, grad_logit, summed, by_filter.sum(0)


@fdconv_weight_backward.register_fake
def _(sent, attention, basis, spatial, channel, filter, local_logit, mult, activation):
    by_place = (sent.shape[0], 1, *sent.shape[2:])
    sums = [sent.new_empty(s, dtype=torch.float32) for s in (by_place, sent.shape[:2])]
    return *_grad_places(sent, local_logit), *sums


def _setup(ctx, inputs, output):
    *tensors, ctx.mult, ctx.activation = inputs
    ctx.save_for_backward(*tensors)


def _pull(ctx, sent):
    tensors = ctx.saved_tensors
    if torch.is_grad_enabled():
        reference = partial(fdconv_weight_reference, mult=ctx.mult, activation=ctx.activation)
        needed = ctx.needs_input_grad[:6]
        return *reference_vjp("fdconv_weight", reference, tensors, needed, sent), None, None
    attention, basis, spatial, channel, filter, logit = tensors
    mixture, grad_logit, by_place, by_filter = fdconv_weight_backward(
        sent, *tensors, ctx.mult, ctx.activation
    )
    grads: list[Tensor | None] = [None, mixture, None, None, None, None]
    if attention is not None:
        flat, members = mixture.flatten(1), basis.flatten(1).to(mixture.dtype)
        grads[0] = flat @ members.t()
        grads[1] = (attention.to(flat.dtype).t() @ flat).view(basis.shape)
    if spatial is not None:
        grads[2] = (by_place if channel is None else by_place * channel).sum(2, keepdim=True)
    if channel is not None:
        grads[3] = (by_place if spatial is None else by_place * spatial).sum((3, 4), keepdim=True)
    if filter is not None:
        grads[4] = by_filter.view(filter.shape)
    if logit is not None:
        grads[5] = grad_logit
    pairs = zip(grads, tensors, strict=True)
    return *(None if grad is None else grad.to(value.dtype) for grad, value in pairs), None, None


fdconv_weight_fused.register_autograd(_pull, setup_context=_setup)
