"""MATLAB files are read as scipy reads them, and damaged ones named instead of believed."""

import struct

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from sixfold.core.config import UserError
from sixfold.wireless.data.array_files import read_mat
from sixfold.wireless.data.mat_files import read_mat5

NUMBERS = np.random.default_rng(0)
VALUES = {
    "H": NUMBERS.standard_normal((5, 4, 2)) + 1j * NUMBERS.standard_normal((5, 4, 2)),
    "one": np.float32(3),
    "flags": np.array([[True, False]]),
    "whole": np.arange(300, dtype="u8"),
    "none": np.zeros((0, 3)),
}


@pytest.mark.parametrize("compressed", [False, True])
def test_numbers_come_back_as_from_scipy(tmp_path, compressed):
    others = {"text": "abc", "struct": {"a": 1}}
    savemat(tmp_path / "a.mat", VALUES | others, do_compression=compressed)
    expected, found = loadmat(tmp_path / "a.mat"), read_mat5(tmp_path / "a.mat", list(VALUES))
    for name in VALUES:
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name])
    assert found.keys() == VALUES.keys()


@pytest.mark.parametrize("compressed", [False, True])
def test_every_cut_is_named(tmp_path, compressed):
    savemat(tmp_path / "a.mat", {"H": VALUES["H"]}, do_compression=compressed)
    whole = (tmp_path / "a.mat").read_bytes()
    for size in (0, 1, 100, *range(129, len(whole), 7)):
        (tmp_path / "a.mat").write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"a\.mat is damaged or no \.mat file"):
            read_mat(tmp_path / "a.mat", ["H"])


def test_a_declared_shape_is_not_believed(tmp_path):
    savemat(tmp_path / "a.mat", {"H": np.ones((3, 5))})
    content = (tmp_path / "a.mat").read_bytes()
    huge = content.replace(struct.pack("<ii", 3, 5), struct.pack("<ii", 2**31 - 1, 2**31 - 1))
    (tmp_path / "a.mat").write_bytes(huge)
    with pytest.raises(UserError, match=r"H has 15 numbers for the shape \(2147483647, 2147"):
        read_mat(tmp_path / "a.mat", ["H"])


def test_a_variable_that_is_no_array_of_numbers_is_named(tmp_path):
    savemat(tmp_path / "a.mat", {"H": "text"})
    with pytest.raises(UserError, match="H is no array of numbers"):
        read_mat(tmp_path / "a.mat", ["H"])


def test_files_of_version_4_are_read(tmp_path):
    savemat(tmp_path / "a.mat", {"H": np.eye(3)}, format="4")
    np.testing.assert_array_equal(read_mat(tmp_path / "a.mat", ["H"])["H"], np.eye(3))
