"""Read and write sound files, resample, and compute the gain to the level of the training data.

Audio is float32 shaped (channels, time), full scale ±1. Reading raises for files that would spoil a
result unnoticed: truncated or empty files, and NaN.
"""

import functools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core.config import UserError
from sixfold.core.data.atomic import atomic_file

if TYPE_CHECKING:  # imported inside functions, because building a model needs no soundfile
    import soundfile

# Suffix: format and encoding. Float WAV holds any level exactly; the others clip at full scale.
_FORMATS = {".wav": ("WAV", "FLOAT"), ".flac": ("FLAC", "PCM_24"), ".ogg": ("OGG", "VORBIS")}
_WRITE_BLOCK = 1 << 16  # a single long Vorbis write can crash
_WAV_BYTES = 4_000_000_000  # a WAV header holds 32 bits; longer files become RF64, also called .wav
_UNKNOWN_LENGTH = 0x7FFFF000  # the length in headers of WAV written to a pipe, or more
_FULL_SCALE, _CLIPPED = 0.9999, 1e-3  # full scale of 16 bits is 0.99997; a few peaks may reach it
_LEVEL = 10 ** (-25 / 20)
_LEVEL_EPS = 1e-6


def read_audio(path: str | Path, sample_rate: int | None = None) -> tuple[Tensor, int]:
    """Read a whole sound file of any format that libsndfile knows.

    Args:
        path: Path of the file.
        sample_rate: Sample rate to resample to, in Hz; by default the file's own.

    Returns:
        Audio shaped (channels, time) and its sample rate in Hz.

    Raises:
        UserError: the file is missing, no sound file, truncated, empty, or holds NaN.
    """
    with _open(Path(path)) as file:
        audio = _checked(Path(path), _read(Path(path), file, file.frames), file.frames)
        own_rate = file.samplerate
    if sample_rate is None:
        return audio, own_rate
    return resample(audio, own_rate, sample_rate), sample_rate


def read_blocks(path: str | Path, block: int, overlap: int = 0) -> Iterator[Tensor]:
    """Read a long file block by block, in constant memory, at its own sample rate.

    Args:
        path: Path of the file.
        block: Number of samples per block; the last block may be shorter.
        overlap: Number of samples that a block shares with the previous one.

    Yields:
        Blocks shaped (channels, time), each with at least one new sample.

    Raises:
        UserError: as `read_audio`, or `overlap` is not below `block`.
    """
    if not 0 <= overlap < block:
        raise UserError(f"blocks of {block} samples cannot overlap by {overlap}")
    path = Path(path)
    with _open(path) as file:
        position, shared = 0, torch.empty(file.channels, 0)
        while position < file.frames:
            count = min(block - shared.shape[1], file.frames - position)
            piece = torch.cat([shared, _checked(path, _read(path, file, count), count)], dim=1)
            position += count
            yield piece
            shared = piece[:, piece.shape[1] - overlap :]


def write_audio(path: str | Path, audio: Tensor, sample_rate: int) -> None:
    """Write a .wav (32-bit float), .flac (24 bits) or .ogg (Vorbis) file atomically.

    Samples beyond ±1 are kept in .wav; in the other formats they are clipped, with a warning.

    Raises:
        UserError: the suffix is unknown, the audio is not shaped (channels, time), is empty or
            holds NaN, or the file cannot be written.
    """
    path = Path(path)
    if audio.ndim != 2:
        raise UserError(f"audio to write is shaped (channels, time), got {tuple(audio.shape)}")
    samples = _checked(path, audio.detach().float().cpu(), audio.shape[1])
    if write_blocks(path, [samples], sample_rate, *samples.shape):
        peak = samples.abs().max().item()
        warnings.warn(f"{path}: peak {peak:.3f} is clipped to 1; .wav would keep it", stacklevel=2)


def write_blocks(
    path: Path, blocks: Iterable[Tensor], sample_rate: int, channels: int, samples: int
) -> int:
    """Write the first ``samples`` of a stream block by block, in the formats of `write_audio`.

    Args:
        path: Path of the file, which appears once it is complete.
        blocks: Consecutive blocks shaped (channels, time), on the CPU.
        sample_rate: Sample rate in Hz.
        channels: Number of channels of every block.
        samples: Length of the file; the stream may be longer.

    Returns:
        Number of samples that were clipped because they are beyond ±1.

    Raises:
        UserError: as `check_output`, or the disk is full.
    """
    import soundfile

    check_output(path)
    kind, encoding = _FORMATS[path.suffix.lower()]
    if kind == "WAV" and 4 * channels * samples > _WAV_BYTES:
        kind = "RF64"
    clipped, left = 0, samples
    try:
        with (
            atomic_file(path) as partial,
            soundfile.SoundFile(partial, "w", sample_rate, channels, encoding, format=kind) as file,
        ):
            for block in blocks:
                block = block[:, :left]
                left -= block.shape[1]
                if encoding != "FLOAT":
                    clipped += int((block.abs() > 1).sum())
                    block = block.clamp(-1, 1)
                for part in block.split(_WRITE_BLOCK, 1):
                    file.write(part.T.numpy())
    except soundfile.LibsndfileError as error:
        raise UserError(f"cannot write {path}: {error}") from None
    return clipped


def check_output(path: Path, input: Path | None = None) -> None:
    """Raise if a file cannot be written, before the work whose result it will hold.

    Args:
        path: Path of the file.
        input: Recording that must not be overwritten, through a link neither.

    Raises:
        UserError: the suffix is unknown, the path is a folder or the input, or its folder is
            missing or read-only.
    """
    folder, suffix = path.parent, path.suffix
    if suffix.lower() not in _FORMATS:
        raise UserError(f"{path}: write .wav, .flac or .ogg, not {suffix or 'without suffix'!r}")
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; name a file")
    if not folder.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {path}: the folder {folder} is not writable; name another")
    if input is not None and path.exists() and path.samefile(input):
        raise UserError(f"{path} is the input; name another file or folder for the output")


