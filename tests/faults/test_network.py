"""`fetch` from a server that misbehaves: the right bytes or a UserError, within half a minute."""

import hashlib
import time

import pytest
from bad_server import HEALS, OTHERS, Handler, serve

from sixfold.core import UserError
from sixfold.core.data import fetch as module
from sixfold.core.data.fetch import Dataset, File, fetch

pytestmark = pytest.mark.slow

DATA = bytes(range(251)) * 1600
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def address():
    return serve(DATA)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The place of the file in an empty cache."""
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "_TIMEOUT_S", 2)
    Handler.asked.clear()
    return tmp_path / "set" / "f.bin"


def tries(url: str, times: int) -> list[str]:
    """Fetch until it succeeds; any other error than a UserError passes."""
    said = []
    for _ in range(times):
        try:
            fetch(Dataset("set", "home", "none", "", (File("f.bin", SHA, len(DATA), url),)))
            return [*said, "done"]
        except UserError as error:
            said.append(str(error))
    return said


@pytest.mark.parametrize("how", [*HEALS, *OTHERS])
def test_a_server_that_misbehaves(address, cached, how):
    began = time.monotonic()
    said = tries(f"{address}/{how}/f.bin", 4 if how in HEALS else 2)
    assert time.monotonic() - began < 30
    assert said[-1] == "done" or how not in HEALS
    assert (cached.read_bytes() == DATA) if said[-1] == "done" else not cached.exists()


@pytest.mark.parametrize(
    "begun", [DATA[:150_000], DATA[:150_000] + b"other", DATA, DATA[:-1] + b"xyz"]
)
@pytest.mark.parametrize("how", ["good", "no-range", "206-wrong-range", "206-from-zero", "416"])
def test_a_beginning_is_gone_on_with_or_dropped(address, cached, how, begun):
    part = cached.with_name("f.bin.part")
    part.parent.mkdir()
    part.write_bytes(begun)
    said = tries(f"{address}/{how}/f.bin", 4)
    assert said[-1] == "done"
    assert cached.read_bytes() == DATA
    assert [file.name for file in cached.parent.iterdir()] == ["f.bin"]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/x", "https://127.0.0.1:1/x", "http://nowhere.invalid/x"]
)
def test_nobody_answers(cached, url):
    (said,) = tries(url, 1)
    assert "cannot download" in said
