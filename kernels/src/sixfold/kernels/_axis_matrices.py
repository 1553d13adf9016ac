"""Derivatives on a periodic grid, exact for its waves, as one matrix product an axis.

A derivative by FFT is two transforms; along an axis of n points it is also a product with an n x n
matrix, 2 n operations a point. On coarse grids that is faster: the fields stay real, in one layout,
and each product reads its field once.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sixfold.kernels._tables import tables

Matrices = Sequence[Tensor]  # of the axes x, y and z: the last three of every field


def axis_matrices(
    sizes: Sequence[int], box: Sequence[float], like: Tensor
) -> tuple[Matrices, Matrices, Matrices]:
    """Return the matrices of the first and second derivative and of the two-thirds truncation.

    The Nyquist mode of an axis has no first derivative along it, but a second one.
    """
    axes = [tables(_matrices, n, length, like=like) for n, length in zip(sizes, box, strict=True)]
    first, second, low = zip(*axes, strict=True)
    return first, second, low


def along(matrix: Tensor, field: Tensor, axis: int, onto: Tensor | None = None) -> Tensor:
    """Multiply x (0), y (1) or z (2) by a matrix, and add the result to another field."""
    x, y, z = field.shape[-3:]
    if axis == 2:
        rows = field.reshape(-1, z)
        flat = rows @ matrix.T if onto is None else torch.addmm(onto.reshape(-1, z), rows, matrix.T)
        return flat.view(field.shape)
    slabs = field.reshape(-1, x, y * z) if axis == 0 else field.reshape(-1, y, z)
    matrix = matrix.expand(slabs.shape[0], -1, -1)  # matmul would transpose the slabs instead
    if onto is None:
        return torch.bmm(matrix, slabs).view(field.shape)
    return torch.baddbmm(onto.reshape(slabs.shape), matrix, slabs).view(field.shape)


def along_all(matrices: Matrices, field: Tensor) -> Tensor:
    """Multiply all axes, one after the other."""
    for axis, matrix in enumerate(matrices):
        field = along(matrix, field, axis)
    return field


def summed(matrices: Matrices, fields: Sequence[Tensor], onto: Tensor | None = None) -> Tensor:
    """Multiply field i along axis i, and sum; with derivatives, this is the divergence."""
    for axis, (matrix, field) in enumerate(zip(matrices, fields, strict=True)):
        onto = along(matrix, field, axis, onto)
    assert onto is not None
    return onto


def _matrices(n: int, length: float) -> tuple[Tensor, Tensor, Tensor]:
    mode, place = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64).round(), torch.arange(n)
    k = 2 * math.pi / length * mode
    angle = 2 * math.pi / n * (mode[:, None] * place % n)
    cos, sin = angle.cos() / n, angle.sin() / n
    first = -k @ sin  # the sine of the Nyquist mode is zero at every place
    second, low = -k.square() @ cos, (3 * mode.abs() <= n).double() @ cos
    lag = (place[:, None] - place) % n
    return first[lag], second[lag], low[lag]
