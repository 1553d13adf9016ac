"""The baselines: what no golden case holds, checkpoints both ways, and what users meet."""

from typing import Any

import pytest
import torch
from reference_unet_mod import reference_unet_mod
from torch.nn import functional

from sixfold.core import UserError, load_strict
from sixfold.pde.fields.frames import to_lightning
from sixfold.pde.models import dil_resnet, ffno, fno, unet_mod
from sixfold.pde.models.dil_resnet import DilResNet, DilResNetConfig
from sixfold.pde.models.ffno import FFNO, FFNOConfig
from sixfold.pde.models.fno import FNO, FNOConfig
from sixfold.pde.models.unet_mod import UNetMod, UNetModConfig

UNET = UNetModConfig(hidden_channels=8, mults=(1, 2), time_history=2)
RESNET = DilResNetConfig(hidden_channels=4, blocks=(2, 1), time_history=2)
FACTORISED = FFNOConfig(width=6, modes=4, num_layers=2, time_history=2)
PLAIN = FNOConfig(width=4, modes=3, num_layers=2, time_history=2)
NETWORKS: dict[str, Any] = {
    "unet_mod": (UNetMod, UNET, unet_mod.convert),
    "dil_resnet": (DilResNet, RESNET, dil_resnet.convert),
    "ffno": (FFNO, FACTORISED, ffno.convert),
    "ffno, shared": (FFNO, FACTORISED.model_copy(update={"share_weight": True}), ffno.convert),
    "fno": (FNO, PLAIN, fno.convert),
}
OFFICIAL: dict[Any, Any] = {FFNO: ffno.to_official, FNO: fno.to_official}
every_network = pytest.mark.parametrize("name", NETWORKS)


def build(name: str, **settings) -> Any:
    make, config, _ = NETWORKS[name]
    torch.manual_seed(0)
    return make(config.model_copy(update=settings)).eval()


def frames(model, *sides: int, batch: int = 2) -> torch.Tensor:
    config, generator = model.config, torch.Generator().manual_seed(1)
    shape = (batch, config.time_history, config.input_channels, *sides)
    return torch.randn(shape, generator=generator)


def official(model) -> dict[str, torch.Tensor]:
    if type(model) in OFFICIAL:
        return OFFICIAL[type(model)](model)
    return model.state_dict()


def test_unet_mod_is_what_its_description_says():
    model = build("unet_mod")
    x = frames(model, 16, 24)
    torch.testing.assert_close(model(x), reference_unet_mod(model, x), rtol=1e-5, atol=1e-5)


def test_fno_is_what_its_equations_say():
    model = build("fno")
    x = frames(model, 8, 10)
    axes = torch.meshgrid(torch.linspace(0, 1, 8), torch.linspace(0, 1, 10), indexing="ij")
    y = torch.cat((x.flatten(1, 2), torch.stack(axes).expand(2, -1, -1, -1)), 1)
    y = torch.einsum("bixy,oi->boxy", y, model.fc0.weight) + model.fc0.bias[:, None, None]
    weights = fno.to_official(model)
    for i, layer in enumerate(model.layers):
        spectrum = torch.fft.rfft2(y)
        mixed = torch.zeros_like(spectrum)
        for corner, rows in ((1, slice(3)), (2, slice(-3, None))):
            block = weights[f"conv{i}.weights{corner}"]
            mixed[:, :, rows, :3] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, rows, :3], block)
        y = torch.fft.irfft2(mixed, s=(8, 10)) + layer.w(y)
        y = functional.gelu(y) if i == 0 else y
    y = functional.gelu(functional.linear(y.movedim(1, -1), model.fc1.weight, model.fc1.bias))
    expected = functional.linear(y, model.fc2.weight, model.fc2.bias).movedim(-1, 1)[:, None]
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalized", [False, True], ids=["bare", "lightning"])
@every_network
def test_official_checkpoints_are_read_and_written(name, normalized, tmp_path):
    model = build(name, normalized=normalized)
    channels = model.config.output_channels
    state = official(model)
    if normalized:
        model.normalizer.set(torch.arange(1.0, 1 + channels), torch.full((channels,), 2.0))
        state = official(model) if isinstance(model, FFNO) else to_lightning(official(model))
    torch.save({"state_dict": state}, tmp_path / "epoch.ckpt")
    again = type(model).from_pretrained(tmp_path / "epoch.ckpt")
    assert again.config == model.config
    x = frames(model, 16, 16)
    assert torch.equal(again(x), model(x))
    assert official(again).keys() == official(model).keys()


