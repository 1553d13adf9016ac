"""A full or read-only disk at every door that writes: a line names the file, nothing is left."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from processes import together
from torch import nn
from toy_pipelines import temporary

from sixfold.core import Config, UserError
from sixfold.core.data.atomic import atomic_folder, write_atomic
from sixfold.core.pipeline.page import Section, write_page
from sixfold.core.pipeline.results import write_json
from sixfold.core.weights.convert import save_pretrained

pytestmark = pytest.mark.slow

LARGE = 300_000  # bytes, of what is to be written


def leave(disk: Path, kib: int) -> None:
    """Fill a disk until so much is left."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - kib * 1024)))


def names(disk: Path) -> list[str]:
    files = [file for file in disk.rglob("*") if file.is_file() and file.name != "ballast"]
    return sorted(str(file.relative_to(disk)) for file in files)


def save_weights(path: Path) -> None:
    save_pretrained(path, nn.Linear(1, LARGE // 4), "toy", Config())


def save_results(path: Path) -> None:
    write_json(path, {"values": list(range(LARGE // 8))})


def save_page(path: Path) -> None:
    write_page(path, "x" * LARGE, [Section("s", "text")])


def save_folder(path: Path) -> None:
    with atomic_folder(path) as partial:
        (partial / "a").write_bytes(bytes(LARGE))


def save_sound(path: Path) -> None:
    from sixfold.speech.audio.files import write_audio

    write_audio(path, 0.1 * torch.randn(1, LARGE), 16000)


def save_picture(path: Path) -> None:
    from sixfold.vision.images.files import Picture, write_picture

    pixels = np.random.default_rng(0).integers(0, 255, (LARGE // 900, 300, 3), dtype=np.uint8)
    write_picture(path, Picture(pixels))


def save_text(path: Path) -> None:
    write_atomic(path, "x" * LARGE)


def save_export(path: Path) -> None:
    from sixfold.core.weights.export import export

    export(nn.Linear(100, LARGE // 400).eval(), [torch.ones(2, 100)], path)


def attempt(write, path: Path) -> str:
    """Return the UserError of a write; empty if it succeeded."""
    try:
        write(path)
    except UserError as error:
        return str(error)
    return ""


WRITERS = {
    "w.safetensors": save_weights,
    "r.json": save_results,
    "page": save_page,
    "folder": save_folder,
    "a.wav": save_sound,
    "a.flac": save_sound,
    "a.ogg": save_sound,
    "a.png": save_picture,
    "a.tif": save_picture,
    "a.txt": save_text,
    "export": save_export,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_named_and_nothing_is_left(disk, name):
    write = WRITERS[name]
    write(disk / name)
    before = {file: (disk / file).read_bytes() for file in names(disk)}
    refused = 0
    for kib in (0, 4, 12, 40, 100):
        leave(disk, kib)
        said = attempt(write, disk / name)
        if said:
            refused += 1
            assert f"cannot write {disk / name}: " in said
            assert "No space left on device" in said
            assert " MB free)" in said
            assert {file: (disk / file).read_bytes() for file in names(disk)} == before
        else:
            assert names(disk) == sorted(before)
        assert temporary(disk) == []
    assert refused >= 3
    print(f"{name}: {refused} of 5 full disks refused")


@pytest.mark.parametrize("name", WRITERS)
def test_a_read_only_disk_is_named(disk, name):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(UserError, match=r"Read-only|not writable"):
        WRITERS[name](disk / name)
    assert list(disk.iterdir()) == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that was never disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert together(lambda: toys.supervised(folder)) == ["done"]
    return folder


@pytest.mark.parametrize("kib", [0, 4, 8, 16, 36, 72, 120])
def test_a_training_goes_on_when_there_is_room_again(disk, whole, kib):
    leave(disk, kib)
    (said,) = together(lambda: toys.supervised(disk / "run"))
    assert said.startswith("UserError: cannot write") or (said == "done" and kib > 8), said
    assert temporary(disk) == []
    print(f"{kib} KiB free: {said}")
    (disk / "ballast").unlink()
    assert together(lambda: toys.supervised(disk / "run")) == ["done"]
    for file in ("curve.csv", "DONE", "ckpt/step-00000080-phase-1/model.safetensors"):
        assert (disk / "run" / file).read_bytes() == (whole / file).read_bytes()
