"""`fetch` against a real server on this machine, mirrors in temporary folders, hostile archives."""

import hashlib
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sixfold.core.config import UserError
from sixfold.core.data.fetch import Dataset, File, available, fetch

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


def dataset(body: bytes = BODY, url: str | None = None, unpack: str = "", path: str = "a/b.bin"):
    file = File(path, hashlib.sha256(body).hexdigest(), len(body), url, unpack)
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
    assert home.asked == [None, "bytes=700000-"]


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
    with pytest.raises(UserError, match="SHA-256"):
        fetch(toy)
    assert (fetch(toy) / "a/b.bin").read_bytes() == BODY


@pytest.mark.parametrize("served", [BODY[::-1], BODY + b"more"], ids=["content", "length"])
def test_a_wrong_file_is_refused_and_leaves_nothing(home: Home, tmp_path: Path, served: bytes):
    toy = offer(home)
    home.bodies["/b.bin"] = served
    with pytest.raises(UserError, match="thrown away"):
        fetch(toy)
    assert files(tmp_path) == []


def test_a_web_page_is_named_as_such(home: Home, tmp_path: Path):
    toy = offer(home)
    home.content_type = "text/html; charset=utf-8"
    with pytest.raises(UserError, match=r"sent a web page instead of a/b\.bin"):
        fetch(toy)
    assert files(tmp_path) == []


def test_a_missing_page_and_a_dead_server_are_user_errors(home: Home, tmp_path: Path):
    with pytest.raises(UserError, match="answered 404"):
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
    assert home.asked == [None]


def test_a_set_that_cannot_be_downloaded_names_its_home(home: Home):
    with pytest.raises(UserError, match=r"https://example\.org/toy.*SIXFOLD_MIRROR"):
        fetch(dataset())
    assert not available(dataset())


def test_a_cache_that_cannot_be_written_is_a_user_error(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set SIXFOLD_CACHE"):
        fetch(offer(home))


def zipped(name: str, mode: int = 0o100644) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr("good.txt", "good")
        archive.writestr(info, "content")
    return stream.getvalue()


def tarred(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for member, what in (("good.txt", tarfile.REGTYPE), (name, kind)):
            info = tarfile.TarInfo(member)
            info.type, info.linkname, info.size = what, "/etc/passwd", 0
            archive.addfile(info)
    return stream.getvalue()


@pytest.mark.parametrize("body", [zipped("sub/x.txt"), tarred("sub/x.txt")], ids=["zip", "tar.gz"])
def test_archives_are_unpacked_and_not_kept(home: Home, tmp_path: Path, body: bytes):
    toy = offer(home, body, unpack="set")
    assert files(fetch(toy)) == ["set/good.txt", "set/sub/x.txt"]
    assert available(toy)
    fetch(toy)
    assert len(home.asked) == 1


@pytest.mark.parametrize(
    "body",
    [
        zipped("../x"),
        zipped("/tmp/x"),
        zipped("a\\..\\..\\x"),
        zipped("link", 0o120777),
        tarred("../x"),
        tarred("/tmp/x"),
        tarred("link", tarfile.SYMTYPE),
        tarred("link", tarfile.LNKTYPE),
        tarred("device", tarfile.CHRTYPE),
    ],
)
def test_unsafe_archives_are_refused_whole(home: Home, tmp_path: Path, body: bytes):
    with pytest.raises(UserError, match="unsafe"):
        fetch(offer(home, body, unpack="set"))
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "body", [b"no archive", zipped("x")[:-30], tarred("x" * 90)[:-40]], ids=["text", "zip", "tar"]
)
def test_damaged_archives_are_refused_whole(home: Home, tmp_path: Path, body: bytes):
    with pytest.raises(UserError, match="no zip or tar archive that can be read"):
        fetch(offer(home, body, unpack="set"))
    assert files(tmp_path) == []
