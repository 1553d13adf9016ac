"""Derivatives of periodic fields in Fourier space, and the transforms between the two.

Fields have their three space axes last and contiguous, so that each transform reads memory in
order, and are real: half a spectrum holds all of one. A spectrum is a tensor of pairs, real and
imaginary part on the last axis, and only the transforms themselves see complex numbers.

With the wavenumbers k of `wavenumbers`, a derivative is a product with i k. The wavenumber of the
Nyquist mode of an axis counts as zero: a wave of alternating signs may as well run either way, so
the real part of its derivative vanishes.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from sixfold.kernels._tables import tables

SPACE = (-3, -2, -1)


def rfft3(field: Float[Tensor, "*lead x y z"]) -> Float[Tensor, "*lead x y half 2"]:
    """Transform real fields, with the mean as mode zero (the "forward" normalisation).

    PyTorch's own gradient takes a full complex transform; this one takes a half one.
    """
    return _Rfft3.apply(field)


def irfft3(spectrum: Float[Tensor, "*lead x y half 2"], z: int) -> Float[Tensor, "*lead x y z"]:
    """Undo `rfft3` for fields of ``z`` points on the last axis."""
    spectrum = torch.view_as_complex(spectrum.contiguous())
    return torch.fft.irfftn(spectrum, (*spectrum.shape[-3:-1], z), SPACE, norm="forward")


def times_i(spectrum: Float[Tensor, "*lead 2"]) -> Float[Tensor, "*lead 2"]:
    """Multiply pairs by the imaginary unit."""
    return torch.stack((-spectrum[..., 1], spectrum[..., 0]), -1)


def grad_hat(
    spectrum: Float[Tensor, "batch *lead x y half 2"], k: Float[Tensor, "3 x y half 2"]
) -> Float[Tensor, "batch 3 *lead x y half 2"]:
    """Differentiate along each axis of space; the axes come as axis 1."""
    along = k.view(3, *(1 for _ in range(spectrum.ndim - 5)), *k.shape[1:])
    return along * times_i(spectrum)[:, None]


def curl_hat(
    spectrum: Float[Tensor, "batch 3 *lead x y half 2"], k: Float[Tensor, "3 x y half 2"]
) -> Float[Tensor, "batch 3 *lead x y half 2"]:
    """Take the curl of vector fields."""
    u, v, w = times_i(spectrum).unbind(1)
    kx, ky, kz = k
    return torch.stack((ky * w - kz * v, kz * u - kx * w, kx * v - ky * u), 1)


def div_hat(
    spectrum: Float[Tensor, "batch 3 *lead x y half 2"], k: Float[Tensor, "3 x y half 2"]
) -> Float[Tensor, "batch *lead x y half 2"]:
    """Take the divergence of vector fields."""
    return times_i(_along(spectrum, k))


def project_div_free(
    spectrum: Float[Tensor, "batch 3 *lead x y half 2"], k: Float[Tensor, "3 x y half 2"]
) -> Float[Tensor, "batch 3 *lead x y half 2"]:
    """Subtract the gradient part of vector fields: what is left has no divergence."""
    unit = k / _nonzero_square(k)
    unit = unit.view(3, *(1 for _ in range(spectrum.ndim - 6)), *k.shape[1:])
    return torch.addcmul(spectrum, unit, _along(spectrum, k)[:, None], value=-1)


def inverse_laplacian_hat(
    spectrum: Float[Tensor, "*lead x y half 2"], k: Float[Tensor, "3 x y half 2"]
) -> Float[Tensor, "*lead x y half 2"]:
    """Solve Poisson's equation; the solution has no mean and no Nyquist modes of all axes."""
    return -spectrum * (k != 0).any(0) / _nonzero_square(k)


def wavenumbers(
    sizes: Sequence[int], box: Sequence[float], like: Tensor
) -> Float[Tensor, "3 x y half 2"]:
    """Return the wavenumbers of the modes of `rfft3`, in radians per unit of length.

    Args:
        sizes: Number of points along x, y and z.
        box: Lengths of a period along x, y and z.
        like: Field whose dtype and device the wavenumbers take.
    """
    return tables(_wavenumbers, tuple(sizes), tuple(box), like=like)[0]


def dealias_mask(sizes: Sequence[int], like: Tensor) -> Float[Tensor, "x y half 2"]:
    """Return one for the modes up to a third of the points of each axis, else zero.

    Of a product of two such fields, no mode that is kept is aliased; only if the points are a
    multiple of three the highest is, as in the published code.
    """
    return tables(_mask, tuple(sizes), like=like)[0]


def _along(spectrum: Tensor, k: Tensor) -> Tensor:
    """Sum the components along k."""
    first, second, third = spectrum.unbind(1)
    return torch.addcmul(torch.addcmul(k[0] * first, k[1], second), k[2], third)


def _nonzero_square(k: Tensor) -> Tensor:
    square = k.square().sum(0)
    return torch.where(square > 0, square, 1)


class _Rfft3(Function):
    @staticmethod
    def forward(ctx: Any, field: Tensor) -> Tensor:
        ctx.sizes = field.shape[-3:]
        return torch.view_as_real(torch.fft.rfftn(field, dim=SPACE, norm="forward"))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # The inverse counts a column as often as the full spectrum has it, the gradient once.
        once = 1 / (_counts(ctx.sizes[-1], grad) * math.prod(ctx.sizes))
        return irfft3(grad * once, ctx.sizes[-1])


def _counts(z: int, like: Tensor) -> Tensor:
    return tables(_column_counts, z, like=like)[0]


def _column_counts(z: int) -> tuple[Tensor]:
    """Return how many columns of the full spectrum each column of the half stands for."""
    mode = torch.arange(z // 2 + 1)
    return (torch.where((mode == 0) | (2 * mode == z), 1, 2)[:, None].expand(-1, 2),)


def _mode_numbers(sizes: Sequence[int]) -> list[Tensor]:
    """Number the modes along each axis, shaped to broadcast over half spectra of pairs."""
    x, y, z = sizes
    numbers = [torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) for n in (x, y)]
    numbers.append(torch.arange(z // 2 + 1, dtype=torch.float64))
    shapes = [(-1, 1, 1, 1), (1, -1, 1, 1), (1, 1, -1, 1)]
    full = (x, y, z // 2 + 1, 2)
    return [n.round().view(shape).expand(full) for n, shape in zip(numbers, shapes, strict=True)]


def _wavenumbers(sizes: Sequence[int], box: Sequence[float]) -> tuple[Tensor]:
    axes = zip(_mode_numbers(sizes), sizes, box, strict=True)
    k = [torch.where(2 * m.abs() == n, 0, m) * (2 * math.pi / length) for m, n, length in axes]
    return (torch.stack(k),)


def _mask(sizes: Sequence[int]) -> tuple[Tensor]:
    x, y, z = (3 * mode.abs() <= n for mode, n in zip(_mode_numbers(sizes), sizes, strict=True))
    return ((x & y & z).double(),)
