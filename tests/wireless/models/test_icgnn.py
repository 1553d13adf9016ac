"""ICGNN: what a permutation changes, power, sizes never trained, gradients, export, checkpoints."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfold.core import UserError
from sixfold.core.weights.convert import save_pretrained
from sixfold.core.weights.export import export
from sixfold.wireless import ICGNN, CellFreeICGNN, CellFreeICGNNConfig, ICGNNConfig, precode
from sixfold.wireless.iq.cell_free import draw_layout, strongest_access_points
from sixfold.wireless.iq.mimo_channels import rayleigh
from sixfold.wireless.iq.power_control import POWER_MW, spectral_efficiency
from sixfold.wireless.iq.precoding import equal_structured, sum_rate
from sixfold.wireless.models.icgnn.export import PlanarICGNN, exportable, exportable_cell_free
from sixfold.wireless.models.icgnn.inference import METHODS, run
from sixfold.wireless.models.icgnn.layers import mean_and_max_of_others
from sixfold.wireless.models.icgnn.loss import negative_relative_sum, negative_soft_minimum

NOISE = 0.1


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stirred(model: torch.nn.Module) -> torch.nn.Module:
    """Give the last layer, zero at the start, something to say."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("head.second"):
                parameter.normal_(0, 0.3, generator=seeded(1))
    return model.double().eval()


@pytest.fixture
def network() -> ICGNN:
    torch.manual_seed(0)
    return stirred(ICGNN(ICGNNConfig(width=16, layers=2)))  # type: ignore[return-value]


@pytest.fixture
def allocator() -> CellFreeICGNN:
    torch.manual_seed(0)
    return stirred(CellFreeICGNN(CellFreeICGNNConfig(width=16, layers=2)))  # type: ignore[return-value]


def channels(batch: int, users: int, antennas: int) -> torch.Tensor:
    return rayleigh(batch, users, antennas, generator=seeded(), dtype=torch.float64)


