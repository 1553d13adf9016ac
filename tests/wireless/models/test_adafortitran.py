import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from own_channels import GRID, PILOTS, SIZES, slots, tiny, write_npz

from sixfold.core import UserError, train
from sixfold.core.weights.export import export
from sixfold.wireless.data.own_channels import read_channels
from sixfold.wireless.iq.estimators import bilinear
from sixfold.wireless.models import adafortitran
from sixfold.wireless.models.adafortitran import (
    AdaFortiTran,
    AdaFortiTranConfig,
    FortiTran,
    FortiTranConfig,
    Linear,
    LinearConfig,
)
from sixfold.wireless.models.adafortitran.export import exportable
from sixfold.wireless.models.adafortitran.layers import ConvEnhancer, from_patches, to_patches
from sixfold.wireless.models.adafortitran.training import (
    mse_loss,
    nmse_db,
    open_channels,
    relative_loss,
    start_linear,
)

LINEAR = {name: SIZES[name] for name in ("subcarriers", "pilot_subcarriers")}
CONDITIONS = ("snr_db", "delay_spread_s", "max_doppler_hz")


def networks() -> list:
    torch.manual_seed(0)
    return [tiny(), FortiTran(FortiTranConfig(**SIZES)), Linear(LinearConfig(**LINEAR))]


def arguments(model, batch: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pilots = torch.randn(batch, 4, 2, 2, generator=generator)
    conditions = torch.tensor([10.0, 1e-7, 200.0]).repeat(batch, 1)
    return [pilots, conditions] if model.adaptive else [pilots]


every_network = pytest.mark.parametrize("model", networks(), ids=lambda m: m.system_name)


@every_network
def test_a_batch_is_its_samples(model):
    together = model.eval()(*arguments(model))
    alone = [model(*(a[i : i + 1] for a in arguments(model))) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-6)


@every_network
def test_real_and_imaginary_parts_do_not_mix(model):
    given = arguments(model)
    plain = model.eval()(*given)
    given[0] = given[0].flip(-1)
    torch.testing.assert_close(model(*given), plain.flip(-1), rtol=1e-4, atol=1e-6)


@every_network
def test_it_compiles_whole(model, unchecked):
    compiled = torch.compile(model.eval(), fullgraph=True, backend="eager")
    given = arguments(model)
    torch.testing.assert_close(compiled(*given), model(*given))


@pytest.mark.slow
@every_network
def test_it_exports_for_any_number_of_slots(model, tmp_path, unchecked):
    made = exportable(model)  # `export` compares the files with the model
    export(model, made.inputs, tmp_path / "out", dynamic=made.dynamic, outputs=made.outputs)
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"model.onnx", "model.pt2"} <= files


def test_patches_are_row_major_and_go_back():
    grid = torch.arange(24.0).reshape(1, 6, 4)
    patches = to_patches(grid, (3, 2))
    assert patches[0, 1].tolist() == [2, 3, 6, 7, 10, 11]
    assert patches[0, 2, 0] == 12
    assert torch.equal(from_patches(patches, (3, 2), 6), grid)


def test_an_enhancer_can_be_the_identity():
    enhancer, grid = ConvEnhancer(), torch.randn(2, 1, 5, 7)
    enhancer.become_identity()
    torch.testing.assert_close(enhancer(grid), grid)


def test_the_start_is_the_best_linear_map_and_training_improves_on_interpolation(tmp_path):
    found = read_channels(write_npz(tmp_path / "mine.npz", 300))
    losses = []
    for model in networks():
        slots, held = open_channels(model, found, 0.2, None, 0)
        start_linear(model, slots)
        losses.append(nmse_db(model.eval(), held)["nmse_db"])
    assert max(losses) - min(losses) < 1e-3  # all three are the same map
    h = torch.view_as_complex(held.tensors["target"])
    pilots = torch.view_as_complex(held.tensors["pilots"])
    error = (bilinear(pilots, PILOTS, GRID) - h).abs().square().mean() / h.abs().square().mean()
    assert losses[0] < 10 * math.log10(error)


def test_the_relative_loss_weighs_samples_by_their_bounds():
    model = tiny().eval()
    pilots, conditions = arguments(model)
    batch = {"pilots": pilots, "conditions": conditions}
    batch["target"] = model(pilots, conditions).detach() + 0.1
    batch["bound"] = torch.full((3,), 0.5)
    assert mse_loss(model, batch).item() == pytest.approx(0.01, rel=1e-4)
    assert relative_loss(model, batch).item() == pytest.approx(0.04, rel=1e-4)


