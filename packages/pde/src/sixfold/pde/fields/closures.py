"""Stress of the motion that a large-eddy simulation leaves out: Smagorinsky's model, and dynamic.

    tau_ij = -2 Cs2 Delta^2 |S| S_ij,  |S| = sqrt(2 S_ij S_ij)

J. Smagorinsky, "General circulation experiments with the primitive equations", Monthly Weather
Review 1963; M. Germano et al., "A dynamic subgrid-scale eddy viscosity model", Physics of Fluids
1991, with D. K. Lilly's least squares (1992).

A simulation adds -div tau to du/dt; tau is -2 times the eddy viscosity Cs2 Delta^2 |S| times S.
Symmetric tensors are six components on axis 1: xx, yy, zz, xy, xz, yz.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.kernels import irfft3, rfft3
from sixfold.pde.fields.modes import low_modes

Symmetric = Float[Tensor, "batch 6 x y z"]
PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))  # i, j of the six components
ROWS = ((0, 3, 4), (3, 1, 5), (4, 5, 2))  # place of component i, j among the six
TEST_RATIO = 2  # width of the test filter over that of the grid


def strain_components(gradient: Float[Tensor, "batch 3 3 x y z"]) -> Symmetric:
    """Return S_ij of a velocity gradient; the order of its two axes does not matter."""
    g = gradient
    return torch.stack(
        [g[:, i, i] if i == j else (g[:, i, j] + g[:, j, i]) / 2 for i, j in PAIRS], 1
    )


def magnitude(strain: Symmetric) -> Float[Tensor, "batch 1 x y z"]:
    """Return |S|; its gradient at zero strain is zero."""
    square = 2 * _contracted(strain, strain)
    return torch.where(square > 0, square, 1).sqrt() * (square > 0)


def dynamic_coefficient(
    velocity: Float[Tensor, "batch 3 x y z"],
    strain: Symmetric,
    filter_width: float,
    average: Sequence[int],
) -> Float[Tensor, "batch 1 x_or_1 y_or_1 z_or_1"]:
    """Compute Cs2 from the flow itself: L_ij = Cs2 M_ij in the least squares, never negative.

    L is the stress between the grid's filter and one twice as wide, a sharp cut-off at a quarter of
    the points of each axis: L_ij = F(u_i u_j) - F(u_i) F(u_j), and with both filters' models
    M_ij = 2 Delta^2 (F(|S| S_ij) - 4 |F(S)| F(S_ij)).

    Args:
        velocity: Velocity.
        strain: Strain of it.
        filter_width: Delta.
        average: Axes of space (0, 1, 2) along which the flow is homogeneous.
    """
    products = torch.stack([velocity[:, i] * velocity[:, j] for i, j in PAIRS], 1)
    smooth = _test_filter(torch.cat((velocity, products, strain, magnitude(strain) * strain), 1))
    u, uu, s, ss = smooth.split((3, 6, 6, 6), 1)
    resolved = uu - torch.stack([u[:, i] * u[:, j] for i, j in PAIRS], 1)
    model = 2 * filter_width**2 * (ss - TEST_RATIO**2 * magnitude(s) * s)
    axes = [axis - 3 for axis in average]
    norm = _contracted(model, model).mean(axes, keepdim=True)
    found = _contracted(resolved, model).mean(axes, keepdim=True) / norm.clamp(min=1e-30)
    return found.clamp(min=0)


def _test_filter(fields: Float[Tensor, "batch field x y z"]) -> Float[Tensor, "batch field x y z"]:
    keep = low_modes(fields.shape[-3:], 2 * TEST_RATIO, fields)
    return irfft3(rfft3(fields) * keep, fields.shape[-1])


def _contracted(a: Symmetric, b: Symmetric) -> Float[Tensor, "batch 1 x y z"]:
    """Return a_ij b_ij: components off the diagonal count twice."""
    product = a * b
    return product[:, :3].sum(1, keepdim=True) + 2 * product[:, 3:].sum(1, keepdim=True)
