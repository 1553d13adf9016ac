"""Files as recorders leave them: stopped, cut off, in memory, or in formats for ffmpeg alone."""

import io
import stat
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sixfold.core.config import UserError
from sixfold.speech.audio.files import open_recording, read_audio, read_blocks, write_audio


def samples(count: int = 3000, channels: int = 1) -> np.ndarray:
    generator = np.random.default_rng(0)
    return 0.1 * generator.standard_normal((count, channels))


def content(format: str = "WAV", subtype: str | None = "PCM_16", channels: int = 1) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples(channels=channels), 16_000, subtype, format=format)
    return buffer.getvalue()


def with_length(wav: bytes, length: int) -> bytes:
    at = wav.index(b"data") + 4
    return wav[:at] + length.to_bytes(4, "little") + wav[at + 4 :]


def forms(path: Path) -> list:
    """List everything that is the same file."""
    return [path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), path.open("rb")]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_stopped_recording_is_read_to_its_end_with_a_warning(tmp_path, subtype, channels):
    whole = content(subtype=subtype, channels=channels)
    (tmp_path / "a.wav").write_bytes(with_length(whole, 0))
    expected, _ = read_audio(whole)
    for source in forms(tmp_path / "a.wav"):
        with pytest.warns(UserWarning, match="header says that it holds no samples"):
            found, rate = read_audio(source)
        assert rate == 16_000
        assert torch.equal(found[:, :3000], expected)
    with pytest.warns(UserWarning, match="read to its end"):
        blocks = list(read_blocks(tmp_path / "a.wav", 1000))
    assert torch.equal(torch.cat(blocks, 1)[:, :3000], expected)


def test_no_samples_before_another_chunk_are_no_samples():
    empty = content()[: content().index(b"data")] + b"data\0\0\0\0"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rest in (b"", b"LIST\x04\0\0\0INFO"):
            with pytest.raises(UserError, match="holds no samples"):
                read_audio(empty + rest)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 0x7F000000])
def test_the_length_of_what_was_written_to_a_pipe_is_unknown(length):
    whole = content()
    assert torch.equal(read_audio(with_length(whole, length))[0], read_audio(whole)[0])


@pytest.mark.parametrize("format", ["WAV", "RF64", "AIFF", "AU", "FLAC", "OGG"])
@pytest.mark.parametrize("missing", [2, 2000])
def test_a_file_that_is_cut_off_is_refused_in_every_form(tmp_path, format, missing):
    subtype = "VORBIS" if format == "OGG" else "PCM_16"
    whole = content(format, subtype)
    assert read_audio(whole)[0].shape[1] == 3000
    (tmp_path / "a.x").write_bytes(whole[:-missing])
    for source in forms(tmp_path / "a.x"):
        with pytest.raises(UserError, match=r"cut off.*again"):
            read_audio(source)


def test_one_missing_byte_is_counted():
    with pytest.raises(UserError, match=r"cut off: 1 of its bytes are missing; copy.*ffmpeg"):
        read_audio(content()[:-1])


def test_file_objects_are_read_from_their_beginning_and_stay_open(tmp_path):
    (tmp_path / "a.wav").write_bytes(content())
    with (tmp_path / "a.wav").open("rb") as stream:
        stream.seek(77)
        first, _ = read_audio(stream)
        second, _ = read_audio(stream)
        assert not stream.closed
    assert torch.equal(first, second)
    with pytest.raises(UserError, match=r"binary mode"), (tmp_path / "a.wav").open() as stream:
        read_audio(stream)  # type: ignore[arg-type]


class Pipe(io.RawIOBase):
    """A stream that cannot seek, as standard input."""

    def __init__(self, content: bytes) -> None:
        self.inner = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def readinto(self, buffer) -> int:
        return self.inner.readinto(buffer)


def test_a_pipe_is_read():
    assert torch.equal(read_audio(Pipe(content()))[0], read_audio(content())[0])


def test_an_array_is_no_source(unchecked):
    with pytest.raises(UserError, match="from a path, bytes or a binary file object, got ndarray"):
        read_audio(samples())  # type: ignore[arg-type]


@pytest.mark.parametrize("format", ["wav", "flac", "ogg", ".WAV"])
def test_files_are_written_to_memory(format):
    target = io.BytesIO()
    write_audio(target, samples()[:, 0], 16_000, format=format)
    found, rate = read_audio(target)
    assert (found.shape, rate) == ((1, 3000), 16_000)
    if "wav" in format.lower():
        np.testing.assert_array_equal(found[0].numpy(), samples()[:, 0].astype(np.float32))


def test_a_file_object_needs_a_format(tmp_path):
    with pytest.raises(UserError, match=r"not 'without suffix'; name a suffix, or give format="):
        write_audio(io.BytesIO(), samples()[:, 0], 16_000)
    with pytest.raises(UserError, match=r"the file object: write .*not 'mp4'"):
        write_audio(io.BytesIO(), samples()[:, 0], 16_000, format="mp4")
    write_audio(tmp_path / "no_suffix", samples()[:, 0], 16_000, format="wav")
    assert read_audio(tmp_path / "no_suffix")[1] == 16_000


def test_a_recording_says_whether_it_is_of_floats():
    for subtype, is_float in {"PCM_16": False, "FLOAT": True, "DOUBLE": True}.items():
        with open_recording(content(subtype=subtype)) as recording:
            assert recording.is_float == is_float
            assert (recording.channels, recording.samples) == (1, 3000)


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """A program called ffmpeg that knows one format: "m4a" and then a WAV."""
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys, pathlib\n"
        "given = sys.argv[sys.argv.index('-i') + 1]\n"
        "data = pathlib.Path(given).read_bytes()\n"
        "if not data.startswith(b'm4a'):\n"
        "    sys.exit(f'{given}: Invalid data found when processing input')\n"
        "pathlib.Path(sys.argv[-1]).write_bytes(data[3:])\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


def test_what_libsndfile_cannot_read_goes_through_ffmpeg(tmp_path, ffmpeg):
    (tmp_path / "a.m4a").write_bytes(b"m4a" + content())
    for source in forms(tmp_path / "a.m4a"):
        assert torch.equal(read_audio(source)[0], read_audio(content())[0])
    (tmp_path / "a.txt").write_text("these are words" * 9)
    with pytest.raises(UserError, match=r"a\.txt is no sound file .*nor can ffmpeg: .*Invalid"):
        read_audio(tmp_path / "a.txt")


def test_without_ffmpeg_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "a.m4a").write_bytes(b"m4a" + content())
    with pytest.raises(UserError, match=r"m4a, aac .* need ffmpeg, which is not installed: inst"):
        read_audio(tmp_path / "a.m4a")
