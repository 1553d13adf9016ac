"""Two processes at once, odd folders and homes, damaged run folders: right, or one line."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import toys
from processes import Marked, together
from torch import nn
from toy_pipelines import SIXFOLD, make, outcome, prepared, temporary

from sixfold.core import Config
from sixfold.core.data.atomic import atomic_folder
from sixfold.core.data.fetch import Dataset, File, fetch
from sixfold.core.pipeline.results import write_json
from sixfold.core.weights.convert import save_pretrained

pytestmark = pytest.mark.slow

FILES = ("curve.csv", "DONE", "ckpt/step-00000080-phase-1/model.safetensors")


def left(folder: Path) -> list[bytes]:
    return [(folder / file).read_bytes() for file in FILES]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that was never disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert together(lambda: toys.supervised(folder)) == ["done"]
    return folder


def is_answer(said: str) -> bool:
    return said == "done" or said.startswith("UserError: ")


@pytest.mark.parametrize("count", [2, 4])
def test_trainings_in_one_folder_wait_for_each_other(tmp_path, whole, count):
    folder = tmp_path / "run"
    assert together(*[lambda: toys.supervised(folder)] * count, seconds=600) == ["done"] * count
    assert left(folder) == left(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def write_folder(path: Path) -> None:
    with atomic_folder(path) as partial:
        (partial / "a").write_bytes(bytes(10_000))
        (partial / "b").write_bytes(bytes(10_000))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_json(path, {"a": [*range(1000)]}),
        lambda path: save_pretrained(path, nn.Linear(100, 100), "toy", Config()),
        write_folder,
    ],
    ids=["json", "weights", "folder"],
)
def test_many_processes_write_one_place(tmp_path, write):
    calls = [lambda: [write(tmp_path / "x") for _ in range(30)]] * 4
    assert together(*calls) == ["done"] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_many_processes_copy_one_set_from_a_mirror(tmp_path, monkeypatch):
    body = random.Random(0).randbytes(3_000_000)
    (tmp_path / "mirror/set").mkdir(parents=True)
    (tmp_path / "mirror/set/f.bin").write_bytes(body)
    known = File("f.bin", hashlib.sha256(body).hexdigest(), len(body))
    other = File("g.bin", hashlib.sha256(b"g").hexdigest(), 1)
    monkeypatch.setenv("SIXFOLD_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("SIXFOLD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache/set").mkdir(parents=True)
    (tmp_path / "cache/set/g.bin").write_bytes(b"g")
    calls = [lambda: fetch(Dataset("set", "", "", "", (known, other)))] * 4
    assert together(*calls) == ["done"] * 4
    assert (tmp_path / "cache/set/f.bin").read_bytes() == body
    assert temporary(tmp_path) == []


def test_two_of_each_stage_at_once(tmp_path):
    one, two = make(tmp_path / "one", "wireless"), make(tmp_path / "two", "wireless")
    for verb in ("prepare", "train"):
        command = [SIXFOLD, verb, "wireless/precoding"]
        with Marked(command, one) as alone, Marked(command, two) as a, Marked(command, two) as b:
            for process in (alone, a, b):
                assert process.process.wait(900) == 0, process.text
                assert process.tracebacks == []
    right = outcome(one, "wireless")
    assert len(right) >= 4
    assert outcome(two, "wireless") == right
    assert temporary(two) == []


def test_a_run_folder_is_a_mounted_volume(disk, whole):
    (disk / "lost+found").mkdir()
    assert together(lambda: toys.supervised(disk)) == ["done"]
    assert left(disk) == left(whole)
    assert together(*[lambda: toys.supervised(disk)] * 2) == ["done"] * 2
    (disk / "DONE").unlink()
    assert together(lambda: toys.supervised(disk)) == ["done"]
    assert left(disk) == left(whole)


def test_run_folders_of_any_kind(tmp_path, whole):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    for name in ("link", "dangling", "odd [a*] ü\n name", "x" * 250, "a/b/c"):
        folder = tmp_path / name
        assert together(lambda folder=folder: toys.supervised(folder)) == ["done"], name
        assert left(folder) == left(whole)
    assert (tmp_path / "link").is_symlink()
    for name in ("file", "file/below", "y" * 256):
        (said,) = together(lambda name=name: toys.supervised(tmp_path / name))
        assert said.startswith("UserError: "), (name, said)


DAMAGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "bytes": lambda content: content[:20] + b"\xff\xfe" + content[22:],
    "list": lambda content: b"[]",
    "null": lambda content: b"null",
    "nest": lambda content: b'{"a":' * 100_000,
}


@pytest.mark.parametrize("done", [True, False])
def test_a_damaged_run_folder_says_so_or_starts_again(tmp_path, whole, done):
    tried = 0
    files = [file.relative_to(whole) for file in sorted(whole.rglob("*")) if file.is_file()]
    for file in (f for f in files if done or f.name != "DONE"):
        known = file.parts[0] == "ckpt"  # a checkpoint's manifest knows every byte of it
        for name, damage in [*DAMAGES.items()][: 2 if known else None]:
            folder = tmp_path / f"{tried}"
            shutil.copytree(whole, folder)
            if not done:
                (folder / "DONE").unlink()
            (folder / file).write_bytes(damage((whole / file).read_bytes()))
            (said,) = together(lambda folder=folder: toys.supervised(folder))
            assert is_answer(said), (file, name, said)
            tried += 1
    print(f"{tried} damaged run folders")


ASK = """
import os
from sixfold.core.config import UserError
from sixfold.core.data.fetch import Dataset, available, cache_folder
try:
    print("done", cache_folder())
except UserError as error:
    print("UserError", error)
print(available(Dataset("s", "", "", "", ())))
"""


@pytest.mark.parametrize("home", [None, "/proc/nowhere", "/nowhere"])
@pytest.mark.parametrize("cache", [None, "~/x", "relative/x"])
def test_a_user_without_a_home(tmp_path, home, cache):
    env = {
        k: v for k, v in os.environ.items() if k not in ("HOME", "SIXFOLD_CACHE", "XDG_CACHE_HOME")
    }
    env |= {"HOME": home} if home else {}
    env |= {"SIXFOLD_CACHE": cache} if cache else {}
    prefix = ["unshare", "-U", "--map-user=54321"] if home is None else []
    if prefix and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    command = [*prefix, sys.executable, "-c", ASK]
    said = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert said.stdout.startswith(("done", "UserError")), said.stderr
    assert list(tmp_path.iterdir()) == []
    if cache is not None:
        return
    listed = subprocess.run(
        [*prefix, SIXFOLD, "list"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in listed.stderr
    assert listed.returncode in (0, 2), listed.stderr
    assert not (tmp_path / "~").exists()


def test_prepared_pipelines_are_what_they_were(tmp_path):
    found = []
    for name in ("a", "b"):
        data = prepared(tmp_path / name, "graphs") / "data"
        files = [file for file in data.rglob("*") if file.is_file()]
        found.append({str(file.relative_to(data)): file.read_bytes() for file in files})
    assert found[0]
    assert found[0] == found[1]
