"""What the report draws of predicted turbulence: errors, spectra, structure functions, densities.

Scales are those of the true fields: of networks that lose energy, the densities show it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.pde.fields.modes import CUBE
from sixfold.pde.fields.statistics import (
    energy_spectrum,
    increment_density,
    q_criterion,
    structure_functions,
    vorticity,
    vorticity_density,
)

Sequence3 = Float[Tensor, "sample x y z 3 time"]
EDGES = torch.linspace(-5, 5, 42)  # of the bins of densities, an odd number of them
ORDER = 2  # of the structure functions


def statistics_of(found: Sequence3, true: Sequence3) -> dict[str, Tensor]:
    """Compute all that the report draws of predicted frames.

    Args:
        found: Predicted frames.
        true: True frames.

    Returns:
        Error of each frame; spectra of the first and of the last frame; of the last frame the
        second-order longitudinal structure function at distances of 1 cell to half the box, and
        the densities of vorticity and of increments over one cell; a plane of the first sample's
        vorticity, as a film, and one of its Q at the end.
    """
    last, last_true = final(found), final(true)
    side = last.shape[-1]
    u_rms, vorticity_rms = (
        float(field.square().mean().sqrt()) for field in (last_true, vorticity(last_true, CUBE))
    )
    kept = {
        "errors": relative_errors(found, true),
        "first": energy_spectrum(final(found[..., :1]), CUBE).mean(0),
        "last": energy_spectrum(last, CUBE).mean(0),
        "structure": structure_functions(last, side // 2, ORDER)[..., ORDER - 1].mean(0),
        "vorticity": vorticity_density(last, CUBE, EDGES, vorticity_rms),
        "increments": increment_density(last, 1, EDGES, u_rms),
        "slice": film(found),
        "q": q_criterion(last[:1], CUBE)[0, :, :, side // 2],
    }
    return {name: value.contiguous() for name, value in kept.items()}


def relative_errors(found: Sequence3, true: Sequence3) -> Float[Tensor, " time"]:
    """Return the relative L2 error of each frame, averaged over samples."""
    error, size = (x.double().flatten(1, 4).norm(dim=1) for x in (found - true, true))
    return (error / size).mean(0)


def final(frames: Sequence3) -> Float[Tensor, "sample 3 x y z"]:
    """Return the last frame."""
    return frames[..., -1].movedim(-1, 1)


def film(frames: Sequence3) -> Float[Tensor, "time x y"]:
    """Return vorticity along z in the middle plane of the first sample."""
    fields = frames[0].permute(4, 3, 0, 1, 2)
    return vorticity(fields, CUBE)[:, 2, :, :, fields.shape[-1] // 2]
