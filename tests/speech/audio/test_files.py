"""Sound files round-trip, damaged ones are refused."""

import io
import math
import os
import resource
import time
from pathlib import Path

import pytest
import soundfile
import torch

from sixfold.core.config import UserError
from sixfold.speech.audio.files import (
    read_audio,
    read_blocks,
    write_audio,
    write_blocks,
)


def tone(seconds: float, hertz: float = 440.0, rate: int = 16000) -> torch.Tensor:
    time = torch.arange(int(seconds * rate), dtype=torch.float64) / rate
    return 0.3 * torch.sin(2 * math.pi * hertz * time).float()


@pytest.mark.parametrize(("suffix", "error"), [(".wav", 0), (".flac", 1e-7), (".ogg", 0.1)])
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_file_round_trips(tmp_path: Path, suffix: str, error: float, channels: int):
    audio = torch.stack([tone(0.5, 200.0 * (n + 1)) for n in range(channels)])
    write_audio(tmp_path / f"x{suffix}", audio, 16000)
    again, rate = read_audio(tmp_path / f"x{suffix}")
    assert rate == 16000
    assert again.shape == audio.shape
    assert (again - audio).abs().max() <= error
    assert [path.name for path in tmp_path.iterdir()] == [f"x{suffix}"]


def test_wav_keeps_samples_over_full_scale_and_flac_warns_of_clipping(tmp_path: Path):
    loud = 5 * tone(0.1)[None]
    write_audio(tmp_path / "x.wav", loud, 16000)
    assert torch.equal(read_audio(tmp_path / "x.wav")[0], loud)
    with pytest.warns(UserWarning, match=r"peak 1\.500 is clipped"):
        write_audio(tmp_path / "x.flac", loud, 16000)
    assert read_audio(tmp_path / "x.flac")[0].abs().max() <= 1


@pytest.mark.parametrize(("block", "overlap"), [(1000, 0), (1000, 250), (16001, 0), (7, 6)])
def test_blocks_joined_are_the_file(tmp_path: Path, block: int, overlap: int):
    audio = torch.stack([tone(0.2), tone(0.2, 300)])
    write_audio(tmp_path / "x.wav", audio, 16000)
    pieces = list(read_blocks(tmp_path / "x.wav", block, overlap))
    joined = torch.cat([pieces[0], *(piece[:, overlap:] for piece in pieces[1:])], dim=1)
    assert torch.equal(joined, audio)
    assert all(piece.shape[1] == block for piece in pieces[:-1])
    assert all(piece.shape[1] > overlap for piece in pieces)


def test_blocks_cannot_overlap_wholly(tmp_path: Path):
    with pytest.raises(UserError, match="blocks of 10 samples cannot overlap by 10"):
        next(read_blocks(tmp_path / "x.wav", 10, 10))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
@pytest.mark.parametrize("kept", [0.999, 0.5, 0.1])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, kept: float):
    path = tmp_path / f"x{suffix}"
    write_audio(path, 0.1 * torch.randn(1, 160000), 16000)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match="cut off"):
        read_audio(path)
    with pytest.raises(UserError, match="cut off"):
        list(read_blocks(path, 16000))


def test_files_without_audio_are_refused(tmp_path: Path):
    path = tmp_path / "x.wav"
    with pytest.raises(UserError, match="there is no sound file"):
        read_audio(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="is empty"):
        read_audio(path)
    path.write_text("just words, and quite a lot of them, " * 9)
    with pytest.raises(UserError, match="no sound file that can be read"):
        read_audio(path)
    soundfile.write(path, torch.zeros(0, 1).numpy(), 16000)
    with pytest.raises(UserError, match="holds no samples"):
        read_audio(path)
    with pytest.raises(UserError, match="there is no sound file"):
        read_audio(tmp_path)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_are_refused(tmp_path: Path, bad: float):
    audio = tone(0.1)[None].clone()
    audio[0, 7] = bad
    with pytest.raises(UserError, match="1 of 1600 samples are NaN or infinite"):
        write_audio(tmp_path / "x.wav", audio, 16000)
    soundfile.write(tmp_path / "x.wav", audio.T.numpy(), 16000, "FLOAT")
    with pytest.raises(UserError, match="1 of 1600 samples are NaN or infinite"):
        read_audio(tmp_path / "x.wav")


