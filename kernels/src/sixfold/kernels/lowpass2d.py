"""Ideal low-pass filters of an image: keep the box |f_y| < t, |f_x| < t of its spectrum.

FDConv's band modulation takes three such boxes of one image, usually by an FFT and three inverse
ones. A box is an outer product, so the filter is separable: on the orthonormal real Fourier basis
(1, cos, sin, cos, ...) of either axis it keeps the first few coefficients and drops the rest,

    low = U_y[:, :a] (U_y^T x U_x)[:a, :b] U_x[:, :b]^T

and boxes inside one another share the coefficients. That is matrix products with a few columns, in
real numbers, in the input's own layout: no complex tensor, and each image is read once.

The official code makes the masks on a grid of 64 x 64 and resizes them with nearest interpolation,
so for other sizes a box differs a little from the exact one; and for most heights the rows +f and
-f are not kept alike. Half of such a frequency is kept as it is; the other half turns by a quarter
period along both axes (cos to sin), which is one more small matrix on the coefficients. Large
images take the FFT.
"""

import math
import struct
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.kernels._tables import tables

GRID = 64  # the official masks' size
PRODUCT_SIZE = 128  # images above it take the FFT


Box = tuple[tuple[bool, ...], tuple[bool, ...]]  # which rows and columns are kept


def lowpass2d(
    x: Float[Tensor, "*batch height width"], cutoffs: Sequence[float]
) -> list[Float[Tensor, "*batch height width"]]:
    """Return the image low-passed at each cutoff, in cycles per pixel (0.5 keeps nearly all).

    Args:
        x: Images, whose size is a constant in compiled and exported graphs.
        cutoffs: Cutoff frequencies; those below ``cutoff + 1e-8`` are kept. The official code
            compares in float32, so a cutoff of 0.25 keeps less than 0.25, one of 0.125 keeps 0.125
            too.

    Raises:
        ValueError: a cutoff is negative, or the image has no pixels.
    """
    # Under torch.compile the lengths of ranges are constants, though sizes may be symbols.
    height, width = (len(range(size)) for size in x.shape[-2:])
    if min(height, width) < 1 or any(not cutoff >= 0 for cutoff in cutoffs):
        raise ValueError(
            f"lowpass2d: x should have pixels and cutoffs should be 0 or above, got x "
            f"{tuple(x.shape)} and cutoffs {list(cutoffs)}"
        )
    if not cutoffs:
        return []
    boxes = [_box(height, width, float(cutoff)) for cutoff in cutoffs]
    if max(height, width) > PRODUCT_SIZE:
        return _by_fft(x, boxes)
    return _by_products(x, boxes, height, width)


def _by_products(x: Tensor, boxes: Sequence[Box], height: int, width: int) -> list[Tensor]:
    """Filter on the real Fourier basis: analyse once, and synthesise for each box."""
    kept = [(_highest(rows), sum(columns) - 1) for rows, columns in boxes]
    # A frequency is a cosine and a sine, the mean is alone.
    sizes = [(2 * row + 1, 2 * column + 1) for row, column in kept]
    (vertical,) = tables(_real_fourier, height, max(a for a, _ in sizes), like=x)
    (horizontal,) = tables(_real_fourier, width, max(b for _, b in sizes), like=x)
    spectrum = vertical.t() @ (x @ horizontal)
    lows = []
    for (a, b), (rows, _) in zip(sizes, boxes, strict=True):
        part = spectrum[..., :a, :b]
        first, last = _uneven(rows)
        (synthesis,) = tables(_synthesis, rows, a, like=x)
        if first <= last:
            (turn,) = tables(_quarter_turn, width, b, like=x)
            turned = part[..., 2 * first - 1 : 2 * last + 1, :] @ turn
            part = torch.cat([part, turned], -2)
        lows.append(synthesis @ (part @ horizontal[:, :b].t()))
    return lows