def test_fit_resumes_saves_and_estimates(tmp_path):
    """A training in two parts ends where one in a single part does."""
    data = write_npz(tmp_path / "mine.npz", 120)
    settings = {"batch": 32, "learning_rate": 1e-3, "log_every": 100, "threads": 1}
    whole, parts = tiny(), tiny()
    whole.fit(data, tmp_path / "whole", steps=8, **settings)
    parts.fit(data, tmp_path / "parts", steps=4, **settings)
    scores = tiny().fit(data, tmp_path / "parts", steps=8, **settings)
    loaded = AdaFortiTran.from_pretrained(tmp_path / "parts" / "model.safetensors")
    fresh = slots(20, seed=9)
    given = {name: fresh[name] for name in CONDITIONS}
    estimate = loaded.estimate(fresh["pilots"], **given)
    assert isinstance(estimate, np.ndarray)
    assert estimate.dtype == np.complex64
    np.testing.assert_allclose(estimate, whole.estimate(fresh["pilots"], **given), atol=1e-5)
    error = np.abs(estimate - fresh["H"]) ** 2
    assert 10 * np.log10(error.mean()) < scores["nmse_db"] + 3 < -5
    torch.testing.assert_close(
        loaded.estimate(torch.tensor(fresh["pilots"][0]), snr_db=20.0, delay_spread_s=1e-7,
                        max_doppler_hz=fresh["max_doppler_hz"][0]),
        torch.tensor(estimate[0]), rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_results_do_not_change_when_channels_are_a_millionth(tmp_path):
    scores = []
    for scale in (1.0, 1e-6):
        data = write_npz(tmp_path / f"{scale}.npz", 100, scale)
        model = tiny()
        found = model.fit(data, tmp_path / f"run{scale}", steps=5, batch=25, threads=1)
        scores.append(found["nmse_db"])
        assert model.config.channel_rms == pytest.approx(scale, rel=0.3)
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    pilots = slots(4)["pilots"]
    given = {"snr_db": 20.0, "delay_spread_s": 1e-7, "max_doppler_hz": 100.0}
    large = model.estimate(pilots, **given, channel_rms=1e6 * model.config.channel_rms)
    np.testing.assert_allclose(1e-6 * large, model.estimate(1e-6 * pilots, **given), rtol=1e-3)


def test_sixfold_train_builds_for_the_data(tmp_path):
    data = write_npz(tmp_path / "mine.npz", 60)
    model: Any = train(
        "wireless/fortitran", data=data, out=tmp_path / "run", steps=2, batch=16,
        set=["patch=[3,7]", "layers=1", "width=16"],
    )  # fmt: skip
    assert model.config.subcarriers == 12
    assert model.config.pilot_subcarriers == 4
    assert (tmp_path / "run" / "model.safetensors").is_file()
    far = write_npz(tmp_path / "far.npz", 9, scale=1e-30)
    with pytest.raises(UserError, match=r"H has a level of .*, at which 32-bit floats end"):
        train("wireless/linear", data=far, out=tmp_path / "far")
    held = write_npz(tmp_path / "held.npz", 9)
    model = train("wireless/linear", data=data, valid=held, out=tmp_path / "more", steps=1)
    assert model.config.subcarriers == 12


def test_conditions_that_are_missing_are_asked_for_or_estimated():
    model, pilots = tiny(), slots(4)["pilots"]
    with pytest.raises(UserError, match="needs snr_db, max_doppler_hz; give them, or the places"):
        model.estimate(pilots, delay_spread_s=1e-7)
    small = {"snr_db": 20.0, "delay_spread_s": 1e-7}
    with pytest.raises(UserError, match="4 pilot subcarriers cannot tell noise"):
        model.estimate(pilots, **small, pattern=PILOTS)


def test_conditions_outside_the_trained_range_are_warned_of():
    model = tiny()
    limits = ((0.0, 25.0), (1e-8, 3e-7), (50.0, 1000.0))
    model.config = model.config.model_copy(update={"conditions_range": limits})
    pilots, inside = slots(2)["pilots"], {"delay_spread_s": 3e-7, "max_doppler_hz": 50.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.estimate(pilots, snr_db=25.0, **inside)
    with pytest.warns(UserWarning, match="snr_db is 30 to 30, but the network was trained on 0"):
        model.estimate(pilots, snr_db=30.0, **inside)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"patch": (7, 2)}, "patches of 7 x 2 do not divide a grid of 120 x 14"),
        ({"max_tokens": 100}, "280 patches are more than max_tokens, 100"),
        ({"heads": 3}, "a width of 128 is not divisible by 3 heads"),
    ],
)
def test_sizes_that_do_not_fit_are_named(values, message):
    with pytest.raises(UserError, match=message):
        AdaFortiTranConfig.parse(values, "settings")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.bfloat16, 0.1)])
