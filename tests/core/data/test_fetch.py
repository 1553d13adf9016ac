"""`fetch` against a real server on this machine and mirrors in temporary folders."""

import hashlib
import multiprocessing
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sixfold.core.config import UserError
from sixfold.core.data.fetch import Dataset, File, available, cache_folder, fetch

BODY = bytes(range(256)) * 4096  # 1 MiB


@dataclass
class Home:
    """A dataset's official home: what it serves, how it misbehaves, and what it was asked."""

    url: str
    bodies: dict[str, bytes] = field(default_factory=dict)
    content_type: str = "application/octet-stream"
    ranges: bool = True
    stop_after: int | None = None
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Home]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.headers["Range"])
            body, start = served.bodies.get(self.path), 0
            if body is None:
                self.send_error(404)
                return
            if served.ranges and self.headers["Range"]:
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Type", served.content_type)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start:][: served.stop_after])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Home(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SIXFOLD_MIRROR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield served
    server.shutdown()
    server.server_close()


def dataset(body: bytes = BODY, url: str | None = None, path: str = "a/b.bin"):
    file = File(path, hashlib.sha256(body).hexdigest(), len(body), url)
    return Dataset("toy", "https://example.org/toy", "CC0", "Nobody 2031", (file,))


def offer(home: Home, body: bytes = BODY, **kwargs: str) -> Dataset:
    home.bodies["/b.bin"] = body
    return dataset(body, home.url + "/b.bin", **kwargs)


def mirror(folder: Path, body: bytes = BODY) -> Path:
    (folder / "toy" / "a").mkdir(parents=True)
    (folder / "toy" / "a" / "b.bin").write_bytes(body)
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_downloads_once_and_then_works_without_the_network(home: Home, tmp_path: Path):
    toy = offer(home)
    assert not available(toy)
    assert (fetch(toy) / "a/b.bin").read_bytes() == BODY
    home.bodies.clear()
    assert available(toy)
    assert fetch(toy) == tmp_path / "cache" / "toy"
    assert len(home.asked) == 1
    assert files(tmp_path / "cache") == ["toy/a/b.bin"]


def test_a_broken_download_goes_on_where_it_stopped(home: Home):
    toy = offer(home)
    home.stop_after = 700_000
    with pytest.raises(UserError, match="stopped after 700000 of 1048576 bytes; run this again"):
        fetch(toy)
    assert not available(toy)
    home.stop_after = None
    assert (fetch(toy) / "a/b.bin").read_bytes() == BODY
    assert home.asked == ["bytes=0-", "bytes=700000-"]


def test_a_server_without_ranges_is_read_from_the_start(home: Home):
    toy = offer(home)
    home.stop_after = 1000
    with pytest.raises(UserError, match="stopped after 1000"):
        fetch(toy)
    home.stop_after, home.ranges = None, False
    assert (fetch(toy) / "a/b.bin").read_bytes() == BODY


def test_a_foreign_beginning_does_not_poison_the_next_download(home: Home, tmp_path: Path):
    toy = offer(home)
    part = tmp_path / "cache/toy/a/b.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    with pytest.raises(UserError, match="and is deleted"):
        fetch(toy)
    assert (fetch(toy) / "a/b.bin").read_bytes() == BODY


@pytest.mark.parametrize("served", [BODY[::-1], BODY + b"more"], ids=["content", "length"])
def test_a_wrong_file_is_refused_and_leaves_nothing(home: Home, tmp_path: Path, served: bytes):
    toy = offer(home)
    home.bodies["/b.bin"] = served
    with pytest.raises(UserError, match="and is deleted"):
        fetch(toy)
    assert files(tmp_path) == []


def test_a_web_page_is_named_as_such(home: Home, tmp_path: Path):
    toy = offer(home)
    home.content_type = "text/html; charset=utf-8"
    with pytest.raises(
        UserError, match=r"cannot download .*/b\.bin: a web page came .*SIXFOLD_MIRROR"
    ):
        fetch(toy)
    assert files(tmp_path) == []


def test_a_missing_page_and_a_dead_server_are_user_errors(home: Home, tmp_path: Path):
    with pytest.raises(UserError, match=r"cannot download .*404"):
        fetch(dataset(url=home.url + "/gone"))
    with pytest.raises(UserError, match=r"cannot download .*refused"):
        fetch(dataset(url="http://127.0.0.1:9/b.bin"))
    assert files(tmp_path) == []


def test_a_damaged_cache_is_fetched_again(home: Home):
    toy = offer(home)
    damaged = fetch(toy) / "a/b.bin"
    damaged.write_bytes(BODY[:-1] + b"?")
    assert (fetch(toy) / "a/b.bin").read_bytes() == BODY


def test_a_mirror_is_used_in_place(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "empty").mkdir()
    full = mirror(tmp_path / "full")
    monkeypatch.setenv("SIXFOLD_MIRROR", os.pathsep.join([str(tmp_path / "empty"), str(full)]))
    assert available(dataset())
    assert fetch(dataset()) == full / "toy"
    assert not (tmp_path / "cache").exists()


def test_a_relative_mirror_is_found_from_a_folder_below(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    full = mirror(tmp_path / "full")
    stage = tmp_path / "repository/pipelines/speech"
    stage.mkdir(parents=True)
    monkeypatch.setenv("SIXFOLD_MIRROR", "../full")
    monkeypatch.chdir(stage)
    assert fetch(dataset()) == full / "toy"


def test_a_wrong_mirror_is_refused(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SIXFOLD_MIRROR", str(mirror(tmp_path / "bad", BODY[::-1])))
    with pytest.raises(UserError, match=r"bad/toy/a/b\.bin has SHA-256"):
        fetch(dataset())
    monkeypatch.setenv("SIXFOLD_MIRROR", str(tmp_path / "typo"))
    with pytest.raises(UserError, match="typo', which is no folder"):
        available(dataset())


def test_what_the_mirror_lacks_is_downloaded(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SIXFOLD_MIRROR", str(mirror(tmp_path / "part")))
    home.bodies["/c.bin"] = b"second"
    second = dataset(b"second", home.url + "/c.bin", path="c.bin").files
    both = Dataset("toy", "", "", "", (*dataset().files, *second))
    folder = fetch(both)
    assert files(folder) == ["a/b.bin", "c.bin"]
    assert home.asked == ["bytes=0-"]


def test_a_set_that_cannot_be_downloaded_names_its_home(home: Home):
    with pytest.raises(UserError, match=r"https://example\.org/toy.*SIXFOLD_MIRROR"):
        fetch(dataset())
    assert not available(dataset())


def test_a_cache_that_cannot_be_written_is_a_user_error(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot write .*cache/toy|cannot write .*file/toy"):
        fetch(offer(home))


def test_without_a_recorded_checksum_the_first_download_is_trusted_and_kept(home: Home, capsys):
    home.bodies["/b.bin"] = BODY
    toy = Dataset("toy", "", "", "", (File("a/b.bin", url=home.url + "/b.bin"),))
    digest = hashlib.sha256(BODY).hexdigest()
    folder = fetch(toy)
    assert f"trusted on first use, SHA-256 {digest}" in capsys.readouterr().out
    assert (folder / "a/b.bin.sha256").read_text() == f"{digest}  b.bin\n"
    assert fetch(toy) == folder
    assert len(home.asked) == 1
    (folder / "a/b.bin").write_bytes(b"changed")
    assert (fetch(toy) / "a/b.bin").read_bytes() == BODY
    assert len(home.asked) == 2
    (folder / "a/b.bin").unlink()
    home.bodies["/b.bin"] = b"another"
    with pytest.raises(UserError, match="and is deleted"):
        fetch(toy)


def test_a_damaged_record_of_a_checksum_says_what_to_delete(home: Home):
    home.bodies["/b.bin"] = BODY
    toy = Dataset("toy", "", "", "", (File("a/b.bin", url=home.url + "/b.bin"),))
    for damage in (b"", b"\xff", b"abc  b.bin\n"):
        (fetch(toy) / "a/b.bin.sha256").write_bytes(damage)
        with pytest.raises(UserError, match=r"b.bin.sha256 is damaged; delete it and b.bin"):
            fetch(toy)
        (cache_folder() / "toy/a/b.bin.sha256").unlink()


def test_a_planted_beginning_is_not_followed(home: Home, tmp_path):
    toy = offer(home)
    (tmp_path / "precious").write_bytes(b"precious")
    part = tmp_path / "cache/toy/a/b.bin.part"
    part.parent.mkdir(parents=True)
    part.symlink_to(tmp_path / "precious")
    assert (fetch(toy) / "a/b.bin").read_bytes() == BODY
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_two_processes_download_a_set_once(home: Home):
    toy = offer(home)
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=fetch, args=(toy,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(home.asked) == 1


def test_without_a_home_the_cache_must_be_named(monkeypatch):
    monkeypatch.delenv("SIXFOLD_CACHE", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda name: f"~/.cache/{name}")
    with pytest.raises(UserError, match=r"there is no home folder .* set SIXFOLD_CACHE"):
        cache_folder()
