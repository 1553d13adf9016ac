"""Sound files round-trip, damaged ones are refused; resampling and levels."""

import math
from pathlib import Path

import pytest
import soundfile
import torch

from sixfold.core.config import UserError
from sixfold.speech.audio.files import (
    level_gain,
    read_audio,
    read_blocks,
    resample,
    stream_gain,
    warn_clipped,
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
    with pytest.raises(UserError, match=r"shaped \(channels, time\), got \(1600,\)"):
        write_audio(tmp_path / "x.wav", tone(0.1), 16000)
    with pytest.raises(UserError, match=r"there is no folder .*none; make it first"):
        write_audio(tmp_path / "none" / "x.wav", tone(0.1)[None], 16000)
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.parametrize("rates", [(48000, 16000), (22050, 16000), (8000, 16000)], ids=str)
def test_resampling_keeps_tones_of_the_common_band_and_no_others(rates: tuple[int, int]):
    before, after = rates
    kept = resample(tone(1.0, 1000, before), before, after)
    assert kept.shape == (after,)
    inner = slice(after // 10, -after // 10)
    torch.testing.assert_close(kept[inner], tone(1.0, 1000, after)[inner], atol=1e-4, rtol=0)
    if before > after:
        gone = resample(tone(1.0, 9000, before), before, after)
        assert gone[inner].abs().max() < 1e-3


def test_reading_can_resample(tmp_path: Path):
    write_audio(tmp_path / "x.wav", tone(0.5, rate=48000)[None], 48000)
    audio, rate = read_audio(tmp_path / "x.wav", 16000)
    assert (audio.shape, rate) == ((1, 8000), 16000)
    with pytest.raises(UserError, match="positive"):
        resample(audio, 16000, 0)


def test_level_follows_the_official_two_steps():
    audio = torch.randn(3, 8000, dtype=torch.float64) * torch.tensor([[1e-2], [1.0], [30.0]])
    for row, gain in zip(audio, level_gain(audio), strict=True):
        first = 10 ** (-25 / 20) / (row.square().mean().sqrt() + 1e-6)
        power = (row * first) ** 2
        second = 10 ** (-25 / 20) / (power[power > power.mean()].mean().sqrt() + 1e-6)
        torch.testing.assert_close(gain[0], first * second)


def test_the_level_of_a_stream_equals_that_of_the_recording():
    noise = 0.1 * torch.randn(1, 5000, generator=torch.Generator().manual_seed(0))
    growing = noise * torch.linspace(0, 20, 5000)
    whole = torch.cat([noise, growing, torch.ones(1, 5000), torch.zeros(1, 5000)])
    gain = stream_gain(lambda: iter(whole.split(777, 1)))
    torch.testing.assert_close(gain, level_gain(whole).double())


def test_level_of_silence_and_of_constant_power_is_finite():
    assert torch.equal(level_gain(torch.zeros(1, 100)) * torch.zeros(1, 100), torch.zeros(1, 100))
    square = torch.tensor([[0.5, -0.5] * 50])
    peak = float((level_gain(square) * square).abs().max())
    assert peak == pytest.approx(10 ** (-25 / 20), rel=1e-5)


def test_clipped_samples_are_counted(tmp_path: Path):
    blocks = [torch.tensor([[0.5, 1.5, -2.0]]), torch.tensor([[0.1, 3.0]])]
    assert write_blocks(tmp_path / "loud.flac", blocks, 16_000, 1, 4) == 2
    assert write_blocks(tmp_path / "loud.wav", blocks, 16_000, 1, 4) == 0
    flac, wav = (read_audio(tmp_path / f"loud.{kind}")[0][0] for kind in ("flac", "wav"))
    assert wav.tolist() == pytest.approx([0.5, 1.5, -2.0, 0.1])
    assert flac.tolist() == pytest.approx([0.5, 1, -1, 0.1], abs=1e-6)


@pytest.mark.parametrize("loud", [True, False])
def test_clipping_is_reported(tmp_path: Path, capsys, loud: bool):
    """A peak that touches full scale is no clipping."""
    audio = torch.linspace(0, 2.5 if loud else 1, 5000)[None].clamp(-1, 1)
    write_audio(tmp_path / "x.flac", audio, 16000)
    warn_clipped(tmp_path / "x.flac", read_blocks(tmp_path / "x.flac", 999))
    said = capsys.readouterr().out
    assert "x.flac: 60.0 % of the samples are at full scale" in said if loud else not said
