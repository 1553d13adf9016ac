"""From file to file: bounded memory, linear time, one file for each speaker."""

import time

import pytest
import soundfile
import torch

from sixfold.core import progress
from sixfold.core.pipeline.measure import peak_memory
from sixfold.speech.audio import conversion
from sixfold.speech.audio.conversion import announced, convert
from sixfold.speech.audio.files import read_audio
from sixfold.speech.audio.stitching import process_windows, separate_windows

RATE = 1000


def recording(path, samples: int, rate: int = RATE):
    generator = torch.Generator().manual_seed(0)
    soundfile.write(path, 0.1 * torch.randn(samples, generator=generator).numpy(), rate, "FLOAT")
    return path


def both_signs(blocks, samples: int):
    return process_windows(lambda x: torch.cat([x, -x]), blocks(), samples, RATE, 1.0, 0.25)


@pytest.mark.parametrize("rate", [RATE, 1500])
@pytest.mark.parametrize("samples", [1, 200, 1000, 5003])
def test_channels_are_shared_among_files(tmp_path, rate, samples):
    paths = [tmp_path / "a.wav", tmp_path / "b.flac"]
    with announced(recording(tmp_path / "x.wav", samples, rate)) as given:
        convert(given, paths, RATE, both_signs, channels=2, action="separating")
    (first, _), (second, found_rate) = map(read_audio, paths)
    assert (first.shape, second.shape, found_rate) == ((1, samples), (1, samples), rate)
    torch.testing.assert_close(first, -second, rtol=0, atol=1e-6)
    if rate == RATE:
        torch.testing.assert_close(first, read_audio(tmp_path / "x.wav")[0], rtol=0, atol=1e-6)


def test_memory_does_not_grow_with_the_recording(tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "BLOCK", 3000)

    def held(samples: int) -> int:
        path = recording(tmp_path / f"{samples}.wav", samples, 1500)

        def work() -> None:
            with announced(path) as given:
                outputs = [tmp_path / "a.wav", tmp_path / "b.wav"]
                convert(given, outputs, RATE, both_signs, channels=2, action="separating")

        return peak_memory(work)

    assert held(120_000) < 1.05 * held(30_000)


def test_time_grows_with_the_length_alone():
    def seconds(samples: int) -> float:
        mixture, started = torch.randn(samples), time.process_time()
        found = separate_windows(lambda x: x[:, None].expand(1, 2, -1), mixture, RATE, 1.0, 0.2)
        assert found.shape == (2, samples)
        return time.process_time() - started

    seconds(100_000)
    assert seconds(2_000_000) < 40 * min(seconds(200_000) for _ in range(3))  # quadratic: 100


def test_long_work_says_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SHOW_AFTER_S", -1.0)
    with announced(recording(tmp_path / "x.wav", 9000)) as given:
        convert(given, [tmp_path / "a.wav"], RATE, both_signs, channels=2, action="separating")
    said = capsys.readouterr().out
    assert "x.wav: 9.0 s, 1 channel(s) at 1000 Hz" in said
    assert "separating: " in said
    assert " %, " in said
    assert said.splitlines()[-1].startswith(f"{tmp_path / 'a.wav'}: written after")


def test_what_seems_wrong_with_a_recording_is_printed(tmp_path, capsys):
    path = recording(tmp_path / "loud.wav", 3000)
    audio = 30 * read_audio(path)[0][0]
    soundfile.write(path, audio.numpy(), RATE, "FLOAT")
    with announced(path):
        pass
    assert "loud.wav: peaks at" in capsys.readouterr().out
    soundfile.write(path, audio.numpy(), RATE, "PCM_16")
    data = bytearray(path.read_bytes())
    data[40:44] = bytes(4)
    path.write_bytes(bytes(data))
    with announced(path):
        pass
    said = capsys.readouterr().out
    assert "loud.wav: its header says that it holds no samples" in said
    assert "% of the samples are at full scale" in said
