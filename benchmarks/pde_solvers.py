"""Solvers of pde: the smoke generator batched and against PhiFlow, right-hand sides of turbulence.

PhiFlow is measured where it is installed. The right-hand side that the spectral solver is compared
with takes complex transforms over strided axes of fields whose components come last, as is usual.
"""

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from timing import Comparison, compare, write_benchmark
from torch import Tensor

from sixfold.kernels import rfft3
from sixfold.pde.solvers import SpectralSolver, isotropic_field, smoke_trajectories

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python benchmarks/pde_solvers.py"
SPACE = (1, 2, 3)
Row = dict[str, Any]


def seeded() -> torch.Generator:
    """Return a generator at seed zero."""
    return torch.Generator().manual_seed(0)


def batched(side: int, samples: int, repeats: int) -> Row:
    """Compare trajectories of the smoke generator in a batch with the same one by one."""

    def one_by_one() -> Tensor:
        generator = seeded()
        grid = (side, side)
        return torch.cat([smoke_trajectories(1, generator, grid=grid) for _ in range(samples)])

    def together() -> Tensor:
        return smoke_trajectories(samples, seeded(), grid=(side, side))

    torch.testing.assert_close(together(), one_by_one(), rtol=0, atol=0.05)
    found = compare({"one by one": one_by_one, "together": together}, repeats, warmup=0)
    what = f"smoke, {side} x {side}, {samples} trajectories: one by one, batched"
    return row(what, found)


def against_phiflow() -> Row:
    """Compare a trajectory at 128 x 128 with PhiFlow's, where it is installed."""
    what = "smoke, 128 x 128, a trajectory: PhiFlow, sixfold"
    if importlib.util.find_spec("phi") is None:
        return row(what)
    published = phiflow_trajectory()
    found = compare(
        {
            "PhiFlow": published,
            "sixfold": lambda: smoke_trajectories(1, seeded(), grid=(128, 128)),
        },
        repeats=1,
        warmup=0,
    )
    return row(what, found)


def phiflow_trajectory() -> Callable[[], None]:
    """Return a call of 64 steps of the published generator's operations in PhiFlow.

    In double precision: in single, its pressure solver does not reach its own tolerance.
    """
    from phi import math as phi_math  # pyright: ignore[reportMissingImports]
    from phi.flow import (  # pyright: ignore[reportMissingImports]
        Box,
        CenteredGrid,
        Noise,
        StaggeredGrid,
        advect,
        diffuse,
        extrapolation,
        fluid,
    )

    box = Box(x=32.0, y=32.0)

    def trajectory() -> None:
        with phi_math.precision(64):
            noise = abs(CenteredGrid(Noise(scale=11.0, smoothness=6.0), 0, box, x=128, y=128))
            smoke = CenteredGrid(noise.values, extrapolation.BOUNDARY, box)
            velocity = StaggeredGrid(0, 0, box, x=128, y=128)
            for _ in range(64):
                smoke = advect.semi_lagrangian(smoke, velocity, 1.5)
                lift = (smoke * (0, 0.5)).at(velocity)
                velocity = advect.semi_lagrangian(velocity, velocity, 1.5) + 1.5 * lift
                velocity = diffuse.explicit(velocity, 0.01, 1.5)
                velocity, _ = fluid.make_incompressible(velocity)

    return trajectory


def strided_slope(hat: Tensor, k: Tensor, viscosity: float) -> Tensor:
    """Return du/dt of spectra (batch, x, y, z, 3) by nine complex transforms; k is (x, y, z, 3)."""
    velocity = torch.fft.ifftn(hat, dim=SPACE).real
    vorticity = torch.fft.ifftn(torch.linalg.cross(1j * k[None], hat, dim=-1), dim=SPACE).real
    force = torch.fft.fftn(torch.linalg.cross(velocity, vorticity, dim=-1), dim=SPACE)
    force = force * (3 * k.abs() <= len(k)).all(-1, keepdim=True)
    square = k.square().sum(-1, keepdim=True)
    along = (k * force).sum(-1, keepdim=True) / square.clamp(min=1)
    return force - k * along - viscosity * square * hat


def right_hand_side(points: int, repeats: int) -> Row:
    """Compare the right-hand side of direct simulation with complex transforms, strided axes."""
    velocity = isotropic_field(1, (points, points, points), seeded())
    solver, hat = SpectralSolver(1 / 64, 0.01), rfft3(velocity)
    full = torch.fft.fftn(velocity.movedim(1, -1).contiguous(), dim=SPACE)
    mode = torch.fft.fftfreq(points, 1 / points)
    k = torch.stack(torch.meshgrid(mode, mode, mode, indexing="ij"), -1)
    expected = torch.fft.ifftn(strided_slope(full, k, 1 / 64), dim=SPACE).real.movedim(-1, 1)
    torch.testing.assert_close(solver.right_hand_side(velocity), expected, rtol=1e-3, atol=1e-3)
    calls: dict[str, Callable[[], Tensor]] = {
        "strided": lambda: strided_slope(full, k, 1 / 64),
        "sixfold": lambda: solver.slope(hat, points),
    }
    with torch.inference_mode():
        found = compare(calls, repeats)
    what = f"DNS right-hand side, {points}^3: complex strided, sixfold"
    return row(what, found)


def models(points: int, repeats: int) -> Row:
    """Time the right-hand side of Smagorinsky's and of the dynamic model."""
    hat = rfft3(isotropic_field(1, (points, points, points), seeded()))
    plain = SpectralSolver(1 / 64, 0.01, model="dynamic")
    lean = SpectralSolver(1 / 64, 0.01, model="smagorinsky")
    calls = {"dynamic": lambda: plain.slope(hat, points), "lean": lambda: lean.slope(hat, points)}
    with torch.inference_mode():
        found = compare(calls, repeats)
    what = f"LES right-hand side, {points}^3: dynamic, Smagorinsky"
    return row(what, found)


def row(what: str, found: Sequence[Comparison] = ()) -> Row:
    """Return a line of the table, of two alternatives or of none."""
    times = [f"{1000 * one.median_s:.2f}" for one in found] or ["", ""]
    return {
        "what": what,
        "threads": torch.get_num_threads(),
        "first, ms": times[0],
        "second, ms": times[1],
        "speed-up": f"{found[1].speedup:.2f}x" if found else "not measured",
    }


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="rounds of each comparison")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    given = parser.parse_args()
    rows = []
    for threads in given.threads:
        torch.set_num_threads(threads)
        rows += [against_phiflow()]
        rows += [batched(side, 16, max(1, given.repeats // 2)) for side in (32, 64, 128)]
        rows += [right_hand_side(points, 3 * given.repeats) for points in (32, 64)]
        rows += [models(points, 3 * given.repeats) for points in (16, 32)]
        print(*rows[-8:], sep="\n", flush=True)
    note = (
        "Medians; the two take turns in one process, the speed-up is the median of the ratios of "
        "each turn. A smoke trajectory has 64 steps and 14 frames. At 128 x 128 one sample fills "
        "a core's cache and is its work: batches are computed four at a time, and gain by threads "
        "alone."
    )
    path = ROOT / "benchmarks" / "results" / "pde_solvers.md"
    write_benchmark(path, "Solvers of pde", COMMAND, rows, note)


if __name__ == "__main__":
    main()