def load(make, config, state) -> None:
    load_strict(make(config), state, "this checkpoint")


@every_network
def test_leftovers_on_either_side_are_refused(name):
    make, _, convert = NETWORKS[name]
    state = official(build(name, normalized=False))
    with pytest.raises(UserError, match=r"more\.weight"):
        convert(state | {"more.weight": torch.zeros(1)})
    lost = [key for key in state if key.endswith("bias")][1]
    without = {key: value for key, value in state.items() if key != lost}
    with pytest.raises(UserError, match=r"is incomplete|not filled"):
        load(make, *convert(without))


@every_network
def test_fields_do_not_see_each_other(name):
    model = build(name)
    x = frames(model, 16, 16)
    torch.testing.assert_close(model(x)[1:], model(x[1:]), rtol=1e-4, atol=1e-5)


@every_network
@pytest.mark.parametrize("training", [False, True])
def test_no_fields_give_no_frames(name, training):
    model = build(name).train(training)
    found = model(frames(model, 16, 16, batch=0))
    assert found.shape == (0, 1, model.config.output_channels, 16, 16)
    found.sum().backward()


BAD = {
    "unet_mod": ((15, 16), "multiples of 2, got 15 points along x"),
    "ffno": ((16, 4), r"keeps 4 modes, a grid of \(16, 4\) has 3; give 6 points"),
    "fno": ((16, 5), "takes grids from 6 points an axis"),
}


@pytest.mark.parametrize("name", BAD)
def test_grids_that_do_not_fit_are_refused(name):
    model = build(name)
    sides, message = BAD[name]
    with pytest.raises(UserError, match=message):
        model(frames(model, *sides))


def test_a_circular_pad_larger_than_the_grid_is_refused():
    model = build("dil_resnet", padding=("circular", "circular"))
    with pytest.raises(
        UserError, match=r"padding of 9 needs maps at least as large, got \(8, 16\)"
    ):
        model(frames(model, 8, 16))


def test_ffno_scales_by_the_statistics_of_its_features():
    model = build("ffno")
    batches = [3 + 2 * frames(model, 16, 12), 3 + 2 * frames(model, 16, 12, batch=1)]
    model.count_features(batches)
    mean, sd = model.features.statistics()
    values = torch.cat(batches).movedim(2, 0).flatten(1)
    torch.testing.assert_close(mean.flatten(), values.mean(1))
    torch.testing.assert_close(sd.flatten(), values.std(1, correction=0), rtol=1e-4, atol=0)
    before = model(batches[0])
    model.count_features([2 * x for x in batches])  # the same fields in other units
    torch.testing.assert_close(model(2 * batches[0]), 2 * before, rtol=1e-4, atol=1e-4)


def test_ffno_sees_noise_in_training_alone():
    model = build("ffno")
    x = frames(model, 16, 16)
    assert torch.equal(model(x), model(x))
    assert not torch.equal(model.train()(x), model(x))


def test_ffno_refuses_channels_that_it_cannot_scale():
    with pytest.raises(UserError, match="3 input and 2 output channels do not fit"):
        FFNO(FACTORISED.model_copy(update={"output_channels": 2}))


def test_a_fourier_layer_gives_the_same_function_at_twice_the_grid():
    model = build("fno")
    points = [torch.arange(n) / n for n in (12, 24)]
    fields = [torch.cos(2 * torch.pi * (p[:, None] + 2 * p)).expand(1, 4, -1, -1) for p in points]
    with torch.no_grad():
        coarse, fine = (model.layers[0](field) for field in fields)
    torch.testing.assert_close(fine[..., ::2, ::2], coarse, rtol=0, atol=1e-5)


def test_twice_the_grid_is_padded_by_twice_the_points(monkeypatch):
    model, sizes = build("fno", domain_padding=0.25), []
    model.layers[0].register_forward_hook(lambda _, args, out: sizes.append(args[0].shape[2:]))
    for sides in ((16, 12), (32, 24)):
        assert model(frames(model, *sides)).shape[3:] == sides
    assert sizes == [(20, 15), (40, 30)]
