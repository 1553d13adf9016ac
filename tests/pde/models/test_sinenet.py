"""SineNet against a literal transcription of its description, and what users meet."""

from typing import Any

import pytest
import torch
from reference_sinenet import ReferenceSineNet

from sixfold.core import UserError, load_strict
from sixfold.pde.fields.convolution import join_phases, split_phases, upsample
from sixfold.pde.fields.frames import to_lightning
from sixfold.pde.models.sinenet import SYSTEM, SineNet, SineNetConfig, SineNetODE, SineNetODEConfig
from sixfold.pde.models.sinenet.convert import convert, convert_ode
from sixfold.pde.models.sinenet.dormand_prince import integrate

SMALL = {"hidden_channels": 4, "num_waves": 2, "mult": 1.5, "time_history": 2, "activation": "gelu"}


def build(**settings) -> SineNet:
    """Build a small network whose norms do something."""
    torch.manual_seed(0)
    model = SineNet(SineNetConfig.parse({**SMALL, **settings}, "test")).eval()
    for name, value in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(value, 0.5, 1.5)
    return model


def frames(model, *sides: int, batch: int = 2) -> torch.Tensor:
    config = model.config
    generator = torch.Generator().manual_seed(1)
    return torch.randn(
        batch, config.time_history, config.input_channels, *sides, generator=generator
    )


FORMS = {
    "circular": {"padding": "circular"},
    "circular, three blocks": {"padding": "circular", "num_blocks": 3, "num_waves": 1},
    "zeros, tangled": {"disentangle": False},
    "added time": {"conditioning": "add"},
    "added time and parameter": {"conditioning": "add", "condition_on_parameter": True},
    "scale and shift, circular, odd width": {
        "conditioning": "scale_shift",
        "padding": "circular",
        "hidden_channels": 5,
    },
    "16 waves": {"num_waves": 16, "hidden_channels": 2},
}


@pytest.mark.parametrize("form", FORMS)
def test_it_is_what_the_paper_says(form):
    model = build(**FORMS[form])
    x = frames(model, 32, 48)
    extra = [torch.tensor([1.0, 7.0])] * (model.config.conditioning != "none")
    extra += [torch.tensor([0.2, 0.5])] * model.config.condition_on_parameter
    found, expected = model(x, *extra), ReferenceSineNet(model)(x, *extra)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(found.square().mean(), parameters)
    theirs = torch.autograd.grad(expected.square().mean(), parameters)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("conditioning", ["none", "add"])
def test_the_finer_grid_is_the_dilated_network(conditioning):
    model = build(padding="circular", num_waves=1, conditioning=conditioning)
    x = frames(model, 128, 192, batch=2)
    extra = [torch.tensor([1.0, 7.0])] * (conditioning != "none")
    with torch.no_grad():
        expected = ReferenceSineNet(model, dilation=4)(x, *extra)
        torch.testing.assert_close(model.at_finer_grid(x, *extra), expected, rtol=1e-4, atol=2e-5)


def test_the_finer_grid_of_a_repeated_field_repeats_the_coarse_one():
    model = build(padding="circular", num_waves=1)
    x = frames(model, 32, 32, batch=1)
    fine = x.repeat_interleave(4, 3).repeat_interleave(4, 4)
    with torch.no_grad():
        coarse = model(x)
        torch.testing.assert_close(model.at_finer_grid(fine)[..., 1::4, 2::4], coarse)


def test_phases_come_apart_and_together():
    x = torch.arange(2 * 3 * 8 * 12.0).view(2, 3, 8, 12)
    parts = split_phases(x, 4)
    assert torch.equal(parts[16 + 4 * 1 + 2], x[1, :, 1::4, 2::4])
    assert torch.equal(join_phases(parts, 4), x)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_circular_axis_knows_no_origin_and_the_other_has_its_walls(axis):
    padding = ["zeros", "zeros"]
    padding[axis] = "circular"
    model = build(padding=padding)
    x = frames(model, 32, 32)
    with torch.no_grad():
        for rolled, same in ((axis, True), (1 - axis, False)):
            moved = model(x.roll(16, 3 + rolled)).roll(-16, 3 + rolled)
            assert torch.allclose(moved, model(x), atol=1e-5) == same


def test_replicated_borders_keep_a_constant_field_constant():
    model = build(padding="replicate", norm=False)
    x = frames(model, 1, 1).expand(-1, -1, -1, 32, 32)
    with torch.no_grad():
        y = model(x)
    torch.testing.assert_close(y, y[..., :1, :1].expand_as(y))


