"""``sixfold train wireless/icgnn`` and ``wireless/icgnn_cell_free`` on one's own files."""

import numpy as np
import pytest
import torch
from scipy.io import savemat

from sixfold.core import UserError, train
from sixfold.wireless import allocate_power, precode
from sixfold.wireless.data.own_mimo import read_layouts, read_mimo
from sixfold.wireless.data.power_allocation import Size, draw
from sixfold.wireless.iq.mimo_channels import rayleigh
from sixfold.wireless.models.icgnn import inference
from sixfold.wireless.models.icgnn.allocation import run

SMALL = ["width=8", "layers=1"]


def channels(count: int = 20) -> np.ndarray:
    return rayleigh(count, 3, 3, generator=torch.Generator().manual_seed(0)).numpy()


def score(out, name: str) -> list[float]:
    """Return the scores of a curve."""
    header, *rows = (out / "curve.csv").read_text().splitlines()
    column = header.split(",").index(name)
    return [float(row.split(",")[column]) for row in rows if row.split(",")[column]]


def test_precoders_go_into_a_file_of_numpy_under_the_name_given(tmp_path):
    np.save(tmp_path / "h.npy", channels())
    with pytest.raises(UserError, match=r"into an .npy file, got w\.bin"):
        inference.run(tmp_path / "h.npy", tmp_path / "w.bin", noise_power_w=0.1, method="rzf")
    assert [file.name for file in tmp_path.iterdir()] == ["h.npy"]


def test_precoding_is_learnt_from_own_channels_of_any_scale(tmp_path):
    curves = []
    for scale in (1.0, 1e-6):
        arrays = {"H": scale * channels(), "noise_power_w": 0.1 * scale**2}
        np.savez(tmp_path / "mine.npz", **arrays)
        out = tmp_path / f"{scale}"
        arguments = {"steps": 20, "batch": 16, "eval_every": 10, "set": SMALL}
        train("wireless/icgnn", data=tmp_path / "mine.npz", out=out, valid=0.2, **arguments)
        curves.append(score(out, "percent_of_wmmse"))
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)
    assert 60 < curves[0][-1] <= 101
    weights = tmp_path / "1.0" / "model.safetensors"
    found = precode(channels(), noise_power_w=0.1, power_w=1.0, model=weights)
    assert found.shape == (20, 3, 3)


def test_a_file_of_matlab_says_what_an_npz_says(tmp_path):
    noise = np.linspace(0.1, 0.2, 20)
    arrays: dict = {"H": channels(), "noise_power_w": noise, "power_w": 2.0}
    savemat(tmp_path / "mine.mat", arrays | {"noise_power_w": noise[:, None], "unrelated": 1.0})
    np.savez(tmp_path / "mine.npz", **arrays)
    found, expected = (
        read_mimo(tmp_path / f"mine.{end}", (0.0, 20.0), 0) for end in ("mat", "npz")
    )
    for name, value in expected.items():
        assert torch.equal(found[name], value)
    drawn = draw(Size(6, 3, 2, 3), 4, torch.Generator().manual_seed(0))
    layouts = {name: drawn[name].numpy() for name in ("gain", "serve", "antennas")}
    savemat(tmp_path / "layouts.mat", layouts)
    assert torch.equal(read_layouts(tmp_path / "layouts.mat")["serve"], drawn["serve"])


def test_own_layouts_are_allocated_from_the_command_line(tmp_path):
    drawn = draw(Size(6, 3, 2, 3), 4, torch.Generator().manual_seed(0))
    arrays: dict = {name: drawn[name].numpy() for name in ("gain", "serve", "antennas")}
    np.savez(tmp_path / "mine.npz", **arrays)
    run(tmp_path / "mine.npz", tmp_path / "power.npz", method="max_min")
    found = np.load(tmp_path / "power.npz")["allocated_mw"]
    expected = allocate_power(**arrays, method="max_min")
    np.testing.assert_array_equal(found, expected)


def test_power_allocation_is_learnt_from_own_layouts(tmp_path):
    drawn = draw(Size(6, 3, 2, 3), 20, torch.Generator().manual_seed(0))
    arrays: dict = {name: drawn[name].numpy() for name in ("gain", "serve", "antennas")}
    np.savez(tmp_path / "mine.npz", **arrays)
    arguments = {"steps": 20, "batch": 16, "set": SMALL, "valid": 0.2}
    out = tmp_path / "run"
    train("wireless/icgnn_cell_free", data=tmp_path / "mine.npz", out=out, **arguments)
    assert 30 < score(out, "percent_of_gradient")[-1] < 101


def test_snrs_are_drawn_where_the_noise_is_unknown(tmp_path):
    np.savez(tmp_path / "mine.npz", H=channels(200))
    noise_db = -10 * read_mimo(tmp_path / "mine.npz", (5.0, 10.0), seed=0)["noise"].log10()
    assert 5 <= noise_db.min() < 6
    assert 9 < noise_db.max() <= 10


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"h": np.ones((2, 2, 2))}, "no array 'h'; it has: H"),
        ({"noise_power_w": 1.0}, "holds no array H"),
        ({"H": np.ones((2, 2, 2))}, "H is torch.float64 of shape"),
        ({"H": np.zeros((1, 2, 2), complex)}, r"H\[0\] is 0"),
        ({"H": np.full((1, 2, 2), np.inf + 0j)}, r"H is not finite at \(0, 0, 0\)"),
        ({"H": channels(2), "noise_power_w": "1e-9"}, "noise_power_w is <U4; write numbers"),
        ({"H": channels(2), "noise_power_w": -1.0}, "noise_power_w has values that are not"),
        ({"H": channels(2), "noise_power_w": np.ones(3)}, r"shape \(3,\), which should be \(2,\)"),
    ],
)
def test_bad_channels_are_named(arrays, message, tmp_path):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(UserError, match=message):
        read_mimo(tmp_path / "mine.npz", (0.0, 20.0), seed=0)


def test_bad_layouts_are_named(tmp_path):
    gain, serve = np.ones((1, 3, 2)), np.ones((1, 3, 2), bool)
    serve[:, :, 1] = False
    np.savez(tmp_path / "mine.npz", gain=gain, serve=serve)
    with pytest.raises(UserError, match="nobody serves user 1 of layout 0"):
        read_layouts(tmp_path / "mine.npz")
    np.savez(tmp_path / "mine.npz", gain=gain, serve=gain)
    with pytest.raises(UserError, match="write reals and booleans"):
        read_layouts(tmp_path / "mine.npz")
