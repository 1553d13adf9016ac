"""Which modes of half spectra (x, y, z // 2 + 1) are low, and which shell each belongs to."""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

Box = tuple[float, float, float]
CUBE: Box = (2 * math.pi, 2 * math.pi, 2 * math.pi)


def low_modes(
    sizes: Sequence[int], points_per_wave: int, like: Tensor
) -> Float[Tensor, "x y half 1"]:
    """Return one for the modes with more than so many points a wave on each axis, else zero.

    Two leaves out the waves of alternating signs alone, four is a cut-off at half of all modes.
    """
    return _low_modes(tuple(sizes), points_per_wave, like.device).to(like.dtype)


def square_wavenumbers(sizes: Sequence[int], box: Box) -> Float[Tensor, "x y half"]:
    """Return |k|^2 of the modes of a half spectrum, Nyquist modes included, in double precision."""
    kx, ky, kz = (
        2 * math.pi / length * mode for mode, length in zip(_modes(sizes), box, strict=True)
    )
    return kx**2 + ky**2 + kz**2


def shell_energy(
    spectrum: Float[Tensor, "batch 3 x y half 2"], z: int, box: Box
) -> Float[Tensor, "batch shell"]:
    """Sum the kinetic energy of each shell of velocities of ``z`` points on the last axis."""
    # A column of the half spectrum stands for itself and its mirror image, but the first and last.
    column = torch.arange(z // 2 + 1, device=spectrum.device)
    count = torch.where((column == 0) | (2 * column == z), 0.5, 1.0).to(spectrum)
    energy = (spectrum.square().sum((1, -1)) * count).flatten(1)
    shell = shells((*spectrum.shape[2:4], z), box).flatten().to(spectrum.device)
    found = energy.new_zeros(len(energy), int(shell.max()) + 1)
    return found.index_add(1, shell, energy)


@lru_cache(maxsize=16)
def shells(sizes: tuple[int, ...], box: Box) -> Int[Tensor, "x y half"]:
    """Return the shell of each mode: floor(|k| + 1/2), k in units of 2 pi / the longest side."""
    with torch.inference_mode(False):  # or no later training could use them
        k = square_wavenumbers(sizes, box).sqrt() * (max(box) / (2 * math.pi))
        return (k + 0.5).floor().long()


@lru_cache(maxsize=16)
def _low_modes(sizes: tuple[int, ...], points_per_wave: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # or no later training could use it
        x, y, z = (
            points_per_wave * mode.abs() < n for mode, n in zip(_modes(sizes), sizes, strict=True)
        )
        return (x & y & z)[..., None].to(device)


def _modes(sizes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the waves per period along each axis, shaped to broadcast."""
    nx, ny, nz = sizes
    x, y = (torch.fft.fftfreq(n, 1 / n, dtype=torch.float64).round() for n in (nx, ny))
    return x[:, None, None], y[:, None], torch.arange(nz // 2 + 1, dtype=torch.float64)
