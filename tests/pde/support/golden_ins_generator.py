"""Compare the smoke solver with trajectories of PDEArena's; called by test_golden.py."""

import json
from pathlib import Path
from typing import Any

import torch
from golden_lesnets import compare
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import pad

from sixfold.pde.solvers import SmokeSolver

TOLERANCE = 1e-9  # of the largest value of a tensor
SETTINGS = {"Nx", "Ny", "Lx", "Ly", "steps", "buo", "seed"}


def check(folder: Path) -> None:
    """Recompute every trajectory of a case from its initial smoke.

    Raises:
        AssertionError: a tensor differs, or a tensor or setting is unknown.
    """
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "io.safetensors")
    assert settings.pop("phiflow")
    found = {}
    for name, flow in settings.items():
        assert set(flow) == SETTINGS, f"unknown settings of {name}: {set(flow) ^ SETTINGS}"
        parts = trajectory(tensors[f"{name}.smoke"], flow)
        found |= {f"{name}.{part}": value for part, value in parts.items()}
    defined = {n: t if n.endswith("smoke") else without_padding(t) for n, t in tensors.items()}
    compare(found, defined, TOLERANCE)


def trajectory(smoke: Tensor, flow: dict[str, Any]) -> dict[str, Tensor]:
    """Solve from the first smoke for as many steps as there are."""
    solver = SmokeSolver(box=(flow["Lx"], flow["Ly"]), buoyancy=flow["buo"])
    assert smoke.shape == (flow["steps"] + 1, flow["Nx"], flow["Ny"])
    states = [solver.at_rest(smoke[:1])]
    for _ in range(flow["steps"]):
        states.append(solver.step(states[-1]))
    forced = solver.forced(states[-2], states[-1].smoke)
    return {
        "smoke": torch.cat([state.smoke for state in states]),
        "velocity_staggered": torch.cat([staggered(state.u, state.v) for state in states[1:]]),
        "last_velocity_advected": staggered(*forced)[0],
        "last_velocity_diffused": staggered(*solver.diffused(*forced))[0],
    }


def staggered(u: Tensor, v: Tensor) -> Tensor:
    """Append the upper walls, and a padding of zeros along the other axis."""
    return pad(torch.stack((u, v), -1), (0, 0, 0, 1, 0, 1))


def without_padding(faces: Tensor) -> Tensor:
    """Set the padding, which is not defined, to zero."""
    u, v = faces.clone().unbind(-1)
    u[..., -1], v[..., -1, :] = 0, 0
    return torch.stack((u, v), -1)
