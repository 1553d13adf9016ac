"""Fourier layer of neural operators: mix channels at the lowest modes, drop the other modes.

    y[b, o] = irfftn( sum_i weight[modes, i, o] rfftn(x)[b, i, modes] ), zero at all other modes

The half axis is the last one: its first m modes count. Every other axis keeps its first and its
last m modes; each combination of first and last is a corner block with its own complex weights.

Full transforms cost more than the mixing, and most of what they compute is thrown away. The
truncated form multiplies axis after axis, the half axis first, by the m (or 2 m) rows of the DFT
matrix that are kept, so the tensor shrinks at once. Each product takes the last axis and puts its
modes in front: nothing is transposed, and the modes arrive as the batch of one matrix product with
weights that lie in memory as it reads them. Spectra are pairs of reals, so the graph is made of
real matrix products, which compile and export. Where many modes are kept, FFTs cost less: over the
half axis first, then over the others for its kept modes only.

On a CPU the products go over a few channels at a time, and the mixing over a few modes: beside the
result, only the two spectra of kept modes are ever whole. The transforms to modes and to points are
each other's transpose with their matrices exchanged, so the gradient is made of the same products;
it keeps the kept modes of x. Traced, on other devices and for gradients of gradients the same
products are one graph.
"""

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from sixfold.kernels._truncated_dft import (
    all_to_modes,
    all_to_points,
    matrices,
    to_lines,
    to_modes,
)

# First (+) or last (-) modes of each axis but the half one, in the order in which the published
# codes number and assign the blocks. Where blocks overlap, the later one overwrites.
CORNERS = {
    1: ("",),
    2: ("+", "-"),
    3: ("++", "-+", "+-", "--"),
    4: ("+++", "-++", "+-+", "--+", "-+-", "++-", "+--", "---"),
}
PRODUCTS_PER_TRANSFORM = 16  # multiply-adds in the time of one n log2(n) (on one CPU)
MIXED = 2**11  # modes that it mixes at a time


def spectral_conv(
    x: Float[Tensor, "batch in *sizes"], weight: Float[Tensor, "*kept in out 2"]
) -> Float[Tensor, "batch out *sizes"]:
    """Mix the channels of the kept modes, over one to four axes.

    Computes in the weight's precision, under autocast too: half precision is too coarse for a DFT.

    Args:
        x: Real fields.
        weight: Complex weights as pairs of reals: for each axis of x but the last its first and
            its last m modes (2 m in all), for the last its first m; see `merge_corners`.

    Raises:
        ValueError: sizes do not fit, or the weight has more modes than x; the message names both.
    """
    _check(x, weight)
    sizes, kept = tuple(x.shape[2:]), tuple(weight.shape[:-3])
    overlap = any(k > n for k, n in zip(kept[:-1], sizes[:-1], strict=True))
    # no FFT of an empty batch; a product of matrices is one
    fft = x.shape[0] > 0 and (overlap or _fft_is_cheaper(sizes, kept))
    form = _by_fft if fft else _by_matmul
    with _no_autocast(x.device.type):
        return form(x.to(weight.dtype), weight, sizes, kept).to(x.dtype)


def merge_corners(blocks: Sequence[Tensor]) -> Float[Tensor, "*kept in out 2"]:
    """Merge complex blocks (in, out, modes...), in the order of `CORNERS`, into one weight.

    Raises:
        ValueError: there are more or fewer blocks than corners.
    """
    axes = blocks[0].ndim - 2
    if len(blocks) != len(CORNERS[axes]):
        raise ValueError(
            f"merge_corners: blocks of {axes} axes have {len(CORNERS[axes])} corners, "
            f"got {len(blocks)} blocks"
        )
    modes = blocks[0].shape[2:]
    kept = [2 * m for m in modes[:-1]] + [modes[-1]]
    weight = torch.view_as_real(blocks[0]).new_empty(*kept, *blocks[0].shape[:2], 2)
    for signs, block in zip(CORNERS[axes], blocks, strict=True):
        corner(weight, signs).copy_(torch.view_as_real(block).movedim((0, 1), (-3, -2)))
    return weight


