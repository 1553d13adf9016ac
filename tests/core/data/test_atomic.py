"""What is written all or nothing: the old content stays until the new one is complete."""

import errno
import os

import pytest

from sixfold.core.config import UserError
from sixfold.core.data.atomic import atomic_file, atomic_folder, write_atomic


def test_a_file_is_replaced_and_its_folder_made(tmp_path):
    path = tmp_path / "a/b.txt"
    write_atomic(path, "é\n")
    write_atomic(path, b"bytes")
    assert path.read_bytes() == b"bytes"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_takes_the_place_of_an_older_one(tmp_path):
    for name in ("old", "new"):
        with atomic_folder(tmp_path / "data") as partial:
            assert partial != tmp_path / "data"
            (partial / name).write_text(name)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["new"]
    assert len(list(tmp_path.iterdir())) == 1


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, function):
    write_atomic(tmp_path / "a", "old")
    monkeypatch.setattr(os, function, full)
    with pytest.raises(UserError, match=r"cannot write .*a: No space left .* MB free"):
        write_atomic(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_full_disk_leaves_the_old_folder(tmp_path, monkeypatch):
    write_atomic(tmp_path / "a/old", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"), atomic_folder(tmp_path / "a") as partial:
        (partial / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "old"]


@pytest.mark.parametrize("lend", [atomic_file, atomic_folder])
def test_an_error_in_the_block_passes_and_leaves_nothing(tmp_path, lend):
    def write():
        with lend(tmp_path / "a") as partial:
            (partial / "new" if partial.is_dir() else partial).write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []
