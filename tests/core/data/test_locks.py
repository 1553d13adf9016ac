"""Locks between processes: who waits, what is printed, what stays behind."""

import errno
import fcntl
import multiprocessing
import os
import signal
import time

import pytest

from sixfold.core.data import locks
from sixfold.core.data.locks import held, is_mount, lock_file

context = multiprocessing.get_context("fork")


def hold(path, ready, until):
    with held(path, "holding"):
        ready.set()
        until.wait(20)


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of ``tmp_path/a`` until its event is set."""
    ready, until = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path / "a", ready, until))
    process.start()
    assert ready.wait(20)
    process.until = until  # type: ignore[attr-defined]
    yield process
    if process.is_alive():  # an event waits for its waiters, also for killed ones
        until.set()
    process.join(20)


def test_the_second_waits_and_says_so(tmp_path, holder, capsys, monkeypatch):
    monkeypatch.setattr(locks, "_SAY_AFTER_S", 0.1)
    timer = context.Process(target=lambda: (time.sleep(0.4), holder.until.set()))
    timer.start()
    began = time.monotonic()
    with held(tmp_path / "a", "training"):
        assert time.monotonic() - began > 0.3
    timer.join()
    assert capsys.readouterr().out == (
        f"waiting: another process holds {tmp_path / 'a'} (training)\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_holds_nothing(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    with held(tmp_path / "a", "training"):
        assert lock_file(tmp_path / "a").is_file()
    assert list(tmp_path.iterdir()) == []


def test_a_process_may_hold_a_lock_twice_and_gives_it_back_once(tmp_path):
    first, second = held(tmp_path / "a", ""), held(tmp_path / "a", "")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert lock_file(tmp_path / "a").is_file()
    second.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


def count(path, times):
    for _ in range(times):
        with held(path, ""):
            path.write_text(str(int(path.read_text()) + 1))


def test_no_two_hold_it_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_ASK_EVERY_S", 0.001)
    (tmp_path / "n").write_text("0")
    workers = [context.Process(target=count, args=(tmp_path / "n", 50)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "n").read_text() == "200"


def test_where_there_are_no_locks_a_line_says_so(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with held(tmp_path / "a", "training"):
        pass
    assert "a cannot be locked (No locks available): make sure" in capsys.readouterr().out


def test_a_link_planted_at_the_lock_is_not_followed_and_said(tmp_path, capsys):
    lock_file(tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    with held(tmp_path / "a", ""):
        assert not (tmp_path / "elsewhere").exists()
    assert "a cannot be locked (Too many levels" in capsys.readouterr().out


def test_a_link_has_the_lock_of_its_folder_and_a_volume_its_own(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert lock_file(tmp_path / "link") == lock_file(tmp_path / "a") == tmp_path / ".a.lock"
    (tmp_path / "loop").symlink_to("loop")
    assert lock_file(tmp_path / "loop").parent == tmp_path
    assert len(lock_file(tmp_path / ("x" * 250)).name) < 100
    monkeypatch.setattr(locks, "is_mount", lambda _: True)
    assert lock_file(tmp_path / "a") == tmp_path / "a/.lock"


def test_a_mount_is_known(tmp_path):
    from pathlib import Path

    assert is_mount(Path("/proc"))
    assert not is_mount(tmp_path)
