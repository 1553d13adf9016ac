import re

import h5py
import numpy as np
import pytest
from own_channels import PILOTS, slots
from scipy.io import savemat

from sixfold.core import UserError
from sixfold.wireless.data.own_channels import read_channels

NAME = "{}_SNR-10_DS-100_DOP-200_N-3_TDL-A.mat"


def official() -> np.ndarray:
    """Return what the generator saves: (subcarrier, symbol, truth and estimates), complex."""
    arrays = slots(1)
    both = np.zeros((12, 14, 2), np.complex128)
    both[..., 0] = arrays["H"][0]
    both[np.ix_(PILOTS.subcarriers, PILOTS.symbols, [1])] = arrays["pilots"][0][..., None]
    return both


def test_mat_files_of_both_versions_are_read_alike(tmp_path):
    both = official()
    savemat(tmp_path / NAME.format(1), {"H": both})
    pairs = np.zeros(both.T.shape, [("real", "f8"), ("imag", "f8")])
    reversed_axes = both.transpose()  # as HDF5 holds MATLAB's
    pairs["real"], pairs["imag"] = np.real(reversed_axes), np.imag(reversed_axes)
    with h5py.File(tmp_path / NAME.format(2), "w", userblock_size=512) as file:
        file["H"] = pairs
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    content = (tmp_path / NAME.format(2)).read_bytes()
    (tmp_path / NAME.format(2)).write_bytes(header + content[len(header) :])
    found = read_channels(tmp_path)
    assert found.pilots == PILOTS
    assert found.estimates is not None
    for sample in range(2):
        np.testing.assert_allclose(found.channels[sample], both[..., 0], rtol=1e-6)
        np.testing.assert_allclose(found.estimates[sample], slots(1)["pilots"][0], rtol=1e-6)
    assert found.conditions["delay_spread_s"].tolist() == pytest.approx([1e-7, 1e-7])
    assert found.conditions["max_doppler_hz"].tolist() == [200.0, 200.0]


def test_an_estimate_of_zero_does_not_lose_its_pilot(tmp_path):
    arrays = slots(3)
    ls = np.zeros_like(arrays["H"])
    ls[np.ix_(range(3), PILOTS.subcarriers, PILOTS.symbols)] = arrays["pilots"]
    ls[1, 4, 2] = 0
    np.savez(tmp_path / "mine.npz", H=arrays["H"], ls=ls)
    assert read_channels(tmp_path / "mine.npz").pilots == PILOTS


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ls": np.ones((1, 2, 2))}, "holds no array H"),
        ({"H": np.ones((1, 2, 2)), "snr": 1}, "did you mean 'snr_db'"),
        ({"H": np.ones((2, 2))}, "H has 2 axes"),
        ({"H": np.zeros((1, 2, 2))}, "is 0 everywhere"),
        ({"H": np.full((1, 2, 2), np.nan)}, r"4 values that are not finite, the first at \(0, 0"),
        ({"H": np.ones((1, 2, 2)), "snr_db": "10"}, "snr_db is of type <U2; write numbers"),
        ({"H": np.ones((1, 2, 2)), "snr_db": 1j}, "snr_db is of type complex128"),
        ({"H": np.full((1, 2, 2), 1e300)}, "4 values that are not finite"),
        ({"H": np.full((1, 2, 2), 1e-300)}, "is 0 everywhere"),
        ({"H": np.ones((1, 2, 2)), "ls": np.ones((1, 3, 2))}, r"ls has shape \(1, 3, 2\)"),
        ({"H": np.ones((1, 2, 2)), "pilots": np.ones((2, 1, 1))}, "2 samples of pilots, 1 of H"),
    ],
)
def test_bad_arrays_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(UserError, match=message):
        read_channels(tmp_path / "mine.npz")


def test_bad_files_are_named(tmp_path):
    with pytest.raises(UserError, match="there is no"):
        read_channels(tmp_path / "none.npz")
    with pytest.raises(UserError, match=re.escape("holds no .mat file")):
        read_channels(tmp_path)
    (tmp_path / "mine.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="damaged"):
        read_channels(tmp_path / "mine.npz")
    (tmp_path / "h.mat").write_bytes(b"")
    with pytest.raises(UserError, match="does not say its conditions"):
        read_channels(tmp_path)
    (tmp_path / "h.mat").rename(tmp_path / "7_SNR-1.0.2_DS-1_DOP-2_N-3_TDL-A.mat")
    with pytest.raises(UserError, match="does not say its conditions"):
        read_channels(tmp_path)
