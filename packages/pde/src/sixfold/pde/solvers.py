"""Solvers of partial differential equations in torch, each usable without any network.

They are batched, run on the device of the field that they are given, and gradients go through
their steps; they live in `sixfold.pde.fields`.
"""

from sixfold.pde.fields.advection import advect, random_texture, shift
from sixfold.pde.fields.smoke import Smoke, SmokeSolver, smoke_noise, smoke_trajectories

__all__ = [
    "Smoke",
    "SmokeSolver",
    "advect",
    "random_texture",
    "shift",
    "smoke_noise",
    "smoke_trajectories",
]
