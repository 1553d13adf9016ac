"""The residual of LESnets with the numbers of the published code, which the tests compare with.

Full complex spectra: the derivative of a Nyquist mode is imaginary and is dropped with the
imaginary part, while products of two such derivatives stay.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SPACE = (-3, -2, -1)
PAIRS = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]  # of a symmetric tensor


def official_residual(
    velocity, time_step, viscosity, smagorinsky, filter_width, box, *, dhit: bool
) -> tuple[Tensor, Tensor]:
    """Return residual and divergence; the arguments are those of `les_residual`.

    Args:
        dhit: Whether to follow the function for homogeneous turbulence, not the one for the mixing
            layer. The former takes the vorticity by a half spectrum, which keeps some Nyquist
            modes, divides the divergence by the number of points, and guards 1 / k^2 otherwise.
    """
    sizes = velocity.shape[-3:]
    k, mask = _modes(sizes, box, velocity)
    square = _dot(k, k)
    square = torch.where(square == 0, 1.0 if dhit else 1e-5, square)
    waves = [1j * one for one in k]
    spectrum = [_transform(component) for component in velocity.unbind(1)]
    divergence = _back(_dot(waves, spectrum)) / (math.prod(sizes) if dhit else 1)
    inner = [one[:, 1:-1] for one in spectrum]
    tau = _stress(waves, inner, smagorinsky * filter_width**2)
    curl = [_curl(waves, inner, i, half=dhit) for i in range(3)]
    within = [component[:, 1:-1] for component in velocity.unbind(1)]
    forces = []
    for i in range(3):
        lamb = within[i - 2] * curl[i - 1] - within[i - 1] * curl[i - 2]
        forces.append(_transform(lamb) * mask - _dot(waves, tau[i]))
    along = _dot(k, forces) / square
    right = [
        _back(f - one * along - viscosity * square * u)
        for f, one, u in zip(forces, k, inner, strict=True)
    ]
    change = (velocity[:, :, 2:] - velocity[:, :, :-2]) / (2 * time_step)
    return change - torch.stack(right, 1), divergence


def safe_sqrt(x: Tensor) -> Tensor:
    """Take the square root, with a derivative of zero at zero instead of an infinite one."""
    return x.clamp_min(torch.finfo(x.dtype).tiny).sqrt()


def _stress(
    waves: Sequence[Tensor], spectrum: Sequence[Tensor], scale: float | Tensor
) -> list[list[Tensor]]:
    """Return the spectra of tau."""
    strain = {}
    for i, j in PAIRS:
        strain[i, j] = _back((waves[j] * spectrum[i] + waves[i] * spectrum[j]) / 2)
    norm = torch.stack([(2 - (i == j)) * strain[i, j].square() for i, j in PAIRS]).sum(0)
    eddy = -2 * scale * safe_sqrt(2 * norm)
    tau = {(i, j): _transform(eddy * strain[i, j]) for i, j in PAIRS}
    return [[tau[min(i, j), max(i, j)] for j in range(3)] for i in range(3)]


def _curl(waves: Sequence[Tensor], spectrum: Sequence[Tensor], i: int, *, half: bool) -> Tensor:
    curl = waves[i - 2] * spectrum[i - 1] - waves[i - 1] * spectrum[i - 2]
    if not half:
        return _back(curl)
    sizes = curl.shape[-3:]
    return torch.fft.irfftn(curl[..., : sizes[-1] // 2 + 1], sizes, SPACE, norm="forward")


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _modes(
    sizes: Sequence[int], box: Sequence[float], like: Tensor
) -> tuple[Sequence[Tensor], Tensor]:
    """Return the wavenumbers of each axis, Nyquist ones negative, and the two-thirds mask."""
    axes = [torch.fft.fftfreq(n, 1 / n, dtype=torch.float64).round() for n in sizes]
    modes = torch.stack(torch.meshgrid(axes, indexing="ij"))
    waves, points = torch.tensor([[2 * math.pi / length for length in box], list(sizes)]).double()
    mask = (3 * modes.abs() <= points[:, None, None, None]).all(0)
    return (modes * waves[:, None, None, None]).to(like).unbind(), mask.to(like)


def _transform(field: Tensor) -> Tensor:
    return torch.fft.fftn(field, dim=SPACE, norm="forward")


def _back(spectrum: Tensor) -> Tensor:
    return torch.fft.ifftn(spectrum, dim=SPACE, norm="forward").real