def scene(batch: int, points: int, users: int, each: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    layout = draw_layout(batch, points, users, generator=seeded(), dtype=torch.float64)
    gain = 10 ** (layout.gain_over_noise_db / 10)
    return gain, strongest_access_points(gain, each)


@settings(deadline=None, max_examples=10)
@given(users=st.integers(1, 7), antennas=st.integers(1, 9))
def test_any_size_uses_all_power(users, antennas):
    model = stirred(ICGNN(ICGNNConfig(width=8, layers=2)))
    precoder = model(channels(3, users, antennas), NOISE)
    assert precoder.shape == (3, antennas, users)
    power = precoder.abs().square().sum((1, 2))
    torch.testing.assert_close(power, torch.ones_like(power), rtol=1e-9, atol=0.0)


def test_permuting_users_permutes_precoders(network):
    channel, order = channels(4, 5, 6), torch.tensor([3, 0, 4, 1, 2])
    found = network(channel[:, order], NOISE)
    torch.testing.assert_close(found, network(channel, NOISE)[..., order], rtol=0, atol=1e-10)


def test_a_unitary_change_of_antennas_changes_no_number(network):
    channel = channels(4, 5, 6)
    unitary = torch.linalg.qr(channels(1, 6, 6)[0]).Q
    for found, expected in zip(
        network.allocate(channel @ unitary, NOISE), network.allocate(channel, NOISE), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_the_unit_of_the_channel_does_not_matter(network):
    channel = channels(4, 5, 6)
    found = network(1e-3 * channel, 1e-6 * NOISE)
    torch.testing.assert_close(found, network(channel, NOISE), rtol=0, atol=1e-9)


def test_untrained_it_is_the_equal_structured_precoder():
    channel = channels(4, 5, 6)
    model = ICGNN(ICGNNConfig(width=8, layers=1)).double()
    torch.testing.assert_close(model(channel, NOISE), equal_structured(channel, NOISE))


def test_as_many_steps_as_users_are_exact(network):
    channel = channels(4, 5, 6)
    exact = network(channel, NOISE)
    torch.testing.assert_close(network(channel, NOISE, 5), exact, rtol=0, atol=1e-9)
    assert (network(channel, NOISE, 2) - exact).abs().max() > 1e-3


def test_a_batch_of_two_equals_two_batches_of_one(network):
    channel, noise = channels(2, 5, 6), torch.tensor([0.1, 1.0], dtype=torch.float64)
    both = network(channel, noise)
    for i in range(2):
        torch.testing.assert_close(network(channel[i : i + 1], noise[i : i + 1])[0], both[i])


def test_training_raises_the_sum_rate_where_users_are_as_many_as_antennas():
    torch.manual_seed(0)
    model = ICGNN(ICGNNConfig(width=32, layers=2))
    optimizer, generator = torch.optim.Adam(model.parameters(), 3e-3), seeded(5)
    for _ in range(60):
        channel = rayleigh(64, 4, 4, generator=generator)
        loss = -sum_rate(channel, model(channel, NOISE, 4), NOISE).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    test = rayleigh(200, 4, 4, generator=seeded(6))
    with torch.no_grad():
        trained = sum_rate(test, model(test, NOISE), NOISE).mean()
    assert trained > 1.05 * sum_rate(test, equal_structured(test, NOISE), NOISE).mean()


def test_it_compiles_whole(unchecked):
    torch.compiler.reset()  # what other tests compiled counts against the limit of recompilations
    model = ICGNN(ICGNNConfig(width=8, layers=1))
    channel = rayleigh(2, 3, 4, generator=seeded())
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(channel, NOISE, 3), model(channel, NOISE, 3))


def test_its_export_equals_eager_at_other_sizes(tmp_path, unchecked):
    model = stirred(ICGNN(ICGNNConfig(width=8, layers=1))).float()
    ready = exportable(model)  # type: ignore[arg-type]
    ready = ready._replace(module=PlanarICGNN(model, steps=2).eval())  # type: ignore[arg-type]
    report = export(
        ready.module, ready.inputs, tmp_path / "a", dynamic=ready.dynamic, outputs=ready.outputs
    )
    assert set(report["onnx"]["max_abs_error"]) == {"example", "twice the example", "smallest"}


def test_the_exported_form_is_the_network(network):
    channel = channels(3, 5, 6)
    planar = exportable(network).module
    noise = torch.full((3,), NOISE, dtype=torch.float64)
    found = torch.view_as_complex(planar(torch.view_as_real(channel), noise))
    torch.testing.assert_close(found, network(channel, NOISE, 16), rtol=0, atol=1e-10)


def test_the_export_of_the_allocation_equals_eager(tmp_path, unchecked):
    model = stirred(CellFreeICGNN(CellFreeICGNNConfig(width=8, layers=1))).float()
    ready = exportable_cell_free(model)  # type: ignore[arg-type]
    export(
        ready.module,
        ready.inputs,
        tmp_path / "a",
        dynamic=ready.dynamic,
        outputs=ready.outputs,
        tolerance=1e-3,  # of 1000 mW
    )


@pytest.mark.parametrize(("kind", "config"), [
    (ICGNN, ICGNNConfig(width=8, layers=3)),
    (CellFreeICGNN, CellFreeICGNNConfig(width=8, layers=3)),
])  # fmt: skip
def test_saved_and_loaded_it_is_the_same(kind, config, tmp_path):
    model = kind(config)
    name = "icgnn" if kind is ICGNN else "icgnn_cell_free"
    save_pretrained(tmp_path / "a.safetensors", model, name, config)
    torch.save(model.state_dict(), tmp_path / "b.pt")
    for file in ("a.safetensors", "b.pt"):
        loaded = kind.from_pretrained(tmp_path / file)
        assert loaded.config == config
        for key, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value)


