"""What users give to statistics, generators and solvers: lists, counts of none, other shapes."""

# pyright: reportArgumentType=false
# what is given here is what the types refuse

import math
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch

from sixfold.core import UserError
from sixfold.pde.fields import statistics
from sixfold.pde.fields.film import Film
from sixfold.pde.fields.forecast import frames_after, rollout
from sixfold.pde.fields.moments import moments
from sixfold.pde.fields.noise import band_limited
from sixfold.pde.fields.schedule import epoch_starts, learning_rate
from sixfold.pde.fields.spectra import band_errors, shell_power
from sixfold.pde.models.fno import FNO, FNOConfig
from sixfold.pde.solvers import (
    CompressibleSolver,
    ShallowWaterSolver,
    SmokeSolver,
    SpectralSolver,
    abc_flow,
    advect,
    compressible_state,
    compressible_trajectories,
    filtered_turbulence,
    isotropic_field,
    mixing_layer,
    random_jets,
    random_texture,
    sequence,
    shallow_water_trajectories,
    shift,
    smoke_noise,
    smoke_trajectories,
    taylor_green_3d,
)

BOX = (6.0, 7.0, 8.0)
EDGES = torch.linspace(-4, 4, 9)
U = torch.randn(2, 3, 6, 8, 5, generator=torch.Generator().manual_seed(0))
PLANES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ON_BOXES: dict[str, Any] = {
    "velocity_gradient": statistics.velocity_gradient,
    "vorticity": statistics.vorticity,
    "strain": statistics.strain,
    "q_criterion": statistics.q_criterion,
    "pressure": statistics.pressure,
    "energy_spectrum": statistics.energy_spectrum,
    "gradient_skewness": statistics.gradient_skewness,
    "turbulence_scales": lambda u, box: torch.stack(statistics.turbulence_scales(u, box, 0.1)),
    "vorticity_density": lambda u, box: statistics.vorticity_density(u, box, EDGES),
    "sphere_filter": lambda u, box: statistics.sphere_filter(u, box, 2.0),
}
every_statistic = pytest.mark.parametrize("name", ON_BOXES)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@every_statistic
def test_a_box_is_any_sequence_of_numbers(name, unchecked):
    function = ON_BOXES[name]
    expected = function(U, BOX)
    for box in ([6.0, 7.0, 8.0], (6, 7, 8), [6, 7.0, 8]):
        torch.testing.assert_close(function(U, box), expected, rtol=0, atol=0)
    precise = function(U.double(), BOX)
    torch.testing.assert_close(precise.float(), expected.float(), rtol=1e-4, atol=1e-4)


