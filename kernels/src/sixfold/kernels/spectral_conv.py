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
"""

import contextlib
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.kernels._tables import tables

# First (+) or last (-) modes of each axis but the half one, in the order in which the published
# codes number and assign the blocks. Where blocks overlap, the later one overwrites.
CORNERS = {
    1: ("",),
    2: ("+", "-"),
    3: ("++", "-+", "+-", "--"),
    4: ("+++", "-++", "+-+", "--+", "-+-", "++-", "+--", "---"),
}
PRODUCTS_PER_TRANSFORM = 16  # multiply-adds in the time of one n log2(n) (on one CPU)


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
    form = _by_fft if overlap or _fft_is_cheaper(sizes, kept) else _by_matmul
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
    half = tables(_half_dft, sizes[-1], kept[-1], like=x)
    y = half[0] @ x.reshape(-1, sizes[-1]).T
    full = [tables(_dft, n, k, like=x) for n, k in zip(sizes[:-1], kept[:-1], strict=True)]
    for (on_re, on_im, _), n in zip(full[::-1], sizes[-2::-1], strict=True):
        re, im = y.view(2, -1, n)
        y = torch.addmm(on_re @ re.T, on_im, im.T)
    y = _mix(y.view(2, math.prod(kept), *x.shape[:2]).movedim(0, 1), weight)
    for _, _, inverse in full:
        y = torch.bmm(y.reshape(inverse.shape[1], -1).T.expand(2, -1, -1), inverse)
    y = y.reshape(2 * kept[-1], -1).T @ half[1]
    return y.view(x.shape[0], weight.shape[-2], *sizes)


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
    weight = weight.reshape(count, channels, -1)
    products = torch.bmm(x.reshape(count, 2 * batch, channels), weight)
    products = products.view(count, 2, batch, -1, 2)
    (rere, reim), (imre, imim) = (part.unbind(-1) for part in products.unbind(1))
    return torch.stack((rere - imim, reim + imre))


def _half_dft(n: int, kept: int):
    """Return cos and -sin of the first modes (2 kept, n), and the inverse of a real signal."""
    mode, place = torch.arange(kept, dtype=torch.float64), torch.arange(n, dtype=torch.float64)
    angle = 2 * math.pi / n * (mode[:, None] * place % n)
    waves = torch.cat((angle.cos(), -angle.sin()))
    # Modes 0 and n / 2 occur once in the full spectrum; their sine, an imaginary part, is zero.
    count = torch.where((mode == 0) | (2 * mode == n), 1, 2).to(waves) / n
    return waves, waves * count.repeat(2)[:, None]


def _dft(n: int, kept: int):
    """Return the DFT of real and of imaginary parts (2 kept, n), and the inverse of a pair."""
    mode = torch.arange(kept, dtype=torch.float64)
    mode = torch.where(mode < kept // 2, mode, mode + n - kept)
    angle = 2 * math.pi / n * (mode[:, None] * torch.arange(n, dtype=torch.float64) % n)
    cos, sin = angle.cos(), angle.sin()
    on_re, on_im = torch.cat((cos, -sin)), torch.cat((sin, cos))
    return on_re, on_im, torch.stack((on_re, on_im)) / n


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