def resample(
    audio: Float[Tensor, "*channels time"], from_rate: int, to_rate: int
) -> Float[Tensor, "*channels samples"]:
    """Change the sample rate with a long windowed sinc (the parameters known as "kaiser best").

    Returns:
        ceil(time * to_rate / from_rate) samples, aligned to the input.
    """
    if from_rate < 1 or to_rate < 1:
        raise UserError(f"sample rates are positive, got {from_rate} and {to_rate} Hz")
    if from_rate == to_rate:
        return audio
    return _resampler(from_rate, to_rate)(audio.float())


@functools.lru_cache(
    maxsize=8
)  # building the table of a ratio like 22050:16000 takes longer than using it
def _resampler(from_rate: int, to_rate: int) -> torch.nn.Module:
    from torchaudio.transforms import Resample

    return Resample(
        from_rate,
        to_rate,
        lowpass_filter_width=64,
        rolloff=0.9475937167399596,
        resampling_method="sinc_interp_kaiser",
        beta=14.769656459379492,
    )


def level_gain(audio: Float[Tensor, "*channels time"]) -> Float[Tensor, "*channels 1"]:
    """Compute the gain that brings audio to the level of FRCRN's training data.

    The two official steps: the root mean square to -25 dB, then the root mean square of the samples
    of above-average power. Multiply the input of a model by the gain, and divide its output by it.
    Silence stays silent.
    """
    return stream_gain(lambda: [audio]).to(audio)


def stream_gain(blocks: Callable[[], Iterable[Tensor]]) -> Float[Tensor, "*channels 1"]:
    """Compute the `level_gain` of a stream, which is read twice, in float64.

    Args:
        blocks: Function that restarts the stream; blocks are shaped (*channels, time).
    """
    count, energy = 0, torch.zeros(())
    for block in blocks():
        count += block.shape[-1]
        energy = energy + block.double().square().sum(-1, keepdim=True)
    power = energy / count
    number, loud = torch.zeros_like(power), torch.zeros_like(power)
    for block in blocks():
        squares = block.double().square()
        above = squares > power
        number += above.sum(-1, keepdim=True)
        loud += (squares * above).sum(-1, keepdim=True)
    first = _LEVEL / (power.sqrt() + _LEVEL_EPS)
    rms = first * (loud / number.clamp_min(1)).sqrt()
    # At constant power (silence, a square wave) no sample is above average: one step is enough.
    return torch.where(number > 0, first * _LEVEL / (rms + _LEVEL_EPS), first)


def check_finite(what: str, audio: Tensor) -> None:
    """Raise a UserError if samples are NaN or infinite."""
    if bad := int((~audio.isfinite()).sum()):
        raise UserError(f"{what}: {bad} of {audio.numel()} samples are NaN or infinite")


def warn_clipped(path: Path, blocks: Iterable[Tensor]) -> None:
    """Print a warning if many samples of a recording are at full scale, a sign of clipping."""
    loud = total = 0
    for block in blocks:
        loud += int((block.abs() >= _FULL_SCALE).sum())
        total += block.numel()
    if loud > _CLIPPED * total:
        print(
            f"{path}: {100 * loud / total:.1f} % of the samples are at full scale; if it was "
            "recorded too loud, expect distortion, and record it again at a lower level"
        )


def _open(path: Path) -> "soundfile.SoundFile":
    import soundfile

    if not path.is_file():
        raise UserError(f"there is no sound file {path}")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes)")
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: .raw needs a sample rate
        raise UserError(f"{path} is no sound file that can be read: {error}") from None
    fault = "is cut off" if _is_cut_off(path) else "holds no samples" if not file.frames else ""
    if fault:
        file.close()
        raise UserError(f"{path} {fault}; copy or make it again")
    return file


def _is_cut_off(path: Path) -> bool:
    """Return whether a WAV is shorter than its header says, or an Ogg file lacks its last page.

    libsndfile reads such files without an error, as if they were shorter.
    """
    with path.open("rb") as stream:
        kind = stream.read(12)
        size = stream.seek(0, os.SEEK_END)
        if kind.startswith(b"OggS"):
            stream.seek(max(0, size - 0x10000))  # a page is shorter
            _, _, page = stream.read().rpartition(b"OggS")
            segments = page[23 : 23 + page[22]] if len(page) > 23 else b""
            ends = bool(segments) and page[1] & 4  # the flag "end of stream"
            return not ends or len(page) < 23 + page[22] + sum(segments)
        if not (kind.startswith(b"RIFF") and kind.endswith(b"WAVE")):
            return False
        position = 12
        while position + 8 <= size:
            stream.seek(position)
            name, length = stream.read(4), int.from_bytes(stream.read(4), "little")
            if name == b"data":
                return position + 8 + length > size and length < _UNKNOWN_LENGTH
            position += 8 + length + length % 2
    return True


def _read(path: Path, file: "soundfile.SoundFile", count: int) -> Tensor:
    import soundfile

    try:
        samples = file.read(count, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{path} is damaged or cut off: {error}; copy or make it again") from None
    return torch.from_numpy(samples).T.contiguous()


def _checked(path: Path, audio: Tensor, frames: int) -> Tensor:
    if audio.numel() == 0:
        raise UserError(f"{path}: the audio holds no samples, shape {tuple(audio.shape)}")
    if audio.shape[1] != frames:
        raise UserError(f"{path} is cut off after {audio.shape[1]} of {frames} samples")
    check_finite(str(path), audio)
    return audio
