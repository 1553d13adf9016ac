"""LESnets from the user's side: fit, predict, coefficient, and what they refuse."""

from typing import Any

import numpy as np
import pytest
import torch
from turbulent_fields import CUBE, random_field, smagorinsky_sequence

from sixfold.core import UserError
from sixfold.pde.models.lesnets import Flow, LESnets, LESnetsConfig
from sixfold.pde.models.lesnets.loss import physics_loss, relative_l2
from sixfold.pde.models.lesnets.training import Fields, Objective, make_flow

NU, STEP, FRAMES = 1 / 32, 0.05, 4
TERMS = {"viscosity": NU, "box": CUBE, "time_step": STEP}
SHORT = {"steps": 60, "learning_rate": 3e-2, "threads": 1}


def build(**settings) -> LESnets:
    torch.manual_seed(0)
    values: dict[str, Any] = {"num_layers": 1, "width": 4, "modes": (2, 2, 2, 2), "head_width": 8}
    return LESnets(LESnetsConfig.parse(values | {"frames": FRAMES} | settings, "tiny"))


@pytest.fixture(scope="module")
def sequence() -> torch.Tensor:
    """Frames of a large-eddy simulation with Cs2 = 0.02, the given one first."""
    return smagorinsky_sequence(random_field(8, 1), FRAMES + 1, STEP, NU, 0.02)


def losses(model: LESnets, frames: torch.Tensor, flow: Flow) -> tuple[float, float]:
    """Return the residual loss and the relative error of the prediction."""
    with torch.no_grad():
        found = model(frames[..., 0])
        joined = torch.cat((frames[..., :1], found), -1)
        residual = physics_loss(joined, flow, flow.smagorinsky)
        return float(residual), float(relative_l2(found, frames[..., 1:]))


@pytest.mark.parametrize("mode", ["label-free", "data-driven", "mixed"])
def test_each_mode_lowers_what_it_minimises(mode, sequence):
    model = build()
    u0 = sequence[..., 0]
    labels = None if mode == "label-free" else sequence[..., 1:]
    flow = make_flow(u0, NU, CUBE, STEP, 0.02, None)
    before = losses(model, sequence, flow)
    weight = 0.0 if mode == "data-driven" else 1.0
    found = model.fit(u0, labels=labels, physics_weight=weight, smagorinsky=0.02, **TERMS, **SHORT)
    after = losses(model, sequence, flow)
    minimised = {"label-free": {"residual"}, "data-driven": {"data"}, "mixed": {"residual", "data"}}
    assert set(found) - {"loss"} == minimised[mode]
    assert model.config.flow == flow
    if mode != "data-driven":
        assert after[0] < 0.9 * before[0], (before, after)
    if mode != "label-free":
        assert after[1] < 0.9 * before[1], (before, after)


def test_one_initial_field_is_enough_and_no_label_is_looked_at(sequence):
    """An array of one field trains; the residual output starts near and stays finite."""
    model = build(residual_output=True)
    found = model.fit(sequence[0, ..., 0].numpy(), **TERMS, **SHORT)
    assert np.isfinite(found["residual"])
    prediction = model.predict(sequence[0, ..., 0].numpy(), blocks=2)
    assert prediction.velocity.shape == (1, 8, 8, 8, 3, 2 * FRAMES)
    assert prediction.residual.shape == (1, 2 * FRAMES - 1)
    assert prediction.divergence.shape == (1, 2 * FRAMES)