def corner(weight: Tensor, signs: str) -> Tensor:
    """Return the view of one block, as ``corner(weight, "-+")``."""
    for axis, sign in enumerate(signs):
        modes = weight.shape[axis] // 2
        weight = weight.narrow(axis, modes if sign == "-" else 0, modes)
    return weight


def _by_matmul(x: Tensor, weight: Tensor, sizes, kept) -> Tensor:
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        return _InParts.apply(x, weight)
    return _whole(x, weight, sizes, kept)


def _whole(x: Tensor, weight: Tensor, sizes, kept) -> Tensor:
    there, back = matrices(sizes, kept, x)
    spectrum = to_modes(x.reshape(-1, math.prod(sizes)), there)
    mixed = _mix(spectrum.unflatten(2, x.shape[:2]).movedim(0, 1), weight)
    y = to_lines(mixed.flatten(2), back) @ back[0]
    return y.view(x.shape[0], weight.shape[-2], *sizes)


class _InParts(Function):
    """The same as `_whole`, in pieces that fit the cache."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        sizes = tuple(x.shape[2:])
        there, back = matrices(sizes, tuple(weight.shape[:-3]), x)
        spectrum = all_to_modes(x, there)
        mixed = _mix_in_parts(spectrum, weight)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(x, weight, spectrum)
        del spectrum  # without a gradient, nothing else holds it
        return all_to_points(mixed, back, sizes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, _ = ctx.saved_tensors
        sizes, kept = tuple(x.shape[2:]), tuple(weight.shape[:-3])
        if torch.is_grad_enabled():  # for a gradient of this gradient
            y = _whole(x, weight, sizes, kept)
            wanted = [tensor for tensor in (x, weight) if tensor.requires_grad]
            found = iter(torch.autograd.grad(y, wanted, grad, create_graph=True))
            return tuple(next(found) if t.requires_grad else None for t in (x, weight))
        with _no_autocast(grad.device.type):
            return _InParts._gradients(ctx, grad, matrices(sizes, kept, x))

    @staticmethod
    def _gradients(ctx: Any, grad: Tensor, both: Any) -> Any:
        (x, weight, spectrum), (there, back) = ctx.saved_tensors, both
        grads = all_to_modes(grad, back)
        of_weight = _weight_gradient(spectrum, grads, weight) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, of_weight
        grads = _mix_in_parts(grads, weight, transposed=True)
        return all_to_points(grads, there, tuple(x.shape[2:])), of_weight


def _by_fft(x: Tensor, weight: Tensor, sizes, kept) -> Tensor:
    axes, modes = len(sizes), kept[-1]
    others = list(range(2, axes + 1))
    y = torch.fft.rfft(x)[..., :modes]
    y = torch.fft.fftn(y, dim=others) if others else y
    y = torch.view_as_real(y).movedim((-1, 0, 1), (-3, -2, -1))  # (modes..., 2, batch, in)
    mixed = y.new_zeros(2, *sizes[:-1], modes, x.shape[0], weight.shape[-2])
    for signs in CORNERS[axes]:
        block = corner(weight, signs)
        ends = zip(signs, block.shape[: axes - 1], strict=True)
        spots = [slice(m) if sign == "+" else slice(-m, None) for sign, m in ends]
        part = _mix(y[tuple(spots)].flatten(0, axes - 1), block)
        mixed[(slice(None), *spots)] = part.unflatten(1, block.shape[:axes])
    y = torch.view_as_complex(mixed.movedim((0, -2, -1), (-1, 0, 1)).contiguous())
    y = torch.fft.ifftn(y, dim=others) if others else y
    return torch.fft.irfft(y, sizes[-1])


def _mix(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply (modes, 2, batch, in) by weights (modes..., in, out, 2): (2, modes, batch, out)."""
    count, _, batch, channels = x.shape
    outputs = weight.shape[-2]
    weight = weight.reshape(count, channels, 2 * outputs)
    products = torch.bmm(x.reshape(count, 2 * batch, channels), weight)
    products = products.view(count, 2, batch, outputs, 2)  # no -1: a batch may be empty
    (rere, reim), (imre, imim) = (part.unbind(-1) for part in products.unbind(1))
    return torch.stack((rere - imim, reim + imre))


