"""Losses of LESnets (section 2 of the paper): residual of the filtered equations, labels, Cs2.

The kernels take (batch, component, time, x, y, z); `to_kernel` is the one copy that leads there.

The published wrapper hands viscosity and Cs2 to its function for homogeneous turbulence (dhit) in
the wrong order. `official_loss` does so too; nothing else does.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sixfold.core import Config
from sixfold.kernels import les_residual, les_residual_loss

Sequence3 = Float[Tensor, "batch x y z 3 time"]
Scalar = float | Float[Tensor, ""]
Official = Literal["dhit", "tml"]


class Flow(Config):
    """Equations of a flow on a periodic box, in the units of the problem.

    Args:
        viscosity: Kinematic viscosity (nu).
        box: Lengths of the box along x, y and z.
        time_step: Time between two frames (dt).
        smagorinsky: Squared Smagorinsky constant (Cs2); 0 is no model.
        filter_width: Filter width (Delta).
    """

    viscosity: float = Field(ge=0)
    box: tuple[float, float, float]
    time_step: float = Field(gt=0)
    smagorinsky: float = Field(ge=0)
    filter_width: float = Field(gt=0)


def to_kernel(sequence: Sequence3) -> Float[Tensor, "batch 3 time x y z"]:
    """Copy a sequence into the layout of the kernels."""
    return sequence.permute(0, 4, 5, 1, 2, 3).contiguous()


def physics_loss(sequence: Sequence3, flow: Flow, smagorinsky: Scalar) -> Float[Tensor, ""]:
    """Compute mean(r^2) + mean((div u)^2); zero solves the discrete equations.

    Args:
        sequence: Given frame and the predicted ones.
        flow: Equations.
        smagorinsky: Cs2, a tensor if it is learned.
    """
    return les_residual_loss(
        to_kernel(sequence),
        time_step=flow.time_step,
        viscosity=flow.viscosity,
        smagorinsky=smagorinsky,
        filter_width=flow.filter_width,
        box=flow.box,
    )


def residual(
    sequence: Sequence3, flow: Flow, smagorinsky: Scalar
) -> tuple[Float[Tensor, "batch 3 inner x y z"], Float[Tensor, "batch time x y z"]]:
    """Return the residual at all frames but the ends, and the divergence at all."""
    terms = (flow.time_step, flow.viscosity, smagorinsky, flow.filter_width, flow.box)
    return les_residual(to_kernel(sequence), *terms)


def official_loss(
    sequence: Sequence3, flow: Flow, smagorinsky: Scalar, name: Official, *, second: bool = False
) -> Float[Tensor, ""]:
    """Compute what the published loss returns, mistakes included.

    Args:
        sequence: Given frame and the predicted ones.
        flow: Equations.
        smagorinsky: Cs2.
        name: Published function; dhit is handed viscosity and Cs2 in the wrong order.
        second: Whether this is the loss of the coefficient, which swaps them once more.
    """
    arguments: tuple[Scalar, Scalar] = (flow.viscosity, smagorinsky)
    swapped = (name == "dhit") != second
    viscosity, smagorinsky = arguments[::-1] if swapped else arguments
    return les_residual_loss(
        to_kernel(sequence),
        time_step=flow.time_step,
        viscosity=viscosity,
        smagorinsky=smagorinsky,
        filter_width=flow.filter_width,
        box=flow.box,
        official_quirks=name,
    )


def relative_l2(prediction: Sequence3, target: Sequence3) -> Float[Tensor, ""]:
    """Compute ||prediction - target|| / ||target|| of each sample, averaged over the batch."""
    error = torch.linalg.vector_norm((prediction - target).flatten(1), dim=1)
    return (error / torch.linalg.vector_norm(target.flatten(1), dim=1)).mean()


def closed_form_coefficient(sequence: Sequence3, flow: Flow) -> Float[Tensor, ""]:
    """Return the Cs2 whose residual is smallest in the mean square.

    The residual is linear in it, r = a + Cs2 b, so it is -<a, b> / <b, b>.
    """
    a, _ = residual(sequence, flow, 0.0)
    b = residual(sequence, flow, 1.0)[0] - a
    return -(a * b).sum() / (b * b).sum()
