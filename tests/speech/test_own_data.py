"""Every system learns from recordings of one's own, and its checkpoint runs on a file."""

import sys

import pytest
import torch

from sixfold.core import UserError, train
from sixfold.core.cli import main
from sixfold.speech.audio import read_audio, write_audio

TINY = {
    "frcrn": ["channels=8", "memory=3"],
    "mossformer2": ["channels=32", "blocks=1", "memory_channels=16"],
    "mossformer": ["channels=32", "blocks=1"],
    "mossformer2_se": ["channels=32", "blocks=1", "memory_channels=16"],
    "deftan2": ["microphones=2", "channels=8", "blocks=1"],
    "conv_tasnet": ["features=16", "channels=8", "hidden=16", "stacks=1"],
    "tf_transformer": ["microphones=2", "channels=16", "blocks=1"],
}
SEPARATION = {"mossformer2", "mossformer", "conv_tasnet"}
ARRAY = {"deftan2", "tf_transformer"}
RUNS = {"frcrn", "mossformer2", "mossformer", "mossformer2_se", "deftan2"}


def write(path, channels=1, samples=12000, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    write_audio(path, 0.1 * torch.randn(channels, samples, generator=generator), 24000)


def sixfold(monkeypatch, *words):
    """Run the command, which must succeed."""
    monkeypatch.setattr(sys, "argv", ["sixfold", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code


@pytest.fixture
def folder(tmp_path):
    def make(name):
        targets = ("s1", "s2") if name in SEPARATION else ("clean",)
        for number in range(3):
            channels = 2 if name in ARRAY else 1
            write(tmp_path / "mix" / f"{number}.wav", channels, seed=number)
            for seed, target in enumerate(targets, 10 * number + 10):
                write(tmp_path / target / f"{number}.wav", seed=seed)
        return tmp_path

    return make


@pytest.mark.parametrize("name", TINY)
def test_train_and_run(name, folder, monkeypatch, capsys):
    data = folder(name)
    words = ["--data", data, "--out", data / "run", "--steps", 2, "--batch", 1, "--threads", 1]
    words += [word for setting in TINY[name] for word in ("--set", setting)]
    sixfold(monkeypatch, "train", f"speech/{name}", *words, "--seconds", 0.3)
    printed = capsys.readouterr().out
    assert "2 recordings to train on, 1 for validation, at 24000 Hz" in printed
    assert "model.safetensors: si_sdr" in printed
    if name in RUNS:
        output = data / ("out" if name in SEPARATION else "out.wav")
        source, weights = data / "mix" / "0.wav", data / "run" / "model.safetensors"
        sixfold(monkeypatch, "run", f"speech/{name}", source, output, "--weights", weights)
        made = output / "speaker-1.wav" if name in SEPARATION else output
        audio, rate = read_audio(made)
        assert (audio.shape[1], rate) == (12000, 24000)


def test_ten_lines_of_python(folder):
    data = folder("frcrn")
    model = train(
        "speech/frcrn",
        data=data,
        out=data / "run",
        steps=2,
        batch=2,
        set=TINY["frcrn"],
        options={"seconds": 0.3},
        threads=1,
    )
    again = train(
        "speech/frcrn",
        data=data,
        out=data / "finer",
        weights=data / "run" / "model.safetensors",
        steps=1,
        options={"seconds": 0.3},
        threads=1,
    )
    assert again.config == model.config


def test_recordings_that_do_not_fit_the_network_are_named(folder):
    data = folder("deftan2")
    with pytest.raises(UserError, match=r"0.wav has 2 channels, the network takes 4"):
        train("speech/deftan2", data=data, out=data / "run")
    with pytest.raises(UserError, match=r"0.wav has 2 channels, the network takes 1"):
        train("speech/frcrn", data=data, out=data / "run")
    assert not (data / "run").exists()