def _mix_in_parts(spectrum: Tensor, weight: Tensor, *, transposed: bool = False) -> Tensor:
    """Multiply (2, modes, batch, in) by weights, or by their conjugate transposes."""
    _, count, batch, _ = spectrum.shape
    weight = weight.flatten(0, -4)
    found = spectrum.new_empty(2, count, batch, weight.shape[1 if transposed else 2])
    parts = (spectrum.split(MIXED, 1), weight.split(MIXED), found.split(MIXED, 1))
    for x, w, into in zip(*parts, strict=True):
        if transposed:
            products = torch.bmm(_doubled(x), w.flatten(2).mT)
            into.copy_(products.unflatten(1, (2, batch)).movedim(1, 0))
        else:
            into.copy_(_mix(x.movedim(0, 1), w))
    return found


def _weight_gradient(spectrum: Tensor, grads: Tensor, weight: Tensor) -> Tensor:
    """Sum over the batch the conjugate of (2, modes, batch, in) times (2, modes, batch, out)."""
    found = torch.empty_like(weight, memory_format=torch.contiguous_format)
    parts = (spectrum.split(MIXED, 1), grads.split(MIXED, 1), found.flatten(0, -4).split(MIXED))
    for x, grad, into in zip(*parts, strict=True):
        rows = x.movedim(0, 1).flatten(1, 2)
        torch.bmm(rows.mT, _doubled(grad), out=into.flatten(2))
    return found


def _doubled(grads: Tensor) -> Tensor:
    """Return the gradients (mode, 2 batch, 2 out) of the products in `_mix`."""
    re, im = grads
    pairs = torch.stack((torch.stack((re, im), -1), torch.stack((im, -re), -1)), 1)
    return pairs.flatten(3).flatten(1, 2)


def _fft_is_cheaper(sizes, kept) -> bool:
    """Return whether n log2(n), one way, is below the multiply-adds of the matrix products."""
    rows, columns = math.prod(sizes[:-1]), kept[-1]
    products = 2 * rows * sizes[-1] * columns
    transforms = rows * sizes[-1] * math.log2(sizes[-1]) / 2
    left = rows
    for n, k in zip(sizes[-2::-1], kept[-2::-1], strict=True):
        products += 4 * left * columns * k
        transforms += rows * kept[-1] * math.log2(n)
        left, columns = left // n, columns * k
    return products > PRODUCTS_PER_TRANSFORM * transforms


def _no_autocast(device: str):
    on = torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else contextlib.nullcontext()


def _check(x: Tensor, weight: Tensor) -> None:
    shapes = f"got x {tuple(x.shape)} and weight {tuple(weight.shape)}"
    if not 3 <= x.ndim <= 6 or weight.ndim != x.ndim + 1 or weight.shape[-1] != 2:
        raise ValueError(
            "spectral_conv: x should be (batch, in, one to four axes) and weight (kept modes of "
            f"each axis, in, out, 2), {shapes}"
        )
    if x.shape[1] != weight.shape[-3]:
        raise ValueError(
            f"spectral_conv: x has {x.shape[1]} channels, weight reads {weight.shape[-3]}; {shapes}"
        )
    for axis, (n, k) in enumerate(zip(x.shape[2:], weight.shape, strict=False), start=2):
        last = axis == x.ndim - 1
        most = n // 2 + 1 if last else 2 * n
        if k > most or k < 1 or (k % 2 and not last):
            rule = f"1 to {most} modes" if last else f"an even number of modes from 2 to {most}"
            raise ValueError(
                f"spectral_conv: weight may keep {rule} of the {n} points of axis {axis} of x, "
                f"not {k}; {shapes}"
            )
    if weight.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"spectral_conv: weight should be float32 or float64, got {weight.dtype}; "
            "a DFT in half precision is too coarse"
        )
