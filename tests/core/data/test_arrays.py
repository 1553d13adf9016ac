"""NumPy's files are read whole, or named; nothing in them is run or believed."""

import io
import zipfile

import numpy as np
import pytest

from sixfold.core.config import UserError
from sixfold.core.data.arrays import read_npy, read_npz


def test_arrays_come_back(tmp_path):
    arrays = {"x": np.arange(6.0).reshape(2, 3), "name": np.array(["a", "b"])}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    found = read_npz(tmp_path / "a.npz")
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], value) for name, value in arrays.items())
    np.save(tmp_path / "x.npy", arrays["x"][:, ::2])
    assert np.array_equal(read_npy(tmp_path / "x.npy"), arrays["x"][:, ::2])


def test_objects_are_not_run(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object))
    with pytest.raises(UserError, match=r"a\.npz is damaged, or no \.npz file of numbers"):
        read_npz(tmp_path / "a.npz")
    with pytest.raises(UserError, match=r"x\.npy is damaged, or no \.npy file of numbers"):
        read_npy(tmp_path / "x.npy")


def test_a_declared_shape_is_not_believed(tmp_path):
    head = io.BytesIO()
    shape = {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)}
    np.lib.format.write_array_header_1_0(head, shape)
    (tmp_path / "x.npy").write_bytes(head.getvalue() + bytes(80))
    with pytest.raises(UserError, match=r"x\.npy is damaged"):
        read_npy(tmp_path / "x.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", head.getvalue() + bytes(80))
    with pytest.raises(UserError, match=r"a\.npz is damaged"):
        read_npz(tmp_path / "a.npz")


def test_what_unpacks_to_more_than_the_memory_is_refused_first(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(1 << 20))
    monkeypatch.setattr("os.sysconf", lambda _: 1000)
    with pytest.raises(UserError, match=r"a\.npz, unpacked, takes 8\.38.e\+06 bytes, where"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("read", [read_npz, read_npy])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(UserError, match="there is no file"):
        read(tmp_path / "none.npz")
