"""Enhance recordings of any length in bounded memory: tensors, and files from the command line.

A long recording is cut into pieces, each enhanced together with the surrounding frames that its
own frames depend on (`context`). Without gates that pool over the utterance, the result equals one
pass over the whole recording; so does that of a causal network, which carries its state from piece
to piece. The gates of the released network pool over a piece and its context, so pieces differ a
little in gain from one pass; adjacent pieces are crossfaded over one second.

Every recording is padded at both ends with a window less a hop of zeros, which are removed again:
where fewer windows overlap, the overlap-add divides by almost nothing, which is heard as clicks.
"""

import math
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.speech.audio.blocks import padded, resampled, trimmed, windows
from sixfold.speech.audio.files import (
    check_finite,
    check_output,
    level_gain,
    read_blocks,
    stream_gain,
    warn_clipped,
    write_blocks,
)
from sixfold.speech.audio.network import check_device, check_eval_mode, check_network
from sixfold.speech.models.frcrn.model import FRCRN, FRCRNConfig
from sixfold.speech.models.frcrn.streaming import Streamer

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_WEIGHTS = Path("pipelines/speech/weights/enhancement/frcrn/seed-0.safetensors")
FADE_S = 1.0

_BLOCK = 1 << 18  # samples per channel that are read at a time


def run(
    input: Path,
    output: Path,
    *,
    weights: Path | None = None,
    device: str = "cpu",
    chunk_s: float = 30.0,
) -> None:
    """Remove noise from a recording of speech.

    Any length, any number of channels (each enhanced separately), any usual sample rate; the output
    has the rate, channels and length of the input. The network works at 16 kHz, so a file with a
    higher rate loses everything above 8 kHz.

    Args:
        input: Noisy recording, in any format that libsndfile reads (wav, flac, ogg ...).
        output: Enhanced recording: .wav (32-bit float), .flac (24 bits) or .ogg (Vorbis).
        weights: Official FRCRN_SE_16K or sixfold checkpoint; by default the one that this
            repository's pipeline trained.
        device: Torch device: cpu, cuda, cuda:1 ...
        chunk_s: Seconds of audio per pass; the released size takes 2 GB for 30 s.
    """
    input, output = Path(input), Path(output)
    rate, channels, samples = _describe(input)
    check_output(output, input)
    model = _load(weights, device)
    own_rate = model.config.sample_rate
    _check_rate(input, rate, own_rate)
    _piece_samples(samples, chunk_s, model.config)  # raises before the work starts
    print(f"{input}: {samples / rate:.1f} s, {channels} channel(s) at {rate} Hz")
    warn_clipped(input, read_blocks(input, _BLOCK))
    if rate != own_rate:
        print(
            f"resampled to the network's {own_rate} Hz and back; "
            f"nothing above {min(rate, own_rate) // 2} Hz is left"
        )

    def noisy() -> Iterator[Tensor]:
        return resampled(read_blocks(input, _BLOCK), rate, own_rate, _BLOCK)

    started, total = time.perf_counter(), math.ceil(samples * own_rate / rate)
    gain = stream_gain(noisy).float()
    levelled = (block * gain for block in noisy())
    enhanced = (
        block.cpu() / gain
        for block in _with_progress(enhance_blocks(model, levelled, total, chunk_s), total)
    )
    enhanced = resampled(enhanced, own_rate, rate, _BLOCK)  # up to a few samples longer
    clipped = write_blocks(output, enhanced, rate, channels, samples)
    if clipped:
        print(f"{clipped} samples exceeded full scale and were clipped; .wav would keep them")
    print(f"{output}: written after {time.perf_counter() - started:.1f} s")


def enhance(
    model: FRCRN, audio: Tensor, sample_rate: int = 16_000, chunk_s: float = 30.0
) -> Float[Tensor, "channels time"]:
    """Enhance a recording of any length and level; length, level and device stay the same.

    The level is brought to that of the training data and back. A recording of at most ``chunk_s``
    is enhanced in one pass; the module's docstring says how longer ones are cut.

    Args:
        model: Network in eval mode, on any device; ``model.folded()`` is faster.
        audio: Recording shaped (channels, time); channels are enhanced separately.
        sample_rate: Sample rate of the audio in Hz.
        chunk_s: Longest piece in seconds.

    Raises:
        UserError: shape or sample rate do not match, samples are NaN or infinite, or the network is
            in training mode.
    """
    check_network(model, sample_rate)
    model.check(audio)
    check_finite("audio", audio)
    gain = level_gain(audio)
    pieces = enhance_blocks(model, [audio * gain], audio.shape[1], chunk_s)
    return torch.cat([piece.to(audio) for piece in pieces], 1) / gain


def enhance_blocks(
    model: FRCRN, blocks: Iterable[Tensor], samples: int, chunk_s: float
) -> Iterator[Tensor]:
    """Enhance blocks of one recording at the model's level, in memory bounded by ``chunk_s``.

    Args:
        model: Network in eval mode.
        blocks: Consecutive blocks shaped (channels, time).
        samples: Length of the recording.
        chunk_s: Longest piece in seconds.

    Yields:
        Enhanced blocks, as long as the input in total but cut elsewhere.
    """
    check_eval_mode(model)
    margin = model.config.win_length - model.config.hop_length
    piece = _piece_samples(samples, chunk_s, model.config)
    enhance_all = _streamed if model.config.causal else _windowed
    return trimmed(enhance_all(model, padded(blocks, margin), piece), margin, samples)


