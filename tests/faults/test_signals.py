"""SIGTERM, Ctrl-C, twice, at any moment: its status, no traceback, nothing left, no step lost."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest
from processes import Marked, wait_for
from toy_pipelines import SIXFOLD, prepared, temporary

pytestmark = pytest.mark.slow

LONG = {
    "steps: 16, batch: 1, learning_rate: 1.0e-2": "steps: 4000, batch: 1, learning_rate: 1.0e-2"
}
TRAIN = [SIXFOLD, "train", "speech/enhancement"]
DELAYS = (0.0, 0.1, 0.3, 0.6, 1.0, 2.0, 4.0)  # seconds; it takes a few to list the systems
INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def names(value: object) -> str | None:
    """Name a list of signals for the name of its test."""
    return "-".join(number.name for number in value) if isinstance(value, list) else None


@pytest.fixture(scope="module", params=["seeds: [0]", "seeds: [0, 1]"], ids=["one", "two"])
def repository(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("signals") / "repository"
    return prepared(root, "speech", changes=LONG | {"seeds: [0]": request.param})


def rows(root) -> list[int]:
    """Count the rows of each seed's curve."""
    curves = sorted(root.glob("pipelines/speech/runs/enhancement/frcrn/*/curve.csv"))
    return [curve.read_text().count("\n") - 1 for curve in curves]


def saved(root) -> list[int]:
    """Return the step of each seed's last checkpoint."""
    files = sorted(root.glob("pipelines/speech/runs/enhancement/frcrn/*/ckpt/latest"))
    return [int(file.read_text().strip().split("-")[1]) for file in files]


@pytest.mark.parametrize(
    ("numbers", "status"),
    [([TERM], 143), ([INT], 130), ([INT, INT], 130), ([INT, TERM], None), ([HUP], 129)],
    ids=names,
)
def test_a_training_saves_says_so_and_leaves_nobody(repository, numbers, status):
    before = sum(rows(repository))
    with Marked(TRAIN, repository) as command:
        process = command.process
        wait_for(lambda: sum(rows(repository)) > before + 4 or process.poll() is not None)
        assert process.poll() is None, command.text
        command.signal(*numbers)
        assert command.gone(), command.family()
    assert command.tracebacks == []
    assert status in (None, process.returncode)
    assert "stopped" in command.text
    if numbers in ([INT], [TERM]):  # not a step is lost
        assert saved(repository) == rows(repository)
    assert not list(repository.glob("pipelines/**/broken-*"))
    assert temporary(repository) == []
    print(f"{names(numbers)}: stopped after {sum(rows(repository)) - before} steps")


def catches(process: int, number: int) -> bool:
    """Return whether a process has a handler of a signal."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    caught = next(line for line in lines if line.startswith("SigCgt:")).split()[1]
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("numbers", [[INT], [TERM], [HUP], [INT, INT], [TERM, INT]], ids=names)
def test_stopped_while_it_starts_it_says_so(tmp_path, numbers):
    stopped = 0
    for delay in DELAYS:
        with Marked([SIXFOLD, "list"], tmp_path) as command:
            process = command.process
            # Python itself only knows Ctrl-C, and answers it with a traceback.
            assert wait_for(lambda p=process: p.poll() is not None or catches(p.pid, TERM))
            time.sleep(delay)
            if process.poll() is None:
                command.signal(*numbers)
            assert command.gone()
        assert command.tracebacks == []
        assert process.returncode in (0, *(128 + number for number in numbers))
        stopped += process.returncode != 0
    assert stopped >= 3
    print(f"{names(numbers)}: {stopped} of {len(DELAYS)} stopped while they started")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A long recording, and weights that take a while over it."""
    soundfile = pytest.importorskip("soundfile")
    from sixfold.core.weights.convert import save_pretrained
    from sixfold.speech.models.frcrn import FRCRN, SYSTEM, FRCRNConfig

    folder = tmp_path_factory.mktemp("recording")
    config = FRCRNConfig(channels=8, unets=1)
    save_pretrained(folder / "w.safetensors", FRCRN(config), SYSTEM.name, config)
    noise = 0.1 * np.random.default_rng(0).standard_normal(16000 * 600).astype("float32")
    soundfile.write(folder / "long.wav", noise, 16000)
    soundfile.write(folder / "short.wav", noise[:16000], 16000)
    return folder


@pytest.mark.parametrize("number", [INT, TERM, HUP, signal.SIGKILL], ids=lambda number: number.name)
def test_a_stopped_run_leaves_no_file_and_a_killed_one_is_tidied(recording, tmp_path, number):
    command = [SIXFOLD, "run", "speech/frcrn", "--weights", "w.safetensors", "--chunk-s", "2"]
    out = tmp_path / "clean.wav"
    with Marked([*command, "long.wav", str(out)], recording) as running:
        wait_for(lambda: list(tmp_path.iterdir()) or running.process.poll() is not None)
        assert running.process.poll() is None, running.text
        running.signal(number)
        assert running.gone()
    assert running.tracebacks == []
    assert not out.exists()
    if number == signal.SIGKILL:
        assert temporary(tmp_path) != []
        with Marked([*command, "short.wav", str(out)], recording) as again:
            assert again.process.wait(300) == 0, again.text
        assert list(tmp_path.iterdir()) == [out]
    else:
        assert running.process.returncode == 128 + number
        assert "stopped" in running.text
        assert list(tmp_path.iterdir()) == []