def test_unwritable_output_is_refused_and_leaves_no_file(tmp_path: Path):
    with pytest.raises(UserError, match=r"write \.wav, \.flac or \.ogg"):
        write_audio(tmp_path / "x.mp4", tone(0.1)[None], 16000)
    with pytest.raises(UserError, match="holds no samples"):
        write_audio(tmp_path / "x.wav", torch.zeros(1, 0), 16000)
    with pytest.raises(UserError, match=r"shaped \(channels, time\), got \(1, 1, 1600\)"):
        write_audio(tmp_path / "x.wav", tone(0.1)[None, None], 16000)
    with pytest.raises(UserError, match=r"there is no folder .*none; make it first"):
        write_audio(tmp_path / "none" / "x.wav", tone(0.1)[None], 16000)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(UserError, match=r"folder\.wav: it is a folder; name a file"):
        write_audio(tmp_path / "folder.wav", tone(0.1)[None], 16000)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.wav"
    write_audio(path, tone(0.1)[None], 16000)

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(soundfile.SoundFile, "write", fail)
    with pytest.raises(UserError, match="no space left"):
        write_audio(path, tone(0.2)[None], 16000)
    assert read_audio(path)[0].shape == (1, 1600)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("suffix", "rate", "channels", "mend"),
    [
        (".ogg", 200_001, 1, "OGG holds rates of 1 to 200000 Hz, not 200001 Hz; write .wav"),
        (".ogg", 16_000, 256, "OGG holds 1 to 255 channels, not 256; write .wav"),
        (".flac", 16_000, 9, "FLAC holds 1 to 8 channels, not 9"),
        (".flac", 655_360, 1, "FLAC holds rates of 1 to 655350 Hz, not 655360"),
        (".flac", 96_001, 1, r"\(above 65535 Hz in steps of 10\), not 96001 Hz"),
        (".wav", 16_000, 1025, "WAV holds 1 to 1024 channels, not 1025; write fewer channels"),
        (".wav", 2**31, 1, "WAV holds rates of 1 to 2147483647 Hz"),
        (".ogg", 0, 1, "positive whole numbers of Hz, got 0"),
    ],
)
def test_the_limits_of_a_format_are_checked_first(tmp_path, suffix, rate, channels, mend):
    with pytest.raises(UserError, match=mend):
        write_audio(tmp_path / f"x{suffix}", torch.zeros(channels, 9), rate)
    with pytest.raises(UserError, match=mend):
        write_audio(io.BytesIO(), torch.zeros(channels, 9), rate, format=suffix)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("suffix", "rate", "channels"),
    [
        (".ogg", 200_000, 1),
        (".ogg", 1, 255),
        (".flac", 655_350, 8),
        (".flac", 65_535, 1),
        (".wav", 2**31 - 1, 1),
        (".wav", 16_000, 1024),
    ],
)
def test_at_the_limits_of_a_format_files_round_trip(tmp_path, suffix, rate, channels):
    write_audio(tmp_path / f"x{suffix}", torch.zeros(channels, 1000), rate)
    again, own_rate = read_audio(tmp_path / f"x{suffix}")
    assert (tuple(again.shape), own_rate) == ((channels, 1000), rate)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_the_same_samples_give_the_same_bytes(tmp_path, suffix):
    audio = torch.stack([tone(5.0), tone(5.0, 300)])
    write_audio(tmp_path / f"x{suffix}", audio, 16_000)
    time.sleep(1.1)  # the clock of a PEAK chunk counts seconds
    write_audio(tmp_path / f"y{suffix}", audio, 16_000)
    memory = io.BytesIO(b"what was there before" * 100_000)
    write_audio(memory, audio, 16_000, format=suffix)
    first, again = ((tmp_path / f"{name}{suffix}").read_bytes() for name in "xy")
    assert first == again == memory.getvalue()


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_a_full_disk_is_named_whatever_the_format_hides(tmp_path, suffix):
    path, loud = tmp_path / f"x{suffix}", torch.rand(1, 100_000) - 0.5
    write_audio(path, tone(0.1)[None], 16_000)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(UserError, match=rf"cannot write .*x{suffix}: .* MB free"):
            write_audio(path, loud, 16_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_names_that_are_not_utf8_are_names(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9 \xff.wav")
    write_audio(path, tone(0.1)[None], 16_000)
    assert read_audio(path)[0].shape == (1, 1600)


def test_reading_can_resample(tmp_path: Path):
    write_audio(tmp_path / "x.wav", tone(0.5, rate=48000)[None], 48000)
    audio, rate = read_audio(tmp_path / "x.wav", 16000)
    assert (audio.shape, rate) == ((1, 8000), 16000)
    with pytest.raises(UserError, match="positive"):
        read_audio(tmp_path / "x.wav", 0)


def test_clipped_samples_are_counted(tmp_path: Path):
    blocks = [torch.tensor([[0.5, 1.5, -2.0]]), torch.tensor([[0.1, 3.0]])]
    assert write_blocks([tmp_path / "loud.flac"], blocks, 16_000, 1, 4) == 2
    assert write_blocks([tmp_path / "loud.wav"], blocks, 16_000, 1, 4) == 0
    flac, wav = (read_audio(tmp_path / f"loud.{kind}")[0][0] for kind in ("flac", "wav"))
    assert wav.tolist() == pytest.approx([0.5, 1.5, -2.0, 0.1])
    assert flac.tolist() == pytest.approx([0.5, 1, -1, 0.1], abs=1e-6)
