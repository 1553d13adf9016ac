"""Power allocation of own layouts: every method's constraints, and what is refused."""

import numpy as np
import pytest
import torch

from sixfold.core import UserError
from sixfold.wireless import CellFreeICGNN, CellFreeICGNNConfig, allocate_power
from sixfold.wireless.iq.cell_free import draw_layout, strongest_access_points
from sixfold.wireless.models.icgnn.allocation import METHODS, run


@pytest.fixture
def scene() -> tuple[torch.Tensor, torch.Tensor]:
    layout = draw_layout(2, 6, 3, generator=torch.Generator().manual_seed(0))
    gain = 10 ** (layout.gain_over_noise_db / 10)
    return gain, strongest_access_points(gain, 1)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_within_power_and_serves_only_its_users(method, scene):
    gain, serve = scene
    assert not serve.any(-1).all(), "an access point should serve nobody here"
    model = CellFreeICGNN(CellFreeICGNNConfig(width=8, layers=1)) if method == "icgnn" else None
    power = torch.full((2, 6), 200.0)
    eta = allocate_power(gain, serve, antennas=2, power_mw=power, method=method, model=model)
    assert eta.shape == gain.shape
    assert float(eta.sum(-1).max()) <= 200 * (1 + 1e-5)
    assert bool((eta[~serve] == 0).all())
    assert bool((eta.sum(1) > 0).any())
    array = allocate_power(
        gain.numpy(), serve.numpy(), antennas=2, power_mw=200.0, method=method, model=model
    )
    assert isinstance(array, np.ndarray)
    np.testing.assert_allclose(array, eta.numpy(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("method", ["equal", "projected_gradient"])
def test_gains_in_half_precision_are_shared_as_in_single(method, scene):
    gain, serve = scene[0].half(), scene[1]
    found = allocate_power(gain, serve, method=method)
    expected = allocate_power(gain.float(), serve, method=method)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("change", "words"), [
    ({"power_mw": -3.0}, "power_mw is -3; give positive"),
    ({"antennas": 0}, "antennas is 0"),
    ({"antennas": [1, 2]}, r"antennas is of shape \(2,\); give one number, or one for each of"),
    ({"gain": torch.full((2, 6, 3), -60.0)}, r"gain is -60 at \[0, 0, 0\]; .* not in dB"),
    ({"gain": torch.ones(6, 3)}, r"gain\[None\]"),
    ({"serve": torch.ones(2, 6, 3)}, "give booleans"),
    ({"serve": torch.zeros(2, 6, 3, dtype=torch.bool)}, "nobody serves user 0 of layout 0"),
    ({"method": "equall"}, "did you mean 'equal'"),
    ({"method": "icgnn"}, "needs a trained network"),
    ({"model": "weights.safetensors"}, "belongs to method='icgnn'"),
])  # fmt: skip
def test_bad_input_is_answered_in_words(change, words, scene):
    given = {"gain": scene[0], "serve": scene[1], "method": "equal"} | change
    with pytest.raises(UserError, match=words):
        allocate_power(given.pop("gain"), given.pop("serve"), **given)


def test_the_layouts_are_not_replaced_by_their_powers(scene, tmp_path):
    path = tmp_path / "layouts.npz"
    np.savez(path, gain=scene[0].numpy(), serve=scene[1].numpy())
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"layouts.npz is the input"):
        run(path, path, method="equal")
    assert path.read_bytes() == before
