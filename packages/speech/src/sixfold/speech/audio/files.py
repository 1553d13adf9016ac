"""Read and write sound files, from and to paths or memory.

Audio is float32 shaped (channels, time), full scale ±1. Reading raises for files that would spoil a
result unnoticed: truncated or empty files, and NaN.
"""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sixfold.core.config import UserError
from sixfold.core.data.atomic import atomic_file
from sixfold.speech.audio.arrays import check_finite, to_tensor, whole_rate
from sixfold.speech.audio.containers import BinaryFile, Source, name_of, open_sound
from sixfold.speech.audio.encoding import FORMATS, Output, check_limits, encoder, known_format
from sixfold.speech.audio.resampling import resample

if TYPE_CHECKING:  # imported inside functions, because building a model needs no soundfile
    import soundfile

WRITES = tuple(f".{suffix}" for suffix in FORMATS)
# Of the files in a folder, those that are read; the last line needs ffmpeg.
READS = (
    *(".aif", ".aiff", ".au", ".caf", ".mp3", ".opus", ".w64", *WRITES),
    *(".aac", ".m4a", ".wma"),
)
_MOST_READ = 1 << 20  # samples per channel that are read at a time


def read_audio(source: Source, sample_rate: int | None = None) -> tuple[Tensor, int]:
    """Read a whole sound file of any format that libsndfile or, if it is installed, ffmpeg knows.

    Args:
        source: Path of the file, its bytes, or a binary file object.
        sample_rate: Sample rate to resample to, in Hz; by default the file's own.

    Returns:
        Audio shaped (channels, time) and its sample rate in Hz.

    Raises:
        UserError: the file is missing, no sound file, truncated, empty, or holds NaN.
    """
    with open_recording(source) as recording:
        audio, own_rate = torch.cat(list(recording.blocks(_MOST_READ)), 1), recording.sample_rate
    if sample_rate is None:
        return audio, own_rate
    return resample(audio, own_rate, sample_rate), sample_rate


def read_blocks(source: Source, block: int, overlap: int = 0) -> Iterator[Tensor]:
    """Read a long file block by block, in constant memory, at its own sample rate.

    Args:
        source: Path of the file, its bytes, or a binary file object.
        block: Number of samples per block; the last block may be shorter.
        overlap: Number of samples that a block shares with the previous one.

    Yields:
        Blocks shaped (channels, time), each with at least one new sample.

    Raises:
        UserError: as `read_audio`, or `overlap` is not below `block`.
    """
    if not 0 <= overlap < block:
        raise UserError(f"blocks of {block} samples cannot overlap by {overlap}")
    with open_recording(source) as recording:
        yield from recording.blocks(block, overlap)


@contextmanager
def open_recording(source: Source) -> Iterator["Recording"]:
    """Open a sound file to read it block by block, more than once.

    Raises:
        UserError: the file is missing, no sound file, truncated or empty.
    """
    with open_sound(source) as sound:
        yield Recording(name_of(source), sound)


