"""Transforms of real fields to a few of their modes and back, as one matrix product an axis.

Each product takes the last axis and puts its modes in front; the half axis is the first to go. The
way back multiplies by the transposes of its matrices, in the other order. So the two ways are each
other's transpose with their matrices exchanged, which is what gradients need.

`all_to_modes` and `all_to_points` take a few fields at a time: what lies between the fields and
their kept modes stays in the cache.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sixfold.kernels._tables import tables

Matrices = Sequence[Tensor]  # of the half axis (2 m, n), then of each other axis (2, 2 m, n)
NUMBERS = 2**19  # of the fields that are transformed at a time


def matrices(sizes: Sequence[int], kept: Sequence[int], like: Tensor) -> tuple[Matrices, Matrices]:
    """Return the matrices to the modes, and those whose transposes lead back.

    Args:
        sizes: Number of points of each axis, the half axis last.
        kept: Number of modes of each axis.
        like: Field whose dtype and device the matrices take.
    """
    made = [tables(_half_dft, sizes[-1], kept[-1], like=like)]
    made += [tables(_dft, n, k, like=like) for n, k in zip(sizes[:-1], kept[:-1], strict=True)]
    there, back = zip(*made, strict=True)
    return there, back


def all_to_modes(fields: Tensor, matrices: Matrices) -> Tensor:
    """Transform (batch, channel, sizes...) to (2, modes, batch, channel), without a gradient."""
    rows = fields.flatten(0, 1).flatten(1)
    found = fields.new_empty(2, _modes(matrices), rows.shape[0])
    few = max(1, NUMBERS // rows.shape[1])
    for part, into in zip(rows.split(few), found.split(few, 2), strict=True):
        into.copy_(to_modes(part, matrices))
    return found.unflatten(2, fields.shape[:2])


def all_to_points(spectrum: Tensor, matrices: Matrices, sizes: Sequence[int]) -> Tensor:
    """Transform (2, modes, batch, channel) to (batch, channel, sizes...), without a gradient."""
    rows = spectrum.flatten(2)
    found = spectrum.new_empty(rows.shape[2], math.prod(sizes))
    few = max(1, NUMBERS // found.shape[1])
    for part, into in zip(rows.split(few, 2), found.split(few), strict=True):
        torch.mm(to_lines(part, matrices), matrices[0], out=into.view(-1, sizes[-1]))
    return found.view(*spectrum.shape[2:], *sizes)


def to_modes(rows: Tensor, matrices: Matrices) -> Tensor:
    """Transform (row, points) to (2, modes, row)."""
    half, *others = matrices
    y = half @ rows.reshape(-1, half.shape[1]).T
    for on_re, on_im in others[::-1]:
        re, im = y.view(2, -1, on_re.shape[1])
        y = torch.addmm(on_re @ re.T, on_im, im.T)
    return y.view(2, _modes(matrices), -1)


def to_lines(spectrum: Tensor, matrices: Matrices) -> Tensor:
    """Transform all but the half axis: (2, modes, row) to (row and points, 2 modes of the half)."""
    half, *others = matrices
    y = spectrum
    for pair in others:
        y = torch.bmm(y.reshape(pair.shape[1], -1).T.expand(2, -1, -1), pair)
    return y.reshape(half.shape[0], -1).T


def _modes(matrices: Matrices) -> int:
    return math.prod([matrix.shape[-2] // 2 for matrix in matrices])


def _half_dft(n: int, kept: int):
    """Return cos and -sin of the first modes (2 kept, n), and the inverse of a real signal."""
    mode, place = torch.arange(kept, dtype=torch.float64), torch.arange(n, dtype=torch.float64)
    angle = 2 * math.pi / n * (mode[:, None] * place % n)
    waves = torch.cat((angle.cos(), -angle.sin()))
    # Modes 0 and n / 2 occur once in the full spectrum; their sine, an imaginary part, is zero.
    count = torch.where((mode == 0) | (2 * mode == n), 1, 2).to(waves) / n
    return waves, waves * count.repeat(2)[:, None]


def _dft(n: int, kept: int):
    """Return the DFT of real and of imaginary parts (2, 2 kept, n), and the inverse of a pair."""
    mode = torch.arange(kept, dtype=torch.float64)
    mode = torch.where(mode < kept // 2, mode, mode + n - kept)
    angle = 2 * math.pi / n * (mode[:, None] * torch.arange(n, dtype=torch.float64) % n)
    cos, sin = angle.cos(), angle.sin()
    waves = torch.stack((torch.cat((cos, -sin)), torch.cat((sin, cos))))
    return waves, waves / n