def test_small_circular_maps_are_wrapped_more_than_once():
    once, often = (build(padding="circular", repeat_wrap=r) for r in (False, True))
    x = frames(once, 16, 32)
    with pytest.raises(UserError, match=r"16 points along x.*repeat_wrap=True"):
        once(x)
    with torch.no_grad():
        # a field with twice the period is the same field
        torch.testing.assert_close(
            often(x).repeat(1, 1, 1, 2, 1), often(x.repeat(1, 1, 1, 2, 1)), rtol=1e-4, atol=1e-5
        )


def test_upsampling_a_single_point_repeats_it():
    x = torch.randn(1, 2, 1, 1)
    for mode in ("zeros", "circular", "replicate"):
        torch.testing.assert_close(upsample(x, (mode, mode)), x.expand(1, 2, 2, 2))


@pytest.mark.parametrize("modes", [("zeros", "zeros"), ("circular", "replicate")], ids=str)
def test_upsampling_keeps_channels_last_and_its_values(modes):
    x = torch.randn(2, 5, 6, 4, generator=torch.Generator().manual_seed(0))
    plain, last = x.clone().requires_grad_(), x.to(memory_format=torch.channels_last)
    last.requires_grad_()
    expected, found = upsample(plain, modes), upsample(last, modes)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected)
    ours, theirs = (
        torch.autograd.grad(y.square().sum(), of) for y, of in ((found, last), (expected, plain))
    )
    torch.testing.assert_close(ours, theirs)


def test_fields_do_not_see_each_other():
    model = build(padding="circular")
    x = frames(model, 32, 32)
    torch.testing.assert_close(model(x)[1:], model(x[1:]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_no_fields_give_no_frames(form):
    model = build(**FORMS[form])
    extra = [torch.ones(0)] * (model.config.conditioning != "none")
    extra += [torch.ones(0)] * model.config.condition_on_parameter
    found = model(frames(model, 32, 48, batch=0), *extra)
    assert found.shape == (0, 1, model.config.output_channels, 32, 48)
    found.sum().backward()


def test_checkpointed_waves_have_the_same_gradient():
    plain, saving = build(), build(checkpoint_waves=True)
    x = frames(plain, 32, 32)
    one, other = (
        torch.autograd.grad(model.train()(x).square().sum(), list(model.parameters()))
        for model in (plain, saving)
    )
    for gradient, again in zip(one, other, strict=True):
        assert torch.equal(gradient, again)


BAD = {
    "grid": (lambda m: frames(m, 40, 32), "40 points along x; resample to 32"),
    "odd": (lambda m: frames(m, 32, 33), "33 points along y"),
    "history": (lambda m: frames(m, 32, 32)[:, :1], r"history of 2 frames.*got \(2, 1, 3, 32, 32"),
    "channels": (lambda m: frames(m, 32, 32)[:, :, :2], "of 3 channels"),
}


@pytest.mark.parametrize("what", BAD)
def test_frames_of_another_shape_are_refused(what):
    model = build()
    make, message = BAD[what]
    with pytest.raises(UserError, match=message):
        model(make(model))


def test_a_condition_is_neither_forgotten_nor_ignored():
    plain, wants = build(), build(conditioning="add", condition_on_parameter=True)
    one = torch.ones(2)
    for model, extra, message in (
        (plain, [one], "does not take time; drop time="),
        (wants, [], "needs time; pass time="),
        (wants, [one], "needs parameter"),
    ):
        with pytest.raises(UserError, match=message):
            model(frames(model, 32, 32), *extra)
    with pytest.raises(UserError, match="condition_on_parameter needs"):
        SineNetConfig.parse({"condition_on_parameter": True}, "test")


def test_the_finer_grid_says_what_it_needs():
    with pytest.raises(UserError, match="needs circular padding"):
        build().at_finer_grid(frames(build(), 128, 128))
    model = build(padding="circular")
    with pytest.raises(UserError, match="multiples of 64, got 96"):
        model.at_finer_grid(frames(model, 128, 96))


READ_OFF = {
    "tangled": {"disentangle": False},
    "deeper": {"num_blocks": 3, "num_waves": 1},
    "three waves without norm": {"num_waves": 3, "norm": False},
    "without shortcuts": {"block_residual": False},
    "added": {"conditioning": "add"},
    "scaled": {"conditioning": "scale_shift", "condition_on_parameter": True},
}


@pytest.mark.parametrize("lightning", [False, True], ids=["bare", "lightning"])
@pytest.mark.parametrize("form", READ_OFF)
def test_official_checkpoints_are_read_and_written(form, lightning, tmp_path):
    model = build(normalized=lightning, **READ_OFF[form])
    if lightning:
        model.normalizer.set(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0, 6.0]))
    official = to_lightning(model.state_dict()) if lightning else model.state_dict()
    torch.save({"state_dict": official}, tmp_path / "epoch.ckpt")
    again = SineNet.from_pretrained(tmp_path / "epoch.ckpt")
    assert again.config == model.config
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_what_a_checkpoint_does_not_hold_is_a_setting(tmp_path):
    model = build(time_future=2, padding="circular", normalized=False)
    torch.save(model.state_dict(), tmp_path / "bare.pt")
    settings = {"time_history": 2, "time_future": 2, "input_channels": 3, "output_channels": 3}
    again = SineNet.from_pretrained(tmp_path / "bare.pt", padding="circular", **settings)
    x = frames(model, 32, 32)
    assert torch.equal(again(x), model(x))


