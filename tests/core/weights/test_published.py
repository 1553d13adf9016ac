"""Published weights by name, from a server on this machine and from a mirror folder."""

import functools
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from toy_system import TOY, Toy, ToyConfig, official, same, settings

from sixfold.core.config import UserError
from sixfold.core.data.fetch import File
from sixfold.core.weights.convert import from_pretrained
from sixfold.core.weights.published import list_weights


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder, and the address that serves it."""
    (tmp_path / "home").mkdir()
    handler = functools.partial(Quiet, directory=tmp_path / "home")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SIXFOLD_MIRROR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield tmp_path / "home", f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def published(url=None, **facts):
    return replace(TOY, weights={"TOY_8K": File("TOY_8K/best.pt", url=url, **facts)})


def test_a_name_is_fetched_once_and_loaded(home, tmp_path):
    folder, url = home
    model = Toy(ToyConfig(width=2))
    torch.save(official(model), folder / "best.pt")
    system = published(f"{url}/best.pt")
    assert list_weights(system) == {"TOY_8K": False}
    assert same(from_pretrained("TOY_8K", system).state_dict(), model.state_dict())
    assert list_weights(system) == {"TOY_8K": True}
    assert (tmp_path / "cache/TOY_8K/best.pt.sha256").is_file()  # trusted on first use
    (folder / "best.pt").unlink()
    assert same(from_pretrained("TOY_8K", system).state_dict(), model.state_dict())


def test_published_weights_know_the_settings_that_their_file_does_not_hold(tmp_path, monkeypatch):
    torch.save(official(Toy(ToyConfig())), tmp_path / "other.pt")
    (tmp_path / "mirror/TOY_8K").mkdir(parents=True)
    torch.save(official(Toy(ToyConfig())), tmp_path / "mirror/TOY_8K/best.pt")
    monkeypatch.setenv("SIXFOLD_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "cache"))
    system = replace(published(), weights_settings={"TOY_8K": {"sample_rate": 16_000}})
    for known in ("TOY_8K", tmp_path / "mirror/TOY_8K/best.pt"):
        assert settings(from_pretrained(known, system)).sample_rate == 16_000
    assert settings(from_pretrained("TOY_8K", system, sample_rate=4000)).sample_rate == 4000
    unknown = from_pretrained(tmp_path / "other.pt", system)
    assert "sample_rate" not in settings(unknown).model_fields_set


def test_pickled_code_of_a_home_is_refused(home):
    folder, url = home
    torch.save({"weights": Toy}, folder / "best.pt")
    with pytest.raises(UserError, match="refused: besides weights it holds"):
        from_pretrained("TOY_8K", published(f"{url}/best.pt"))


def test_a_mirror_is_used_in_place(home, tmp_path, monkeypatch):
    model = Toy(ToyConfig())
    (tmp_path / "mirror/TOY_8K").mkdir(parents=True)
    torch.save(official(model), tmp_path / "mirror/TOY_8K/best.pt")
    monkeypatch.setenv("SIXFOLD_MIRROR", str(tmp_path / "mirror"))
    system = published()
    assert list_weights(system) == {"TOY_8K": True}
    assert same(from_pretrained("TOY_8K", system).state_dict(), model.state_dict())
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:9/best.pt"], ids=["no address", "dead"])
def test_without_a_network_the_error_says_where_to_put_the_file(home, tmp_path, url):
    with pytest.raises(UserError) as error:
        from_pretrained("TOY_8K", published(url))
    assert f"put it at {tmp_path / 'cache/TOY_8K/best.pt'}" in str(error.value)
    assert "SIXFOLD_MIRROR to a folder that holds TOY_8K/best.pt" in str(error.value)


def test_a_wrong_file_of_a_home_is_refused(home):
    folder, url = home
    (folder / "best.pt").write_bytes(b"something else")
    with pytest.raises(UserError, match="what came has SHA-256"):
        from_pretrained("TOY_8K", published(f"{url}/best.pt", sha256="0" * 64))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match=r"no checkpoint TOY_9K; .* of toy: TOY_8K"):
        from_pretrained("TOY_9K", published())
    with pytest.raises(UserError, match="of toy: none are known"):
        from_pretrained("TOY_9K", TOY)


def test_a_folder_is_its_checkpoint(tmp_path):
    """As ClearerVoice writes it, or with one checkpoint."""
    model, folder = Toy(ToyConfig(width=5)), tmp_path / "TOY_8K"
    folder.mkdir()
    with pytest.raises(UserError, match=r"TOY_8K is a folder; give the path of .*: none"):
        from_pretrained(folder, TOY)
    torch.save(official(model), folder / "best.pt")
    (folder / "readme.txt").write_text("no checkpoint")
    assert same(from_pretrained(folder, TOY).state_dict(), model.state_dict())
    torch.save(official(Toy(ToyConfig())), folder / "older.pt")
    with pytest.raises(UserError, match=r"its checkpoints: best\.pt, older\.pt"):
        from_pretrained(folder, TOY)
    note = folder / "last_best_checkpoint"
    note.write_text("best.pt\n")
    for path in (folder, note):
        assert same(from_pretrained(path, TOY).state_dict(), model.state_dict())
    note.write_text("gone.pt")
    with pytest.raises(UserError, match=r"last_best_checkpoint names gone\.pt, which is not in"):
        from_pretrained(folder, TOY)


def test_a_path_is_a_path_even_if_it_is_named_like_published_weights(tmp_path, monkeypatch):
    model = Toy(ToyConfig())
    torch.save(official(model), tmp_path / "TOY_8K")
    monkeypatch.chdir(tmp_path)
    assert same(from_pretrained("TOY_8K", published()).state_dict(), model.state_dict())