class Recording:
    """An open sound file: its name, sample rate in Hz, channels and samples per channel."""

    def __init__(self, name: str, sound: "soundfile.SoundFile") -> None:
        self.name, self._sound = name, sound
        self.sample_rate, self.channels, self.samples = (
            sound.samplerate, sound.channels, sound.frames,
        )  # fmt: skip
        self.is_float = sound.subtype in ("FLOAT", "DOUBLE")

    def blocks(self, block: int, overlap: int = 0) -> Iterator[Tensor]:
        """Read it from its beginning, see `read_blocks`."""
        position, shared = 0, torch.empty(self.channels, 0)
        while position < self.samples:
            count = min(block - shared.shape[1], self.samples - position)
            piece = torch.cat([shared, self._read(count, position)], dim=1)
            position += count
            yield piece
            shared = piece[:, piece.shape[1] - overlap :]

    def part(self, start: int, count: int) -> Tensor:
        """Read ``count`` samples from ``start`` on, shaped (channels, time).

        Raises:
            UserError: the file is damaged or cut off, or holds NaN there.
        """
        return self._read(count, start)

    def _read(self, count: int, position: int) -> Tensor:
        import soundfile

        try:
            if position == 0 or position != self._sound.tell():
                self._sound.seek(position)  # which fails for a FLAC that is cut off
            samples = self._sound.read(count, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise UserError(
                f"{self.name} is damaged or cut off: {error}; copy or make it again"
            ) from None
        if len(samples) != count:
            found = position + len(samples)
            raise UserError(
                f"{self.name} is cut off after {found} of {self.samples} samples; copy or make it "
                "again"
            )
        audio = torch.from_numpy(samples).T.contiguous()
        check_finite(self.name, audio)
        return audio


def write_audio(
    target: str | os.PathLike[str] | BinaryFile,
    audio: Tensor | np.ndarray,
    sample_rate: int,
    format: str | None = None,
) -> None:
    """Write a .wav (32-bit float), .flac (24 bits) or .ogg (Vorbis) file, atomically.

    Samples beyond ±1 are kept in .wav; in the other formats they are clipped, with a warning.

    Args:
        target: Path, or binary file object, e.g. io.BytesIO().
        audio: Audio shaped (channels, time) or (time,).
        sample_rate: Sample rate in Hz.
        format: "wav", "flac" or "ogg"; by default the suffix of the path.

    Raises:
        UserError: the format is unknown, the audio is of another shape, is empty or holds NaN, or
            the file cannot be written.
    """
    name = _name_of_target(target)
    samples = torch.atleast_2d(to_tensor(audio).detach().float().cpu())
    if samples.ndim != 2:
        raise UserError(f"audio to write is shaped (channels, time), got {tuple(samples.shape)}")
    if samples.numel() == 0:
        raise UserError(f"{name}: the audio holds no samples, shape {tuple(samples.shape)}")
    check_finite(name, samples)
    channels, count = samples.shape
    with open_output(target, sample_rate, channels, count, format) as output:
        output.write(samples)
    if output.clipped:
        peak = samples.abs().max().item()
        warnings.warn(f"{name}: peak {peak:.3f} is clipped to 1; .wav would keep it", stacklevel=2)


def write_blocks(
    paths: Sequence[Path], blocks: Iterable[Tensor], sample_rate: int, channels: int, samples: int
) -> int:
    """Write the first ``samples`` of a stream block by block, in the formats of `write_audio`.

    Args:
        paths: Paths of the files, which appear once all are complete; each gets an equal share of
            the channels.
        blocks: Consecutive blocks shaped (channels, time).
        sample_rate: Sample rate in Hz.
        channels: Number of channels of every block.
        samples: Length of the files; the stream may be longer.

    Returns:
        Number of samples that were clipped because they are beyond ±1.

    Raises:
        UserError: as `check_output`, or the disk is full.
    """
    share, left = channels // len(paths), samples
    with ExitStack() as stack:
        outputs = [
            stack.enter_context(open_output(path, sample_rate, share, samples)) for path in paths
        ]
        for block in blocks:
            block = block[:, :left].cpu()
            left -= block.shape[1]
            for output, part in zip(outputs, block.split(share), strict=True):
                output.write(part)
    return sum(output.clipped for output in outputs)


@contextmanager
def open_output(
    target: str | os.PathLike[str] | BinaryFile,
    sample_rate: int,
    channels: int,
    samples: int,
    format: str | None = None,
) -> Iterator[Output]:
    """Open a sound file to write it block by block; it appears at its path once it is complete.

    The same samples give the same bytes.

    Raises:
        UserError: as `check_output`, or the disk is full.
    """
    sample_rate, name = whole_rate(sample_rate), _name_of_target(target)
    path = Path(target) if isinstance(target, str | os.PathLike) else None
    if path is not None:
        check_output(path, None, format, sample_rate, channels)
    kind, encoding = known_format(name, format or (path and path.suffix))
    check_limits(name, kind, sample_rate, channels)
    with ExitStack() as stack:
        if path is None:
            file: Any = stack.enter_context(tempfile.TemporaryFile())
        else:
            file = stack.enter_context(stack.enter_context(atomic_file(path)).open("w+b"))
        with encoder(name, file, kind, encoding, sample_rate, channels, samples) as sound:
            yield sound
        if path is None:
            _replace_content(target, file)


def _replace_content(target: Any, file: BinaryFile) -> None:
    if target.seekable():
        target.seek(0)
        target.truncate()
    file.seek(0)
    shutil.copyfileobj(file, target)


def check_output(
    path: Path,
    input: Path | None = None,
    format: str | None = None,
    sample_rate: int = 1,
    channels: int = 1,
) -> None:
    """Raise if a file cannot be written, before the work whose result it will hold.

    Args:
        path: Path of the file.
        input: Recording that must not be overwritten, through a link neither.
        format: Format; by default the suffix.
        sample_rate: Sample rate in Hz.
        channels: Number of channels.

    Raises:
        UserError: the suffix is unknown, its format cannot hold the rate or the channels, the path
            is a folder or the input, or its folder is missing or read-only.
    """
    folder = path.parent
    kind, _ = known_format(str(path), format or path.suffix)
    check_limits(str(path), kind, sample_rate, channels)
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; name a file")
    if not folder.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {path}: the folder {folder} is not writable; name another")
    if input is not None and path.exists() and input.exists() and path.samefile(input):
        raise UserError(f"{path} is the input; name another file or folder for the output")


def _name_of_target(target: str | os.PathLike[str] | BinaryFile) -> str:
    return os.fspath(target) if isinstance(target, str | os.PathLike) else "the file object"
