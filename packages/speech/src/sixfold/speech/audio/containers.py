"""Open sound files, whole or as a recorder left them; what libsndfile cannot read, by ffmpeg.

libsndfile reads a file that was cut short without an error, as if it were shorter, and a WAV whose
recorder was stopped, so that its header says zero, as if it were empty. Here the first is refused,
and the second is read to its end with a warning.
"""

import io
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sixfold.core.config import UserError

if TYPE_CHECKING:  # imported inside functions, because building a model needs no soundfile
    import soundfile


@runtime_checkable
class BinaryFile(Protocol):
    """An open binary file, io.BytesIO, or anything else that reads and seeks."""

    def read(self, size: int = -1, /) -> Any:
        """Read some bytes, or all."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a position."""
        ...

    def tell(self) -> int:
        """Return the position."""
        ...

    def seekable(self) -> bool:
        """Return whether `seek` works."""
        ...


Source = str | os.PathLike[str] | bytes | BinaryFile
_UNKNOWN_LENGTH = 0x7F000000  # the length in headers of what was written to a pipe, or more


@contextmanager
def open_sound(source: Source) -> Iterator["soundfile.SoundFile"]:
    """Open a sound file: a path, its bytes, or a binary file object, read from its beginning.

    Raises:
        UserError: it is missing, no sound file, cut off, or empty.
    """
    import soundfile

    name = name_of(source)
    with ExitStack() as stack:
        stream = stack.enter_context(_binary(source))
        if stream.seek(0, os.SEEK_END) == 0:
            raise UserError(f"{name} is empty (0 bytes)")
        stream.seek(0)
        file: Any = _whole(name, stream)
        if file is stream and not isinstance(source, bytes) and not hasattr(source, "read"):
            file = os.fsencode(name)  # faster by its path
        try:
            sound = soundfile.SoundFile(file)
        except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless audio
            reason = getattr(error, "error_string", str(error))  # without the name once more
            sound = soundfile.SoundFile(stack.enter_context(_decoded(name, stream, reason)))
        with sound:
            if not sound.frames:
                raise UserError(f"{name} holds no samples; copy or make it again")
            yield sound


def name_of(source: Source) -> str:
    """Return the name of a source in messages: its path, or what it is."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    name = getattr(source, "name", None)  # of an open file
    return name if isinstance(name, str) else "the audio in memory"


@contextmanager
def _binary(source: Source) -> Iterator[BinaryFile]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, str | os.PathLike):
        if not Path(source).is_file():
            raise UserError(f"there is no sound file {name_of(source)}")
        with Path(source).open("rb") as stream:
            yield stream
    elif not hasattr(source, "read"):
        raise UserError(
            f"audio is read from a path, bytes or a binary file object, got {type(source).__name__}"
        )
    elif not isinstance(source.read(0), bytes):
        raise UserError("a file object with audio is opened in binary mode: open(path, 'rb')")
    else:
        yield source if source.seekable() else io.BytesIO(source.read())


def _whole(name: str, stream: BinaryFile) -> BinaryFile:
    """Return the stream, with a mended header where a recorder was stopped.

    Raises:
        UserError: the file is shorter than its header says, or an Ogg file lacks its last page.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(28)
    missing, file = 0, stream
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        missing, patch = _inspect_wav(stream, size)
        if patch:
            warnings.warn(
                f"{name}: its header says that it holds no samples, as if its recorder had been "
                "stopped; read to its end",
                stacklevel=2,
            )
            file = io.BufferedReader(_Patched(stream, patch))
    elif head.startswith(b"OggS"):
        missing = None if _lacks_last_page(stream, size) else 0
    else:
        missing = max(0, _declared_size(head) - size)
    stream.seek(0)
    if missing is None or missing > 0:
        amount = f": {missing} of its bytes are missing" if missing else ""
        raise UserError(
            f"{name} is cut off{amount}; copy or make it again, or keep what is there, e.g. by "
            "ffmpeg -i cut.wav whole.wav"
        )
    return file