@every_statistic
@pytest.mark.parametrize(
    "box", [(1.0, 1.0), (1.0,) * 4, 6.28, (0.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (math.nan, 1.0, 1.0)]
)
def test_a_box_that_is_none_is_named(name, box, unchecked):
    with pytest.raises(UserError, match="box should be 3 positive lengths, those along xyz, got"):
        ON_BOXES[name](U, box)


VELOCITIES = {
    "no samples' axis": U[0],
    "no samples": U[:0],
    "components last": U.movedim(1, -1),
    "two components": U[:, :2],
    "a line": U.flatten(),
    "whole numbers": U.long(),
    "half precision": U.half(),
    "an array": U.numpy(),
}


@every_statistic
@pytest.mark.parametrize("what", VELOCITIES)
def test_what_is_no_velocity_is_named(name, what, unchecked):
    with pytest.raises(UserError, match=r"the velocity should be .* got"):
        ON_BOXES[name](VELOCITIES[what], BOX)


@pytest.mark.parametrize("points", range(3, 14))
def test_the_inner_half_of_a_layer_has_half_its_height_on_any_grid(points):
    """Of resting fluid each unit of height counts a quarter; a profile about the middle, the same.

    On sides that are no multiple of four the half ends within cells.
    """
    rest = torch.zeros(1, 3, 4, points, 4)
    found = statistics.momentum_thickness(rest, height=16.0, speed=2.0)
    torch.testing.assert_close(found, torch.tensor([2.0]))
    y = torch.arange(points) - points / 2
    rest[:, 2] = torch.tanh(0.4 * y)[:, None]
    up = statistics.momentum_thickness(rest, height=16.0, speed=2.0)
    rest[:, 2] = torch.tanh(-0.4 * y)[:, None]
    torch.testing.assert_close(statistics.momentum_thickness(rest, height=16.0, speed=2.0), up)


def test_momentum_thickness_converges_alike_on_all_grids():
    def thickness(points: int) -> float:
        y = 16 * (torch.arange(points, dtype=torch.float64) / points - 0.5)
        flow = torch.zeros(1, 3, 4, points, 4, dtype=torch.float64)
        flow[:, 2] = torch.tanh(y / (2 * 0.5))[:, None]
        return float(statistics.momentum_thickness(flow, height=16.0, speed=2.0))

    for points in (61, 62, 63, 64):
        assert thickness(points) == pytest.approx(0.5, rel=1e-3)


def smoke(buoyancy: Any) -> Any:
    solver = SmokeSolver(buoyancy=buoyancy)
    return next(solver.frames(solver.at_rest(PLANES[:, 0].abs()), 1.5))


def test_smoke_of_different_buoyancies_is_that_of_each(monkeypatch):
    """A batch that is computed in parts takes each sample's own buoyancy."""
    monkeypatch.setattr("sixfold.pde.fields.smoke_data.CACHED_CELLS", 2 * 8 * 8)
    lifts, settings = torch.linspace(0.1, 0.5, 5), {"grid": (8, 8), "skip": 1, "steps": 3}
    together = smoke_trajectories(5, seeded(), solver=SmokeSolver(buoyancy=lifts), **settings)
    generator = seeded()
    for lift, one in zip(lifts.tolist(), together, strict=True):
        alone = smoke_trajectories(1, generator, solver=SmokeSolver(buoyancy=lift), **settings)
        torch.testing.assert_close(one, alone[0], rtol=0, atol=1e-5)


def test_a_list_is_a_box_and_a_grid(unchecked):
    box: Any = [6.0, 6.0, 6.0]
    held = SpectralSolver(0.01, 0.01, box=box, hold_shells=True)
    u0 = isotropic_field(1, [8, 8, 8], seeded(), box=box)
    assert next(held.frames(u0, 0.01)).isfinite().all()
    assert ShallowWaterSolver(box=[40, 20]) == ShallowWaterSolver()
    assert torch.equal(
        smoke_noise(1, [8, 8], seeded(), box=[32, 32]),
        smoke_noise(1, (8, 8), seeded()),
    )


NETWORK = FNO(FNOConfig(width=2, modes=2, num_layers=1, time_history=2))
HISTORY = torch.randn(1, 2, 1, 8, 8)
WATER = random_jets(1, seeded(), grid=(12, 12))
GAS = compressible_state(1, (8, 8), seeded())
BOXES_OF_TWO = "box should be 2 positive lengths, those along xy"
ODD: dict[str, tuple[Any, str]] = {
    "no samples": (lambda: smoke_noise(0, (8, 8), seeded()), "samples should be a whole number"),
    "samples of a fraction": (
        lambda: isotropic_field(1.5, (8, 8, 8), seeded()),
        "samples should be a whole number from 1, got 1.5",
    ),
    "grid of one axis": (lambda: smoke_noise(1, (8,), seeded()), "grid should be 2 whole numbers"),
    "grid of a number": (lambda: random_texture(1, 8, 3, seeded()), "grid should be 2 whole"),
    "grid of a fraction": (lambda: compressible_state(1, (8.0, 8), seeded()), "grid should be 2"),
    "grid of none": (lambda: isotropic_field(1, (0, 8, 8), seeded()), "grid should be 3 whole"),
    "grid too small": (lambda: random_jets(1, seeded(), grid=(4, 8)), "2 whole numbers from 6"),
    "smoke box": (lambda: SmokeSolver(box=(2.0,)), BOXES_OF_TWO),
    "gas box": (lambda: CompressibleSolver(box=1.0), BOXES_OF_TWO),
    "water box": (lambda: ShallowWaterSolver(box=(1.0, math.inf)), BOXES_OF_TWO),
    "buoyancies": (lambda: smoke(torch.ones(3)), "buoyancy should be one finite number, or one"),
    "buoyancy nan": (lambda: smoke(math.nan), "buoyancy should be one finite number"),
    "viscosities": (
        lambda: SpectralSolver(torch.tensor([0.1, 0.1]), 0.01),
        "viscosity should be one number for all samples",
    ),
    "negative Cs2": (lambda: SpectralSolver(0.1, 0.01, smagorinsky=-1), "smagorinsky should not"),
    "no filter": (lambda: SpectralSolver(0.1, 0.01, filter_width=0), "filter_width should be pos"),
    "average": (lambda: SpectralSolver(0.1, 0.01, average=(0, 3)), "name axes among 0, 1 and 2"),
    "forces": (
        lambda: SpectralSolver(0.1, 0.01, force=torch.zeros(3, 3, 8, 8, 8)).frames(abc_flow(8), 1),
        r"or one for each sample, got \(3, 3, 8, 8, 8\)",
    ),
    "no flow": (lambda: SpectralSolver(0.1, 0.01).frames(abc_flow(8)[:0], 1), "u0 should be"),
    "no water": (lambda: ShallowWaterSolver().frames(WATER[:0], 1.0), "the water should be"),
    "no gas": (lambda: CompressibleSolver().frames(GAS[:0], 1.0), "the gas should be"),
    "a line of water": (lambda: ShallowWaterSolver().frames(WATER.flatten(), 1.0), "should be"),
    "two precisions": (
        lambda: SmokeSolver().frames(
            SmokeSolver().at_rest(PLANES[:, 0])._replace(u=PLANES[:, 0].double()), 1.5
        ),
        "u is in torch.float64, smoke in torch.float32",
    ),
    "no steps": (lambda: smoke_trajectories(1, seeded(), steps=0), "steps should be a whole"),
    "no frames of gas": (
        lambda: compressible_trajectories(1, seeded(), grid=(8, 8), frames=0),
        "frames should be a whole number",
    ),
    "no frames of water": (
        lambda: shallow_water_trajectories(1, seeded(), frames=0),
        "frames should be a whole number",
    ),
    "no frames of turbulence": (
        lambda: filtered_turbulence(1, seeded(), viscosity=0.1, frames=0),
        "frames should be a whole number",
    ),
    "no sequence": (
        lambda: sequence(SpectralSolver(0.1, 0.01), taylor_green_3d(8), 0, 0.01),
        "frames should be a whole number",
    ),
    "a flow of no points": (lambda: abc_flow(0), "n should be a whole number"),
    "no turning": (
        lambda: random_jets(1, seeded(), grid=(8, 8), solver=ShallowWaterSolver(coriolis=0.0)),
        "coriolis should be positive",
    ),
    "a layer without thickness": (
        lambda: mixing_layer(1, (8, 8, 8), seeded(), thickness=0.0),
        "thickness should be positive",
    ),
    "u_rms": (lambda: isotropic_field(1, (8, 8, 8), seeded(), u_rms=math.nan), "u_rms should not"),
    "velocity of one number": (lambda: advect(PLANES, (1.0,), 3), "move by two finite numbers"),
    "velocity nan": (lambda: advect(PLANES, (math.nan, 0.0), 3), "move by two finite numbers"),
    "a fraction of frames": (lambda: advect(PLANES, (1, 0), 2.5), "frames should be a whole"),
    "fields of whole numbers": (lambda: advect(PLANES.long(), (1, 0), 2), "the field should be"),
    "distance of one number": (lambda: shift(PLANES, torch.ones(1)), "distances .* move fields"),
    "distance a tuple": (lambda: shift(PLANES, (1.0, 0.0)), "distance should be a tensor"),
    "edges fall": (lambda: statistics.density(U, EDGES.flip(0)), "two or more rising numbers"),
    "no value inside": (lambda: statistics.density(U, EDGES + 100), "no value lies within"),
    "density of nan": (lambda: statistics.density(U * math.nan, EDGES), "not finite"),
    "increments of rest": (
        lambda: statistics.increment_density(0 * U, 1, EDGES),
        "u_rms should be positive",
    ),
    "no distances": (lambda: statistics.structure_functions(U, 0), "distances should be a whole"),
    "negative nu": (lambda: statistics.turbulence_scales(U, BOX, -1.0), "viscosity should not"),
    "coarser of two": (lambda: statistics.coarsen(U, (4, 4)), "grid should be 3 whole numbers"),
    "cutoff": (lambda: statistics.sphere_filter(U, BOX, -1.0), "a wavenumber from 0"),
    "no speed": (lambda: statistics.momentum_thickness(U, 1.0, 0.0), "speed should be positive"),
    "power of a line": (lambda: shell_power(PLANES[0, 0, 0], (1, 1)), "a field on 2 axes"),
    "power of halves": (lambda: shell_power(PLANES.half(), (1, 1)), "the field should be in sing"),
    "bands of others": (lambda: band_errors(PLANES, PLANES[:1], (1, 1)), "is compared with a"),
    "bands fall": (lambda: band_errors(PLANES, PLANES, (1, 1), (12, 4)), "rising numbers of"),
    "moments of one": (lambda: moments(torch.ones(1, 2, 3, 4, 4)), "two or more trajectories"),
    "warm-up alone": (lambda: learning_rate(5, warmup=5, epochs=5), "leaves no other of 5"),
    "epoch": (lambda: learning_rate(-1), "epoch should not be negative"),
    "short trajectory": (lambda: epoch_starts([1, 4], 2, seeded()), "window of 2 frames does not"),
    "no trajectory": (lambda: epoch_starts([], 2, seeded()), "window of 2 frames does not"),
    "film of no steps": (lambda: Film(0), "steps should be a whole number"),
    "film of no frames": (lambda: Film(2).figure("a", ["u"]), "a film of no frames"),
    "no rollout": (lambda: rollout(NETWORK, HISTORY, 0), "steps should be a whole number"),
    "whole numbers": (lambda: rollout(NETWORK, HISTORY.long(), 2), "history is in torch.int64"),
    "other precision": (
        lambda: next(frames_after(NETWORK, HISTORY.double())),
        r"history is in torch.float64, the network in torch.float32; convert it by .to\(",
    ),
    "one field": (lambda: NETWORK(HISTORY[0]), "takes frames"),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_input_is_one_clear_error(what, unchecked):
    call, message = ODD[what]
    with pytest.raises(UserError, match=message):
        call()


def test_a_density_takes_any_numbers(unchecked):
    expected = statistics.density(U.round(), EDGES + 0.25)
    for values in (U.round().long(), U.round().double(), U.round().requires_grad_()):
        torch.testing.assert_close(statistics.density(values, EDGES + 0.25), expected)
    edges: Any = (EDGES + 0.25).tolist()
    torch.testing.assert_close(statistics.density(U.round(), edges), expected)


def test_settings_changed_by_replace_are_checked_too(unchecked):
    solver = replace(SmokeSolver(), box=(1, 2))
    assert solver.box == (1.0, 2.0)
    state = solver.at_rest(PLANES[:, 0].abs())
    (later,) = islice(replace(solver, viscosity=0).frames(state, every=3), 1)
    assert later.frame().isfinite().all()


@pytest.mark.parametrize(("grid", "cutoff"), [((0, 4), 2), ((1, 1), 2), ((8, 8), 0.5)])
def test_noise_without_a_wave_is_refused(grid, cutoff, unchecked):
    with pytest.raises(UserError, match="is within a cutoff"):
        band_limited(torch.ones(grid), cutoff)