def _by_fft(x: Tensor, boxes: Sequence[Box]) -> list[Tensor]:
    if x.numel() == 0:  # which the FFT refuses
        return [torch.zeros_like(x) for _ in boxes]
    wide = x if x.dtype == torch.float64 else x.float()  # there is no FFT of half precision
    spectrum = torch.fft.rfft2(wide)
    lows = []
    for rows, columns in boxes:
        row_mask, column_mask = (
            torch.tensor(mask, dtype=wide.dtype, device=x.device) for mask in (rows, columns)
        )
        masked = spectrum * (row_mask[:, None] * column_mask)
        lows.append(torch.fft.irfft2(masked, s=x.shape[-2:]).to(x.dtype))
    return lows


def _box(height: int, width: int, cutoff: float) -> Box:
    """Return the official mask of the rows, and of the columns of the half spectrum."""
    limit = _float32(cutoff + 1e-8)
    columns = [f / GRID < limit for f in range(GRID // 2 + 1)]
    rows = columns + columns[-2:0:-1]
    return _nearest(rows, height), _nearest(columns, width // 2 + 1)


# What torch.compiler.assume_constant_result does, but that would import the compiler with us.
_box._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


def _nearest(mask: list[bool], size: int) -> tuple[bool, ...]:
    """Return the indices of torch's nearest interpolation, whose arithmetic is in float32."""
    step = _float32(len(mask) / size)
    return tuple(mask[min(int(_float32(i * step)), len(mask) - 1)] for i in range(size))


def _float32(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


def _real_fourier(size: int, count: int) -> tuple[Float[Tensor, "size count"]]:
    """Return the first columns of the real Fourier basis."""
    column = torch.arange(count)
    frequency = (column + 1) // 2
    # Whole turns are taken off in whole numbers: large angles would lose digits.
    turns = (torch.arange(size)[:, None] * frequency) % size
    angle = turns.double() * (2 * math.pi / size)
    wave = torch.where((column == 0) | (column % 2 == 1), angle.cos(), angle.sin())
    alone = (frequency == 0) | (2 * frequency == size)  # a cosine without its sine
    return (wave * torch.where(alone, 1.0, 2.0).double().div(size).sqrt(),)


def _highest(rows: tuple[bool, ...]) -> int:
    """Return the highest frequency that is kept at all; 0 is the mean, which always is."""
    size = len(rows)
    return max(f for f in range(size // 2 + 1) if rows[f] or rows[-f])


def _uneven(rows: tuple[bool, ...]) -> tuple[int, int]:
    """Return the first and last frequency of which one sign is kept; first > last if none is."""
    uneven = [f for f in range(1, len(rows) // 2 + 1) if rows[f] != rows[-f]]
    return (uneven[0], uneven[-1]) if uneven else (1, 0)


def _synthesis(rows: tuple[bool, ...], count: int) -> tuple[Float[Tensor, "size columns"]]:
    """Return what makes rows of coefficients, and behind them of the turned ones."""
    size = len(rows)
    (basis,) = _real_fourier(size, count)
    signs = [(rows[(i + 1) // 2 % size], rows[-((i + 1) // 2)]) for i in range(count)]
    plus, minus = torch.tensor(signs, dtype=torch.float64).unbind(1)
    even, odd = (plus + minus) / 2, (plus - minus) / 2
    first, last = _uneven(rows)
    if first > last:
        return (basis * even,)
    # A turn along the rows: the cosine of an uneven frequency becomes its sine, the sine -cosine.
    (turn,) = _quarter_turn(size, count)
    turned = (basis * odd) @ turn
    return (torch.cat([basis * even, turned[:, 2 * first - 1 : 2 * last + 1]], 1),)


def _quarter_turn(size: int, count: int) -> tuple[Float[Tensor, "count count"]]:
    """Return the matrix that makes, of a row (cos, sin) of coefficients, the row (sin, -cos)."""
    turn = [[0.0] * count for _ in range(count)]
    for f in range(1, (count + 1) // 2):
        if 2 * f < size:  # the highest cosine of an even size has no sine
            turn[2 * f][2 * f - 1], turn[2 * f - 1][2 * f] = 1.0, -1.0
    return (torch.tensor(turn, dtype=torch.float64),)