def _inspect_wav(stream: BinaryFile, size: int) -> tuple[int | None, dict[int, bytes]]:
    """Return how many bytes a WAV lacks (None: all samples), and the bytes that mend its header."""
    position = 12
    while position + 8 <= size:
        stream.seek(position)
        name, length = stream.read(4), int.from_bytes(stream.read(4), "little")
        start = position + 8
        if name == b"data":
            if length == 0 and start < size and not _are_chunks(stream, start, size):
                patch = {4: size - 8, start - 4: size - start}
                return 0, {at: min(n, 2**32 - 1).to_bytes(4, "little") for at, n in patch.items()}
            return (max(0, start + length - size) if length < _UNKNOWN_LENGTH else 0), {}
        position = start + length + length % 2
    return None, {}


def _are_chunks(stream: BinaryFile, position: int, size: int) -> bool:
    """Return whether what follows is chunks to the end of the file, and no samples."""
    while position + 8 <= size:
        stream.seek(position)
        name, length = stream.read(4), int.from_bytes(stream.read(4), "little")
        if not (name.isascii() and name.decode("ascii").isprintable()):
            return False
        position += 8 + length + length % 2
    return position - 1 <= size <= position


def _lacks_last_page(stream: BinaryFile, size: int) -> bool:
    stream.seek(max(0, size - 0x10000))  # a page is shorter
    _, _, page = stream.read().rpartition(b"OggS")
    segments = page[23 : 23 + page[22]] if len(page) > 23 else b""
    ends = bool(segments) and page[1] & 4  # the flag "end of stream"
    return not ends or len(page) < 23 + page[22] + sum(segments)


def _declared_size(head: bytes) -> int:
    """Return the length of a file as an RF64, AIFF or AU header says it; 0 if it says none."""
    if head[:4] == b"RF64" and head[12:16] == b"ds64":
        return 8 + int.from_bytes(head[20:28], "little")
    first, second = (int.from_bytes(head[i : i + 4], "big") for i in (4, 8))
    if head[:4] == b"FORM" and first < _UNKNOWN_LENGTH:
        return 7 + first  # not every program writes the last byte of padding
    if head[:4] == b".snd" and second < _UNKNOWN_LENGTH:
        return first + second
    return 0


class _Patched(io.RawIOBase):
    """A stream of which some bytes are replaced."""

    def __init__(self, stream: BinaryFile, patch: dict[int, bytes]) -> None:
        self.stream, self.patch = stream, patch

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.stream.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        start = self.stream.tell()
        content = bytearray(self.stream.read(len(buffer)))
        for at, value in self.patch.items():
            for i, byte in enumerate(value, at - start):
                if 0 <= i < len(content):
                    content[i] = byte
        buffer[: len(content)] = content
        return len(content)


@contextmanager
def _decoded(name: str, stream: BinaryFile, reason: str) -> Iterator[str]:
    """Lend the path of a WAV that ffmpeg made of what libsndfile cannot read.

    Raises:
        UserError: ffmpeg is not installed or cannot read it either.
    """
    text = f"{name} is no sound file that can be read: {reason.rstrip('.')}"
    program = shutil.which("ffmpeg")
    if program is None:
        raise UserError(
            f"{text}; m4a, aac and other formats need ffmpeg, which is not installed: install it, "
            "or convert the file to WAV"
        )
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(name).absolute(), Path(folder) / "out.wav"
        if not given.is_file():  # it is in memory
            given = Path(folder) / "in"
            stream.seek(0)
            with given.open("wb") as copy:
                shutil.copyfileobj(stream, copy)
        options = ["-v", "error", "-nostdin", "-i", given, "-map", "0:a:0", "-c:a", "pcm_f32le"]
        done = subprocess.run([program, *options, "-rf64", "auto", made], capture_output=True)
        if done.returncode or not made.is_file():
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise UserError(f"{text}; nor can ffmpeg: {said[-1].replace(str(given), name)}")
        yield str(made)
