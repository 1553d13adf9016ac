"""Power of periodic fields by shells of wavenumber, in two dimensions or three, and errors by it.

Pointwise errors of long forecasts say little once details are chaotic; by bands of shells, one sees
which scales are lost.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.pde.fields.stepping import as_box, check_precision

BANDS = (4, 12)  # last shell of the large scales and of the middle ones, as PDEBench has them


def shell_power(
    field: Float[Tensor, "*field_and_space"], box: Sequence[float]
) -> Float[Tensor, "*field shell"]:
    """Sum the squares of all modes of each shell; all shells together are the mean square.

    Shell s holds floor(|k| + 1/2) = s with k in units of 2 pi / the longest side of the box. Half
    the power of all components of a velocity is the energy spectrum.

    Args:
        field: Fields whose last axes are space.
        box: Lengths of the axes of space, two or three.

    Raises:
        UserError: the box is not two or three positive lengths, or the field has fewer axes, none
            of whose points, or another precision than single or double.
    """
    check_precision(field, "the field")
    box = as_box(box, 3 if isinstance(box, Sequence) and len(box) == 3 else 2)
    if field.ndim < len(box) or 0 in field.shape:
        raise UserError(
            f"a field on {len(box)} axes of space, the last ones, is expected, and no empty one; "
            f"got {tuple(field.shape)}"
        )
    space = tuple(range(-len(box), 0))
    sizes = field.shape[-len(box) :]
    axes = [
        torch.fft.fftfreq(n, length / n, dtype=torch.float64) * max(box)
        for n, length in zip(sizes, box, strict=True)
    ]
    square = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0)
    shell = (square.sqrt() + 0.5).floor().long().flatten().to(field.device)
    power = torch.fft.fftn(field, dim=space, norm="forward").abs().square()
    power = power.reshape(*field.shape[: -len(box)], -1)
    found = power.new_zeros(*power.shape[:-1], int(shell.max()) + 1)
    return found.index_add(-1, shell, power)


def band_errors(
    prediction: Float[Tensor, "*field_and_space"],
    target: Float[Tensor, "*field_and_space"],
    box: Sequence[float],
    bands: Sequence[int] = BANDS,
) -> Float[Tensor, "*field band"]:
    """Return ||prediction - target|| / ||target|| of the modes of each band of shells.

    One is the error of a prediction without such modes; a band that the target lacks gives nan or
    infinity, as zero over zero or something over it.

    Args:
        prediction: Fields whose last axes are space.
        target: True fields.
        box: Lengths of the axes of space.
        bands: Last shell of each band but the last, which has all shells beyond.

    Raises:
        UserError: the shapes differ, the bands do not rise, or as `shell_power`.
    """
    if prediction.shape != target.shape:
        raise UserError(
            f"a prediction {tuple(prediction.shape)} is compared with a target "
            f"{tuple(target.shape)}; give the same fields on the same grid"
        )
    if any(low >= high for low, high in pairwise((-1, *bands))):
        raise UserError(f"bands should be rising numbers of shells from 0, got {tuple(bands)}")
    edges = [0, *(last + 1 for last in bands), math.inf]
    wrong, true = (shell_power(f, box) for f in (prediction - target, target))
    shell = torch.arange(wrong.shape[-1], device=wrong.device)
    errors = []
    for low, high in pairwise(edges):
        inside = (shell >= low) & (shell < high)
        errors.append((wrong * inside).sum(-1) / (true * inside).sum(-1))
    return torch.stack(errors, -1).sqrt()