def test_a_checkpoint_with_a_key_missing_or_more_is_refused(tmp_path):
    state = ICGNN(ICGNNConfig(width=8, layers=2)).state_dict()
    short = {k: v for k, v in state.items() if k != "layers.1.update.norm.bias"}
    for wrong in (short, state | {"layers.1.update.norm.extra": torch.zeros(1)}):
        torch.save(wrong, tmp_path / "a.pt")
        with pytest.raises(UserError, match=r"layers\.1\.update\.norm"):
            ICGNN.from_pretrained(tmp_path / "a.pt")


@settings(deadline=None, max_examples=10)
@given(points=st.integers(1, 9), users=st.integers(1, 6))
def test_no_access_point_exceeds_its_power(points, users):
    model = stirred(CellFreeICGNN(CellFreeICGNNConfig(width=8, layers=2)))
    gain, serve = scene(3, points, users, each=1)
    power = torch.full((3, points), 700.0, dtype=torch.float64)
    eta = model(gain, serve, 2, power)
    assert bool((eta.sum(-1) <= 700 * (1 + 1e-12)).all())
    assert bool((eta >= 0).all())
    assert bool((eta[~serve] == 0).all())
    idle = ~serve.any(-1)
    assert bool((eta[idle] == 0).all())
    assert bool((eta.sum(-1)[~idle] > 0).all())


def test_the_allocation_follows_the_order_of_access_points_and_users(allocator):
    gain, serve = scene(2, 8, 5)
    points, users = torch.randperm(8, generator=seeded()), torch.randperm(5, generator=seeded())
    expected = allocator(gain, serve, 2)[:, points][:, :, users]
    found = allocator(gain[:, points][:, :, users], serve[:, points][:, :, users], 2)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_allocation_has_gradients_where_an_access_point_serves_nobody(allocator):
    gain, serve = scene(2, 8, 2, each=1)
    assert not serve.any(-1).all()
    rates = spectral_efficiency(gain, allocator(gain, serve, 2), 2)
    negative_relative_sum(rates, torch.ones_like(rates)).backward()
    gradients = [p.grad for p in allocator.parameters()]
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients)
    assert any(bool((g != 0).any()) for g in gradients if g is not None)


def test_the_largest_of_the_others_is_found_without_looking_at_pairs():
    x = torch.tensor([[1.0], [5.0], [3.0], [9.0]])
    present = torch.tensor([True, True, True, False])
    found = mean_and_max_of_others(x, present)
    expected = [[4.0, 5.0], [2.0, 3.0], [3.0, 5.0], [0.0, 0.0]]
    torch.testing.assert_close(found, torch.tensor(expected))
    alone = mean_and_max_of_others(x, torch.tensor([True, False, False, False]))
    assert not alone.any()


def test_the_soft_minimum_lies_between_minimum_and_mean():
    rates = torch.tensor([[1.0, 2.0, 6.0]])
    assert float(negative_soft_minimum(rates, 1e-3)) == pytest.approx(-1.0, abs=1e-2)
    assert float(negative_soft_minimum(rates, 1e3)) == pytest.approx(-3.0, abs=1e-2)
    assert float(negative_relative_sum(rates, rates / 3)) == pytest.approx(-3.0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e-30])
def test_precoders_have_the_power_asked_for_at_any_scale(method, scale, network):
    channel = channels(6, 3, 4).reshape(2, 3, 3, 4)  # subcarriers in front
    model = network if method == "icgnn" else None
    found = precode(
        scale * channel, noise_power_w=NOISE * scale**2, power_w=5.0, method=method, model=model
    )
    power = found.abs().square().sum((-2, -1))
    torch.testing.assert_close(power, torch.full_like(power, 5.0), rtol=1e-6, atol=0.0)
    plain = precode(channel, noise_power_w=NOISE, power_w=5.0, method=method, model=model)
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-6)