def test_estimates_of_another_precision_are_nearly_the_same(dtype, tolerance):
    pilots = slots(4, seed=3)["pilots"]
    given = {"snr_db": 20.0, "delay_spread_s": 1e-7, "max_doppler_hz": 100.0}
    model = tiny().eval()
    plain = model.estimate(pilots, **given)
    found = model.to(dtype).estimate(pilots, **given)
    np.testing.assert_allclose(found, plain, atol=tolerance * np.abs(plain).max())


def test_conditions_that_are_not_finite_are_named():
    pilots = slots(2, seed=3)["pilots"]
    with pytest.raises(UserError, match="snr_db is NaN or infinite"):
        tiny().estimate(pilots, snr_db=np.nan, delay_spread_s=1e-7, max_doppler_hz=100.0)


def test_bad_pilots_are_named():
    model = Linear(LinearConfig(**LINEAR))
    with pytest.raises(UserError, match="got pilots on 5 subcarriers x 2 symbols"):
        model.estimate(np.zeros((1, 5, 2), np.complex64))
    with pytest.raises(UserError, match="give complex numbers"):
        model.estimate(np.zeros((1, 4, 2)))
    with pytest.raises(UserError, match=r"of shape \(0, 4, 2\); give complex numbers"):
        model.estimate(np.zeros((0, 4, 2), np.complex64))
    broken = np.zeros((2, 4, 2), np.complex64)
    broken[1, 2, 0] = np.nan
    with pytest.raises(UserError, match=r"the first at \(1, 2, 0\)"):
        model.estimate(broken)


def test_an_official_checkpoint_is_read_whole(tmp_path):
    """A dict with the weights under model_state_dict; sizes that weights do not say are given."""
    model = tiny().eval()
    torch.save({"model_state_dict": model.state_dict(), "epoch": 3}, tmp_path / "official.pt")
    settings = {"heads": 2, "patch": (3, 7), "dropout": 0.0, "condition_scaling": True}
    loaded = AdaFortiTran.from_pretrained(tmp_path / "official.pt", **settings)
    assert loaded.config == model.config
    given = arguments(model)
    torch.testing.assert_close(loaded(*given), model(*given))


def test_a_checkpoint_of_another_grid_needs_only_what_its_weights_do_not_say(tmp_path):
    sizes = {"subcarriers": 20, "symbols": 12, "pilot_subcarriers": 5, "pilot_symbols": 3}
    sizes |= {"patch": (5, 4), "heads": 2}
    config = FortiTranConfig.parse(SIZES | sizes | {"max_tokens": 12}, "settings")
    torch.save(FortiTran(config).state_dict(), tmp_path / "official.pt")
    loaded = FortiTran.from_pretrained(tmp_path / "official.pt", **sizes, dropout=0.0)
    assert loaded.config == config
    assert loaded(torch.randn(2, 5, 3, 2)).shape == (2, 20, 12, 2)


@pytest.mark.parametrize("damage", ["missing", "unknown"])
def test_a_checkpoint_with_other_keys_is_refused(damage):
    state = tiny().state_dict()
    if damage == "missing":
        del state["channel_adapter.dop_encoder.4.bias"]
    else:
        state["channel_adapter.fourth_encoder.0.bias"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"dop_encoder\.4\.bias|fourth_encoder"):
        adafortitran.convert(state)


def test_pilots_beyond_floats_are_refused_instead_of_estimated_as_nan():
    model = Linear(LinearConfig(**LINEAR))
    with pytest.raises(UserError, match="the estimate is not finite: pilots of up to 3e"):
        model.estimate(np.full((1, 4, 2), 3e38, np.complex64))
