"""Solvers of partial differential equations in torch, each usable without any network.

They are batched, run on the device of the field that they are given, and gradients go through
their steps; they live in `sixfold.pde.fields`.
"""

from sixfold.pde.fields.advection import advect, random_texture, shift
from sixfold.pde.fields.compressible import (
    CompressibleSolver,
    compressible_state,
    compressible_trajectories,
)
from sixfold.pde.fields.initial_fields import (
    LAYER_BOX,
    abc_flow,
    decaying_spectrum,
    isotropic_field,
    mixing_layer,
    taylor_green_2d,
    taylor_green_3d,
)
from sixfold.pde.fields.sequences import filtered_turbulence, sequence
from sixfold.pde.fields.shallow_water import (
    ShallowWaterSolver,
    random_jets,
    shallow_water_trajectories,
)
from sixfold.pde.fields.smoke import Smoke, SmokeSolver
from sixfold.pde.fields.smoke_data import smoke_noise, smoke_trajectories
from sixfold.pde.fields.turbulence import SpectralSolver

__all__ = [
    "LAYER_BOX",
    "CompressibleSolver",
    "ShallowWaterSolver",
    "Smoke",
    "SmokeSolver",
    "SpectralSolver",
    "abc_flow",
    "advect",
    "compressible_state",
    "compressible_trajectories",
    "decaying_spectrum",
    "filtered_turbulence",
    "isotropic_field",
    "mixing_layer",
    "random_jets",
    "random_texture",
    "sequence",
    "shallow_water_trajectories",
    "shift",
    "smoke_noise",
    "smoke_trajectories",
    "taylor_green_2d",
    "taylor_green_3d",
]