def test_a_training_is_the_same_for_the_same_seed(sequence):
    fields = torch.cat((sequence[..., 0], random_field(8, 2), random_field(8, 3)))
    models = [build(), build(), build()]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        model.fit(fields, seed=seed, **TERMS, **(SHORT | {"steps": 4}))
    weights = [model.fc0.weight for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_blocks_go_on_from_the_last_frame(sequence):
    model = build(flow=make_flow(sequence[..., 0], NU, CUBE, STEP, 0.02, None))
    u0 = sequence[..., 0]
    first, both = model.predict(u0), model.predict(u0, blocks=2)
    torch.testing.assert_close(both.velocity[..., :FRAMES], first.velocity)
    again = model.predict(u0).velocity[..., -1]
    with torch.no_grad():
        torch.testing.assert_close(both.velocity[..., FRAMES:], model(again))
    torch.testing.assert_close(both.residual[:, : FRAMES - 1], first.residual)


def test_a_simulation_is_reported_to_solve_its_equations(sequence, monkeypatch):
    """The report of frames that a solver made: hardly a residual, and no divergence."""
    model = build(flow=make_flow(sequence[..., 0], NU, CUBE, STEP, 0.02, None))
    monkeypatch.setattr(model, "forward", lambda u0: sequence[..., 1:])
    found = model.predict(sequence[..., 0])
    change = (sequence[..., 2:] - sequence[..., :-2]).square().mean().sqrt() / (2 * STEP)
    assert float(found.residual.max()) < 0.02 * float(change)
    assert float(found.divergence.max()) < 1e-5


def test_the_coefficient_of_a_sequence_is_found_and_reported(sequence):
    model = build(flow=make_flow(sequence[..., 0], NU, CUBE, STEP, 0.0, None))
    found = model.coefficient(sequence)
    assert found.smagorinsky == pytest.approx(0.02, rel=0.03)
    assert found.residual < 0.2 * found.residual_without
    assert found.divergence < 1e-5


def test_the_gradient_learns_the_coefficient_of_the_closed_form(sequence):
    """Only the term of the true sequence knows it; Adam goes there from 1e-8."""
    model = build(learned_coefficient=True)
    flow = make_flow(sequence[..., 0], NU, CUBE, STEP, 0.0, None)
    closed = model.coefficient(sequence, flow).smagorinsky
    model.fit(
        sequence[..., 0],
        sequence=sequence,
        sequence_weight=1000.0,
        coefficient_rate=1.5e-3,
        **TERMS,
        **(SHORT | {"steps": 120}),
    )
    assert model.smagorinsky is not None
    assert float(model.smagorinsky) == pytest.approx(closed, rel=0.1)


@pytest.mark.parametrize("quirks", ["dhit", "tml"])
def test_the_published_mistakes_are_an_option_of_the_objective(quirks, sequence):
    """In dhit the prediction's loss is swapped and the coefficient's is not; in tml inversely."""
    model = build(learned_coefficient=True, residual_output=True)
    torch.nn.init.constant_(model.get_parameter("smagorinsky"), 0.5)
    flow = make_flow(sequence[..., 0], NU, CUBE, STEP, 0.0, None)
    batch = Fields(sequence[..., 0], sequence[..., 1:]).batch([0])
    ours, published = (
        Objective(flow, sequence=sequence, sequence_weight=1.0, official_quirks=q)(model, batch)
        for q in (None, quirks)
    )
    right = {"dhit": "sequence", "tml": "residual"}[quirks]
    for name, value in published.items():
        same = float(value) == pytest.approx(float(ours[name]), rel=0.01)
        assert same == (name == right), name


U0 = random_field(8, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"viscosity": -0.1}, r"flow: viscosity: .*greater than or equal to 0 \(got -0.1\)"),
        ({"time_step": 0.0}, "flow: time_step"),
        ({"box": (6.28, 6.28)}, "box should be 3 positive lengths"),
        ({"box": 6.28}, "box should be 3 positive lengths"),
        ({"box": "x"}, "box should be 3 positive lengths"),
        ({"box": (6.28, 6.28, 62.8)}, "does not match the grid"),
        ({"u0": U0 * float("nan")}, r"1536 values that are not finite, the first at \(0, 0, 0, 0"),
        ({"u0": U0[..., :2]}, r"components last, got \(1, 8, 8, 8, 2\)"),
        ({"u0": U0.flip(-1)}, r"components in the order \(2, 1, 0\) have none"),
        ({"u0": torch.randn(1, 8, 8, 8, 3)}, "project it on fields without divergence"),
        ({"u0": torch.ones(1, 3, 3, 3, 3)}, r"takes grids from \(4, 4, 4\) points"),
        ({"labels": U0[..., None].expand(-1, -1, -1, -1, -1, 3)}, r"give the 4 frames after each"),
        ({"labels": torch.zeros(1, 8, 8, 8, 3, FRAMES)}, "zero everywhere"),
        ({"filter_width": 0.0}, "flow: filter_width: .*greater than 0"),
        ({"physics_weight": 0.0}, "leaves labels to learn from, but none were given"),
        ({"sequence": U0[..., None].expand(-1, -1, -1, -1, -1, 3)}, "learned_coefficient=True"),
        ({"sequence": U0[..., None].expand(-1, -1, -1, -1, -1, 2)}, "has 2 frames"),
        ({"sequence": torch.randn(1, 8, 8, 8, 3, 3)}, "sequence has a divergence"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_trained_on_is_refused_in_words(change, message, unchecked):
    arguments = {"u0": U0, **TERMS, "steps": 1} | change
    with pytest.raises(UserError, match=message):
        build().fit(**arguments)


def test_fields_in_half_and_double_precision_are_taken(sequence):
    model = build(flow=make_flow(sequence[..., 0], NU, CUBE, STEP, 0.02, None))
    u0 = sequence[..., 0]
    expected = model.predict(u0).velocity
    torch.testing.assert_close(model.predict(u0.double()).velocity, expected)
    torch.testing.assert_close(model.predict(u0.half()).velocity, expected, rtol=0, atol=5e-3)


def test_fields_of_a_solver_with_gradients_are_taken_as_numbers():
    made = U0.clone().requires_grad_() * 1
    assert build().fit(made, **TERMS, **SHORT | {"steps": 2}) == build().fit(
        U0, **TERMS, **SHORT | {"steps": 2}
    )


def test_two_labels_are_enough_for_a_network_of_two_frames(sequence):
    model = build(frames=2, modes=(2, 2, 2, 1))
    found = model.fit(sequence[..., 0], labels=sequence[..., 1:3], **TERMS, steps=1)
    assert found["data"] > 0


@pytest.mark.parametrize("speed", [0.0, 1.0])
def test_a_uniform_sequence_has_no_coefficient(speed):
    flow = make_flow(U0, NU, CUBE, STEP, 0.0, None)
    with pytest.raises(UserError, match="any coefficient fits"):
        build().coefficient(torch.full((8, 8, 8, 3, 4), speed), flow)


def test_padding_is_a_fraction_of_the_domain():
    with pytest.raises(UserError, match="domain_padding"):
        build(domain_padding=(-0.5, 0.0, 0.0, 0.0))


@pytest.mark.parametrize("blocks", [0, 1.5, None])
def test_blocks_are_counted_in_whole_numbers(blocks, unchecked):
    with pytest.raises(UserError, match="blocks should be a whole number from 1"):
        build(flow=make_flow(U0, NU, CUBE, STEP, 0.0, None)).predict(U0, blocks)


def test_a_network_in_half_precision_is_refused():
    with pytest.raises(UserError, match="the network should be in single or double precision"):
        build(flow=make_flow(U0, NU, CUBE, STEP, 0.0, None)).half().predict(U0)


def test_a_network_without_a_flow_says_how_to_give_it_one():
    with pytest.raises(UserError, match="fit it, or load it with flow="):
        build().predict(U0)