def context(config: FRCRNConfig) -> tuple[int, int]:
    """Compute how many frames back and ahead a frame of the mask depends on: 90 and 14.

    Pooling in the gates does not count. An encoder looks back one frame and a decoder ahead one (if
    causal, back one); each of two memories in a row looks back by its number of taps less one.
    """
    half = config.depth // 2
    memories = 2 * (config.memory - 1)
    back, ahead = (2 * half, 0) if config.causal else (half, half)
    return config.unets * (back + memories), config.unets * ahead


@torch.no_grad()
def _windowed(model: FRCRN, blocks: Iterable[Tensor], piece: int) -> Iterator[Tensor]:
    """Enhance pieces with their context; crossfade them if the network has pooling gates."""
    hop, overlap = model.config.hop_length, model.config.win_length - model.config.hop_length
    back, ahead = (frames * hop + overlap for frames in context(model.config))
    fade = round(FADE_S * model.config.sample_rate) if model.config.attention != "none" else 0
    tail = None
    for window, start, stop in windows(blocks, piece, back, fade + ahead):
        window = window.to(model.spectrum.window)
        estimate = torch.cat([model(channel[None]).waveform for channel in window])
        estimate = estimate[:, start : stop + fade]
        if tail is not None:
            length = tail.shape[1]
            rise = (torch.arange(length).to(tail) + 1) / (length + 1)
            estimate[:, :length] = rise * estimate[:, :length] + (1 - rise) * tail
        yield estimate[:, : stop - start]
        tail = estimate[:, stop - start :]


def _streamed(model: FRCRN, blocks: Iterable[Tensor], piece: int) -> Iterator[Tensor]:
    streamer = None
    for window, _, _ in windows(blocks, piece, 0, 0):
        streamer = streamer or Streamer(model, window.shape[0])
        yield streamer.push(window)
    if streamer is not None:
        yield streamer.flush()


def _piece_samples(samples: int, chunk_s: float, config: FRCRNConfig) -> int:
    """Compute the length of equal pieces of a recording and the zeros around it.

    Equal, because the gates would pool over little in a short last piece. A recording of at most
    ``chunk_s`` is one piece.
    """
    if not 0 < chunk_s < math.inf:
        raise UserError(f"chunk_s is the seconds of a piece, above 0; got {chunk_s}")
    longest = max(config.hop_length, round(chunk_s * config.sample_rate))
    pieces = math.ceil(samples / longest)
    hops = samples / config.hop_length + 2 * (config.win_length / config.hop_length - 1)
    return math.ceil(hops / pieces) * config.hop_length


def _describe(path: Path) -> tuple[int, int, int]:
    """Return sample rate, number of channels and length of a file; raise if it is unreadable."""
    import soundfile

    next(read_blocks(path, 1))  # raises a UserError that names the fault
    info = soundfile.info(path)
    return info.samplerate, info.channels, info.frames


def _check_rate(path: Path, rate: int, own_rate: int) -> None:
    step = math.gcd(rate, own_rate)
    if (rate // step) * (own_rate // step) > 5e7:  # entries of the filter's table
        raise UserError(
            f"{path}: {rate} Hz is {rate // step}/{own_rate // step} of {own_rate} Hz, too odd a "
            f"ratio to resample; convert it first, e.g. ffmpeg -i {path.name} -ar {own_rate} x.wav"
        )


def _load(weights: Path | None, device: str) -> FRCRN:
    if weights is None and not DEFAULT_WEIGHTS.is_file():
        raise UserError(
            f"there are no weights {DEFAULT_WEIGHTS} in this folder; give --weights official.pt "
            "(the FRCRN_SE_16K checkpoint), or run `dvc repro pipelines/speech` in the repository"
        )
    check_device(device)
    return FRCRN.from_pretrained(weights or DEFAULT_WEIGHTS).folded().to(device)


def _with_progress(blocks: Iterable[Tensor], total: int) -> Iterator[Tensor]:
    """Pass blocks on and show progress after two seconds: a bar on a terminal, else lines."""
    from rich.console import Console

    console = Console()
    return _with_bar(blocks, total, console) if console.is_terminal else _with_lines(blocks, total)


def _with_bar(blocks: Iterable[Tensor], total: int, console: "Console") -> Iterator[Tensor]:
    from rich.progress import Progress, TimeElapsedColumn

    progress = Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=console)
    task = progress.add_task("enhancing", total=total)
    timer = threading.Timer(2.0, progress.start)  # the first piece may take longer than that
    timer.start()
    try:
        for block in blocks:
            yield block
            progress.advance(task, block.shape[1])
    finally:
        timer.cancel()
        timer.join()
        progress.stop()


def _with_lines(blocks: Iterable[Tensor], total: int) -> Iterator[Tensor]:
    started = time.perf_counter()
    done, due = 0, started + 2
    for block in blocks:
        yield block
        done, now = done + block.shape[1], time.perf_counter()
        if now > due and 0 < done < total:
            due, left = now + 10, (now - started) * (total - done) / done
            print(f"enhancing: {100 * done // total} %, {left:.0f} s left", flush=True)