def test_numpy_in_numpy_out_and_the_command(tmp_path, network):
    channel = channels(2, 3, 4).numpy()
    found = precode(channel, noise_power_w=NOISE, power_w=1.0, method="rzf")
    assert isinstance(found, np.ndarray)
    np.save(tmp_path / "h.npy", channel)
    run(tmp_path / "h.npy", tmp_path / "w.npy", noise_power_w=NOISE, method="rzf")
    np.testing.assert_array_equal(np.load(tmp_path / "w.npy"), found)
    with pytest.raises(UserError, match=r"h.npy is the input"):
        run(tmp_path / "h.npy", tmp_path / "h.npy", noise_power_w=NOISE, method="rzf")
    np.testing.assert_array_equal(np.load(tmp_path / "h.npy"), channel)


@pytest.mark.parametrize(("change", "words"), [
    ({"noise_power_w": -1.0}, "noise_power_w is -1"),
    ({"power_w": 0.0}, "power_w is 0.0; give a positive"),
    ({"power_w": [1.0]}, r"power_w is \[1.0\]; give a positive"),
    ({"power_w": None}, "power_w should be a tensor or an array of numbers"),
    ({"method": "icgnn", "model": ICGNN(ICGNNConfig(width=8, layers=1)).half()}, "by .float()"),
    ({"method": "icgnn", "model": ICGNN(ICGNNConfig(width=8, layers=1)), "steps": 2.5},
     r"steps is 2.5"),
    ({"method": "rzff"}, "did you mean 'rzf'"),
    ({"method": "icgnn"}, "needs a trained network"),
    ({"steps": 3}, "belong to method='icgnn'"),
    ({"method": "icgnn", "model": ICGNN(ICGNNConfig(width=8, layers=1)), "steps": 10**20},
     "steps is 1000.*; give 1 to 10000"),
    ({"method": "icgnn", "model": ICGNN(ICGNNConfig(width=8, layers=1)), "steps": 0}, "steps is 0"),
    ({"method": "wmmse", "noise_power_w": 1e300}, "out of the range of floats; scale both"),
    ({"channel": torch.ones(3, 4)}, "torch.view_as_complex"),
    ({"channel": torch.full((2, 2, 2), torch.nan + 0j)}, r"first at \[0, 0, 0\]"),
    ({"channel": torch.zeros(2, 2, 2) + 0j}, r"at \[0\] is zero"),
])  # fmt: skip
def test_bad_input_is_answered_in_words(change, words, unchecked):
    given = {"channel": channels(2, 3, 4), "noise_power_w": NOISE, "power_w": 1.0, "method": "rzf"}
    given |= change
    with pytest.raises(UserError, match=words):
        precode(given.pop("channel"), **given)


@pytest.mark.parametrize("method", METHODS)
def test_more_users_than_antennas_rank_one_and_one_user_are_allowed(method, network):
    model = network if method == "icgnn" else None
    options = {"noise_power_w": NOISE, "power_w": 1.0, "method": method, "model": model}
    with pytest.warns(UserWarning, match="5 users are more than 3 antennas"):
        found = [precode(channels(2, 5, 3), **options)]
    same = channels(2, 1, 4).expand(2, 3, 4).contiguous()
    found += [precode(same, **options), precode(channels(2, 1, 4), **options)]
    single = options | {"noise_power_w": 1e-8, "model": model and model.float()}  # 80 dB
    found.append(precode(same.to(torch.complex64), **single))
    for precoder in found:
        assert float(precoder.abs().square().sum((1, 2)).sub(1).abs().max()) < 1e-6


def test_the_default_power_is_that_of_the_paper_behind_the_layout():
    gain, serve = scene(1, 4, 2, each=2)
    eta = CellFreeICGNN(CellFreeICGNNConfig(width=8, layers=1)).double()(gain, serve, 2)
    full = eta.sum(-1)[serve.any(-1)]
    torch.testing.assert_close(full, torch.full_like(full, 0.952574 * POWER_MW), rtol=1e-5, atol=0)
