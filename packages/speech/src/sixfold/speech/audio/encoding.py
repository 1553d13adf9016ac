"""Encode sound files: formats and their limits, and what libsndfile leaves to its callers.

libsndfile hides a full disk where a file is closed, ends the process beyond the limits of Vorbis,
and writes the time of day and random numbers. Here every byte is seen on its way to the file, the
limits are checked first, and the same samples give the same bytes.
"""

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sixfold.core.config import UserError

if TYPE_CHECKING:  # imported inside functions, because building a model needs no soundfile
    import soundfile

# Suffix: format and encoding. Float WAV holds any level exactly; the others clip at full scale.
FORMATS = {"wav": ("WAV", "FLOAT"), "flac": ("FLAC", "PCM_24"), "ogg": ("OGG", "VORBIS")}
_MOST_CHANNELS = {"WAV": 1024, "FLAC": 8, "OGG": 255}
_HIGHEST_RATE = {"WAV": 2**31 - 1, "FLAC": 655_350, "OGG": 200_000}
_FLAC_ANY_RATE = 65_535  # above it FLAC holds multiples of 10 Hz
_WRITE_BLOCK = 1 << 16  # a single long Vorbis write can crash
_WAV_BYTES = 4_000_000_000  # a WAV header holds 32 bits; longer files become RF64, also called .wav
_WAV_HEAD = 1 << 16  # bytes within which the samples begin
_OGG_SERIAL = b"6fld"  # libsndfile would take the time of day
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def known_format(name: str, format: str | None) -> tuple[str, str]:
    """Return libsndfile's names of a format and its encoding.

    Raises:
        UserError: it is not one of `FORMATS`.
    """
    found = FORMATS.get(str(format or "").lower().removeprefix("."))
    if found is None:
        mend = "" if format else "; name a suffix, or give format="
        raise UserError(
            f"{name}: write .wav, .flac or .ogg, not {format or 'without suffix'!r}{mend}"
        )
    return found


def check_limits(name: str, kind: str, sample_rate: int, channels: int) -> None:
    """Raise a UserError if a format, named as by `known_format`, cannot hold rate or channels."""
    if not 1 <= channels <= _MOST_CHANNELS[kind]:
        raise UserError(
            f"{name}: {kind} holds 1 to {_MOST_CHANNELS[kind]} channels, not {channels}; "
            f"write {'fewer channels' if kind == 'WAV' else '.wav, or fewer channels'} a file"
        )
    odd = kind == "FLAC" and sample_rate > _FLAC_ANY_RATE and sample_rate % 10
    if not 1 <= sample_rate <= _HIGHEST_RATE[kind] or odd:
        also = f" (above {_FLAC_ANY_RATE} Hz in steps of 10)" if odd else ""
        raise UserError(
            f"{name}: {kind} holds rates of 1 to {_HIGHEST_RATE[kind]} Hz{also}, not {sample_rate} "
            f"Hz; {'' if kind == 'WAV' else 'write .wav, or '}resample first"
        )


class Output:
    """A sound file that is being written: samples clipped, and samples per channel, so far."""

    def __init__(self, sound: "soundfile.SoundFile") -> None:
        self._sound, self.clipped, self.written = sound, 0, 0

    def write(self, block: Tensor) -> None:
        """Append a block shaped (channels, time), on the CPU."""
        if self._sound.subtype != "FLOAT":
            self.clipped += int((block.abs() > 1).sum())
            block = block.clamp(-1, 1)
        for part in block.split(_WRITE_BLOCK, 1):
            self._sound.write(part.T.numpy())
        self.written += block.shape[1]


@contextmanager
def encoder(
    name: str,
    file: Any,
    kind: str,
    encoding: str,
    sample_rate: int,
    channels: int,
    samples: int,
) -> Iterator[Output]:
    """Encode into an empty binary file that is open for reading and writing.

    Args:
        name: Name of the result in messages.
        file: Binary file, at its beginning.
        kind: Format, as `known_format` returns it.
        encoding: Encoding, likewise.
        sample_rate: Sample rate in Hz.
        channels: Number of channels.
        samples: Number of samples per channel that will be written.

    Raises:
        OSError: the file could not be written, at the latest at the end of the block.
        UserError: libsndfile refuses, or the file does not hold what was written.
    """
    import soundfile

    if kind == "WAV" and 4 * channels * samples > _WAV_BYTES:
        kind = "RF64"
    stream: Any = _Watched(file)
    form: Any = {"subtype": encoding, "format": kind}
    try:
        with soundfile.SoundFile(stream, "w", sample_rate, channels, **form) as sound:
            output = Output(sound)
            yield output
    except (soundfile.LibsndfileError, AssertionError) as error:  # the latter: a short write
        raise stream.error or UserError(f"{name}: cannot be encoded: {error}") from None
    file.flush()
    if stream.error:
        raise stream.error
    _fix_bytes(file, kind)
    file.seek(0)
    with soundfile.SoundFile(file) as sound:
        if sound.frames != output.written:
            raise UserError(
                f"{name}: {output.written} samples were written, the file holds {sound.frames}"
            )


class _Watched:
    """A file as libsndfile uses it, which swallows exceptions: the first one is kept."""

    def __init__(self, file: Any) -> None:
        self.file, self.error = file, None

    def write(self, data: bytes) -> int:
        return self._try(self.file.write, data)

    def read(self, size: int = -1) -> Any:
        return self._try(self.file.read, size) or b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._try(self.file.seek, offset, whence)

    def tell(self) -> int:
        return self._try(self.file.tell)

    def _try(self, call: Any, *arguments: Any) -> Any:
        if self.error is None:
            try:
                return call(*arguments)
            except OSError as error:
                self.error = error
        return 0


def _fix_bytes(file: Any, kind: str) -> None:
    """Overwrite the time of day in a WAV, and the random serial number of an Ogg stream."""
    file.seek(0)
    if kind in ("WAV", "RF64"):
        head, position = file.read(_WAV_HEAD), 12
        while position + 16 <= len(head) and head[position : position + 4] != b"data":
            if head[position : position + 4] == b"PEAK":
                file.seek(position + 12)  # behind name, length and version
                file.write(bytes(4))
            length = int.from_bytes(head[position + 4 : position + 8], "little")
            position += 8 + length + length % 2
    elif kind == "OGG":
        position = 0
        while len(head := file.read(27)) == 27:
            segments = file.read(head[26])
            page = head[:14] + _OGG_SERIAL + head[18:22] + bytes(4) + head[26:] + segments
            checksum = _ogg_checksum(page + file.read(sum(segments)))
            following = file.tell()
            file.seek(position)
            file.write(page[:22] + checksum)
            file.seek(following)
            position = following
    file.flush()


def _ogg_checksum(page: bytes) -> bytes:
    """Compute CRC-32 as Ogg does: that of zlib with the bits in the other order, from zero."""
    found = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{found:032b}"[::-1], 2).to_bytes(4, "little")