def test_leftovers_on_either_side_are_refused():
    state = build(normalized=False).state_dict()
    with pytest.raises(UserError, match=r"more\.weight"):
        convert(state | {"more.weight": torch.zeros(1)})
    with pytest.raises(UserError, match=r"beside model\.\*: final.weight"):
        convert(to_lightning(state) | {"final.weight": state["final.weight"]})
    config, kept = convert({k: v for k, v in state.items() if k != "up.1.2.shortcut.bias"})
    with pytest.raises(UserError, match=r"not filled: up\.1\.2\.shortcut\.bias"):
        load_strict(SineNet(config), kept, "this checkpoint")


@pytest.mark.parametrize("size", [name for name in SYSTEM.published if name.endswith("on INS")])
def test_the_growth_of_published_widths_is_read_off(size):
    config, _ = SYSTEM.published[size]
    with torch.device("meta"):
        state = SYSTEM.build(config).state_dict()
    found, _ = convert(state)
    assert found == config


def test_the_neural_ode_round_trips_and_counts():
    torch.manual_seed(0)
    config = SineNetODEConfig(
        hidden_channels=4, mult=1.5, time_history=2, padding=("circular", "circular")
    )
    model = SineNetODE(config)
    found, state = convert_ode(to_lightning(model.state_dict()))
    load_strict(SineNetODE(found), state, "the checkpoint")
    assert found.model_copy(update={"padding": config.padding}) == config
    x = frames(model, 32, 32)
    model(x)
    first = model.nfe
    model(x)
    assert model.nfe == first >= 8
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model(x[:0]).shape == (0, *model(x).shape[1:])


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 1), ()], ids=str)
def test_conditions_are_one_number_a_field(shape, unchecked):
    config = SineNetConfig(hidden_channels=4, mult=1.5, num_waves=1, conditioning="add")
    model = SineNet(config)
    with pytest.raises(UserError, match="one number for each of 2 fields, got"):
        model(frames(model, 32, 32), torch.ones(shape))


def test_no_level_is_without_channels():
    with pytest.raises(UserError, match=r"widths \[4, 1, 0, 0, 0\] leave a level without"):
        SineNetConfig.parse({"hidden_channels": 4, "mult": 0.4}, "tiny")


def test_embedded_numbers_enter_networks_of_double_precision():
    torch.manual_seed(0)
    small: dict[str, Any] = {"hidden_channels": 4, "mult": 1.5, "time_history": 2}
    conditional = SineNet(SineNetConfig(**small, num_waves=1, conditioning="add")).double()
    ode = SineNetODE(SineNetODEConfig(**small)).double()
    x = frames(ode, 32, 32).double()
    time = torch.ones(len(x), dtype=torch.float64)
    assert conditional(x, time).dtype == ode(x).dtype == torch.float64


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_the_solver_keeps_its_tolerance(tolerance):
    start = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    end = integrate(lambda s, y: -y * (1 + s), start, tolerance)
    exact = start * torch.tensor(-1.5, dtype=torch.float64).exp()
    torch.testing.assert_close(end, exact, rtol=5 * tolerance, atol=5 * tolerance)
    (gradient,) = torch.autograd.grad(end.sum(), start)
    torch.testing.assert_close(gradient, exact / start, rtol=20 * tolerance, atol=0)


def test_a_state_that_explodes_is_named():
    with pytest.raises(UserError, match="not finite"):
        integrate(lambda s, y: y**9, torch.full((2,), 1e30), 1e-2)
