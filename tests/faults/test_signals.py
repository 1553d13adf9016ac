"""SIGTERM, Ctrl-C, twice, at any moment: its status, no traceback, nothing left, no step lost."""

import signal
import time

import numpy as np
import pytest
from processes import Marked, wait_for
from toy_pipelines import SIXFOLD, prepared, temporary

pytestmark = pytest.mark.slow

LONG = {
    "steps: 16, batch: 1, learning_rate: 1.0e-2": "steps: 4000, batch: 1, learning_rate: 1.0e-2"
}
TRAIN = [SIXFOLD, "train", "speech/enhancement"]
INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@pytest.fixture(scope="module", params=["seeds: [0]", "seeds: [0, 1]"])
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
    ids=str,
)
def test_a_training_saves_says_so_and_leaves_nobody(repository, numbers, status):
    before = sum(rows(repository))
    command = Marked(TRAIN, repository)
    assert wait_for(lambda: sum(rows(repository)) > before + 4), command.text
    command.signal(*numbers)
    assert command.gone(), command.family()
    assert command.tracebacks == []
    assert status in (None, command.process.returncode)
    if numbers in ([INT], [TERM]):  # not a step is lost
        assert saved(repository) == rows(repository)
    assert not list(repository.glob("pipelines/**/broken-*"))


@pytest.mark.parametrize("delay", [0.3, 0.6, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("number", [INT, TERM])
def test_stopped_while_it_starts_it_says_so(tmp_path, number, delay):
    command = Marked([SIXFOLD, "list"], tmp_path)
    time.sleep(delay)
    if command.process.poll() is None:
        command.signal(number)
    assert command.gone()
    assert command.tracebacks == []
    assert command.process.returncode in (0, 128 + number)


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


@pytest.mark.parametrize("number", [INT, TERM, HUP, signal.SIGKILL])
def test_a_stopped_run_leaves_no_file_and_a_killed_one_is_tidied(recording, tmp_path, number):
    command = [SIXFOLD, "run", "speech/frcrn", "--weights", "w.safetensors", "--chunk-s", "2"]
    out = tmp_path / "clean.wav"
    running = Marked([*command, "long.wav", str(out)], recording)
    assert wait_for(lambda: list(tmp_path.iterdir())), running.text
    running.signal(number)
    assert running.gone()
    assert running.tracebacks == []
    assert not out.exists()
    if number == signal.SIGKILL:
        again = Marked([*command, "short.wav", str(out)], recording)
        assert again.process.wait(120) == 0, again.text
        assert list(tmp_path.iterdir()) == [out]
    else:
        assert running.process.returncode == 128 + number
        assert temporary(tmp_path) == []
