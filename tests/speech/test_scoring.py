"""Scores of folders: the same as of the metrics one by one, and what is left out."""

import csv

import pytest
import torch

from sixfold.core import UserError
from sixfold.speech import metrics
from sixfold.speech.audio import write_audio
from sixfold.speech.scoring import score

RATE = 16_000


@pytest.fixture
def folders(tmp_path):
    generator = torch.Generator().manual_seed(0)
    audio = {}
    for name in ("a", "deep/b"):
        clean = 0.1 * torch.randn(RATE, generator=generator)
        noisy = clean + 0.02 * torch.randn(RATE, generator=generator)
        audio[name] = clean, noisy
        for kind, sound in zip(("clean", "made"), audio[name], strict=True):
            (tmp_path / kind / name).parent.mkdir(parents=True, exist_ok=True)
            write_audio(tmp_path / kind / f"{name}.wav", sound, RATE)
    return tmp_path, audio


def test_scores_are_those_of_the_metrics(folders, capsys):
    place, audio = folders
    out = place / "scores.csv"
    names = ["si_sdr", "sdr", "stoi", "estoi"]
    means = score(place / "clean", place / "made", metrics=names, out=out)
    with out.open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    expected = {}
    for name, (clean, noisy) in audio.items():
        expected[name] = {
            "si_sdr": metrics.si_sdr(noisy, clean),
            "sdr": metrics.sdr(noisy, clean),
            "stoi": metrics.stoi(noisy, clean, RATE),
            "estoi": metrics.estoi(noisy, clean, RATE),
        }
        for metric, value in expected[name].items():
            assert float(rows[name][metric]) == pytest.approx(value, rel=1e-5)
    for metric in names:
        mean = sum(expected[name][metric] for name in audio) / 2
        assert means[metric] == pytest.approx(mean, rel=1e-9)
        assert f"  {metric} {mean:.4g}" in capsys.readouterr().out or metric != names[0]


def test_two_files_of_two_channels(folders):
    place, audio = folders
    for number, kind in enumerate(("clean", "made")):
        both = torch.stack([audio[name][number] for name in audio])
        write_audio(place / f"{kind}.wav", both, RATE)
    means = score(place / "clean.wav", place / "made.wav", metrics=["si_sdr"])
    values = [metrics.si_sdr(noisy, clean) for clean, noisy in audio.values()]
    assert means["si_sdr"] == pytest.approx(sum(values) / 2, rel=1e-6)


def test_a_recording_without_a_score_is_named_and_left_out(folders, capsys):
    place, audio = folders
    write_audio(place / "made" / "a.wav", torch.zeros(RATE), RATE)
    with pytest.raises(SystemExit) as stop:
        score(place / "clean", place / "made", metrics=["si_sdr"])
    assert stop.value.code == 1
    said = capsys.readouterr()
    assert "left out: a: the estimate is silent" in said.err
    assert f"si_sdr {metrics.si_sdr(*audio['deep/b'][::-1]):.4g}" in said.out
    write_audio(place / "made" / "a.wav", torch.ones(7), RATE)
    with pytest.raises(SystemExit):
        score(place / "clean", place / "made", metrics=["si_sdr"])
    assert "(1, 16000) at 16000 Hz, the estimate (1, 7)" in capsys.readouterr().err


def test_mistakes_are_named(folders):
    place, _ = folders
    with pytest.raises(UserError, match="did you mean 'si_sdr'"):
        score(place / "clean", place / "made", metrics=["sisdr"])
    with pytest.raises(UserError, match="is no folder"):
        score(place / "clean", place / "nowhere")
    with pytest.raises(UserError, match=r"a.wav is the input"):
        score(place / "clean", place / "made", out=place / "made" / "a.wav")
    (place / "made" / "a.wav").unlink()
    with pytest.raises(UserError, match=r"1 recordings of .* no partner .* 'a' in .*clean"):
        score(place / "clean", place / "made")
