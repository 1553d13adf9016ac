"""What ten frames of turbulence cost and how wrong they are: large-eddy simulation and networks.

The paper's sentence is that LESnets is much faster than large-eddy simulation. How fast the latter
is depends on its time step, which a spectral solver may take long: errors are beside the times, at
16^3 those against filtered direct simulation, at frame 10. The network's is that of the committed
results of pipelines/pde, mean over seeds; at 32^3 there is none, and its time is of any weights.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import compare, write_benchmark
from torch import Tensor

from sixfold.pde.data.decaying_turbulence import TurbulenceData, large_eddies, simulate
from sixfold.pde.fields.initial_fields import isotropic_field
from sixfold.pde.models.lesnets import LESnets, LESnetsConfig

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python benchmarks/les_cost.py"
FRAMES, SAMPLES = 10, 4
STEPS = {16: (0.02, 0.05, 0.1), 32: (0.02, 0.05)}  # up to the limit on each grid
NETWORKS = {16: {"width": 12, "modes": (5, 5, 5, 2)}, 32: {"width": 20, "modes": (8, 8, 8, 2)}}


def simulation(data: TurbulenceData, u0: Tensor, time_step: float) -> Callable[[], Tensor]:
    """Return a call that simulates ten frames and returns the last."""
    whole = data.model_copy(update={"every": FRAMES * data.every, "frames": 1})

    def call() -> Tensor:
        return large_eddies(whole, u0, "smagorinsky", time_step)[..., 1]

    return call


def network(side: int, u0: Tensor) -> Callable[[], Tensor]:
    """Return a call that predicts ten frames at once."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"num_layers": 4, "residual_output": True, **NETWORKS[side]}
    model = LESnets(LESnetsConfig(grid=(side, side, side), **settings)).eval()
    field = u0.movedim(1, -1).contiguous()

    def call() -> Tensor:
        with torch.no_grad():
            return model(field)

    return call


def simulation_error(data: TurbulenceData, frames: Tensor, time_step: float) -> float:
    """Return the relative L2 error of frame 10 against filtered direct simulation."""
    u0 = frames[..., 0].movedim(-1, 1).contiguous()
    found = simulation(data, u0, time_step)()
    true = frames[..., FRAMES]
    error, size = (x.flatten(1).norm(dim=1) for x in (found - true, true))
    return float((error / size).mean())


def network_error() -> float | None:
    """Return that of the network without labels, from the committed results."""
    file = ROOT / "pipelines" / "pde" / "results" / "large_eddies" / "label_free.json"
    if not file.is_file():
        return None
    return json.loads(file.read_text(encoding="utf-8"))["mean"]["error_at_10"]


def rows(side: int, batch: int, errors: dict[str, float | None], repeats: int) -> list[dict]:
    """Time every method on a grid and a batch."""
    data = TurbulenceData(grid=side)
    generator = torch.Generator().manual_seed(0)
    u0 = isotropic_field(batch, (side, side, side), generator, u_rms=0.65)
    calls = {f"LES, steps of {step:g}": simulation(data, u0, step) for step in STEPS[side]}
    calls["LESnets"] = network(side, u0)
    return [
        {
            "grid": f"{side}^3",
            "batch": batch,
            "method": one.name,
            "ms a sample": f"{1000 * one.median_s / batch:.1f}",
            "LES of 0.02 / this": f"{one.speedup:.2f}",
            "relative L2 of frame 10": errors.get(one.name) if side == 16 else None,
        }
        for one in compare(calls, repeats, warmup=1)
    ]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="rounds of each comparison")
    arguments = parser.parse_args()
    data = TurbulenceData()
    drawn = torch.Generator().manual_seed(1)
    frames = simulate(data.model_copy(update={"frames": FRAMES}), SAMPLES, drawn)
    errors: dict[str, float | None] = {
        f"LES, steps of {step:g}": simulation_error(data, frames, step) for step in STEPS[16]
    }
    errors["LESnets"] = network_error()
    table = [
        row
        for grid, batch in ((16, 1), (16, 16), (32, 1), (32, 4))
        for row in rows(grid, batch, errors, arguments.repeats)
    ]
    path = ROOT / "benchmarks" / "results" / "les_cost.md"
    title = "Ten frames (0.2 units of time) of turbulence: large-eddy simulation and LESnets"
    write_benchmark(path, title, COMMAND, table, " ".join((__doc__ or "").split()))


if __name__ == "__main__":
    main()
