"""What is written all or nothing: the old content stays until the new one is complete."""

import contextlib
import errno
import os
import shutil
import signal

import pytest

from sixfold.core.config import UserError
from sixfold.core.data import atomic
from sixfold.core.data.atomic import (
    atomic_file,
    atomic_folder,
    scratch_folder,
    tidy,
    write_atomic,
)


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


def test_a_file_is_not_written_over_a_folder(tmp_path):
    write_atomic(tmp_path / "a/old", "old")
    with pytest.raises(UserError, match="a is a folder; give the name of a file"):
        write_atomic(tmp_path / "a", "new")
    assert (tmp_path / "a/old").read_text() == "old"


def test_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(UserError, match="is a pipe or a device; give the name of a file"):
            write_atomic(tmp_path / name, "new")
    assert (tmp_path / "link").is_fifo()


def test_the_permissions_are_those_of_any_new_file(tmp_path):
    write_atomic(tmp_path / "a", "x")
    with atomic_folder(tmp_path / "b") as partial:
        assert partial.parent.stat().st_mode & 0o777 == 0o700  # nobody else looks on
    before = os.umask(0)
    os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~before
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o777 & ~before


def test_a_library_that_hides_the_reason_is_told_apart_on_a_full_disk(tmp_path, monkeypatch):
    def write():
        with atomic_file(tmp_path / "a"):
            raise RuntimeError("system error")

    with pytest.raises(RuntimeError, match="system error"):
        write()
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"cannot write .*a: No space left on device \(0.0 MB free"):
        write()


def killed(work):
    """Do some work in a process that dies of SIGKILL at its end."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            work()
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_left_is_removed_by_the_next_write_beside_it(tmp_path):
    def half_written():
        with atomic_file(tmp_path / "a") as partial:
            partial.write_text("half")
            die()

    killed(half_written)
    assert len(list(tmp_path.glob(".sixfold-*.tmp"))) == 1
    with scratch_folder(tmp_path) as living:
        tidy(tmp_path)
        assert list(tmp_path.iterdir()) == [living]


def test_a_folder_that_a_process_was_killed_over_comes_back(tmp_path, monkeypatch):
    write_atomic(tmp_path / "a/old", "old")

    def killed_between_two_renames():
        os.replace = die
        with atomic_folder(tmp_path / "a") as partial:
            (partial / "new").write_text("new")

    killed(killed_between_two_renames)
    assert not (tmp_path / "a").exists()
    tidy(tmp_path)
    assert (tmp_path / "a/old").read_text() == "old"
    assert not list(tmp_path.glob(".sixfold-*"))


def test_a_planted_name_is_not_followed(tmp_path):
    write_atomic(tmp_path / "elsewhere/precious", "precious")
    for name in (".a.1.tmp", f".a.{os.getpid()}.tmp", ".sixfold-planted.tmp"):
        (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    tidy(tmp_path)
    write_atomic(tmp_path / "a", "new")
    with atomic_folder(tmp_path / "b") as partial:
        (partial / "new").write_text("new")
    assert (tmp_path / "elsewhere/precious").read_text() == "precious"
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


def test_a_link_to_a_folder_stays_one(tmp_path):
    write_atomic(tmp_path / "disk/a/old", "old")
    (tmp_path / "link").symlink_to(tmp_path / "disk/a")
    with atomic_folder(tmp_path / "link") as partial:
        (partial / "new").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "disk/a").iterdir()] == ["new"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["a"]


def test_a_mounted_volume_is_filled(tmp_path, monkeypatch):
    write_atomic(tmp_path / "a/old", "old")
    (tmp_path / "a/lost+found").mkdir()
    monkeypatch.setattr(atomic, "is_mount", lambda _: True)
    inode = (tmp_path / "a").stat().st_ino
    with atomic_folder(tmp_path / "a") as partial:
        (partial / "new").write_text("new")
    assert (tmp_path / "a").stat().st_ino == inode
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "lost+found", "new"]
