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
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.devices import check_device
from sixfold.core.many_files import run_files
from sixfold.speech.audio.arrays import Audio, as_channels
from sixfold.speech.audio.blocks import padded, trimmed, windows
from sixfold.speech.audio.conversion import Blocks, announced, convert
from sixfold.speech.audio.files import READS, WRITES, check_output
from sixfold.speech.audio.levels import level_gain, stream_gain
from sixfold.speech.audio.network import check_eval_mode, check_network
from sixfold.speech.audio.stitching import crossfade
from sixfold.speech.models.frcrn.model import FRCRN, FRCRNConfig
from sixfold.speech.models.frcrn.streaming import Streamer

DEFAULT_WEIGHTS = Path("pipelines/speech/weights/enhancement/frcrn/seed-0.safetensors")
FADE_S = 1.0


def run(
    *paths: Path,
    weights: Path | None = None,
    device: str = "cpu",
    chunk_s: float = 30.0,
    overwrite: bool = False,
) -> None:
    """Remove noise from recordings of speech.

    Any length, any number of channels (each enhanced separately), any sample rate; an output has
    the rate, channels and length of its input. The network works at 16 kHz, so a file with a higher
    rate loses everything above 8 kHz.

    Args:
        paths: One or more noisy recordings, folders of them or quoted patterns ('*.wav') and, last,
            the output: a .wav (32-bit float), .flac (24 bits) or .ogg (Vorbis) file, or a folder.
            Formats read: wav, flac, ogg, mp3 ...; with ffmpeg installed also m4a and others.
        weights: Official FRCRN_SE_16K or sixfold checkpoint; by default the one that this
            repository's pipeline trained.
        device: Torch device: cpu, cuda, cuda:1 ...
        chunk_s: Seconds of audio per pass; the released size takes 2 GB for 30 s.
        overwrite: Whether finished outputs in a folder are made again.
    """
    model = load(weights, device)
    run_files(
        paths,
        lambda input, output: enhance_file(model, input, output, chunk_s),
        reads=READS,
        writes=WRITES,
        overwrite=overwrite,
    )


def load(weights: str | Path | None = None, device: str = "cpu") -> FRCRN:
    """Load a checkpoint for inference: folded, in eval mode; by default the pipeline's own.

    Raises:
        UserError: there is no such device, or the checkpoint is missing, damaged or another
            system's.
    """
    if weights is None and not DEFAULT_WEIGHTS.is_file():
        raise UserError(
            f"there are no weights {DEFAULT_WEIGHTS} in this folder; give --weights official.pt "
            "(the FRCRN_SE_16K checkpoint), or run `dvc repro pipelines/speech` in the repository"
        )
    check_device(device)
    return FRCRN.from_pretrained(weights or DEFAULT_WEIGHTS).folded().to(device)


def enhance_file(model: FRCRN, input: Path, output: Path, chunk_s: float = 30.0) -> None:
    """Enhance one sound file, in bounded memory.

    Raises:
        UserError: the input cannot be read, or the output cannot be written or is the input.
    """
    check_output(output, input)
    check_eval_mode(model)

    def enhanced(blocks: Blocks, samples: int) -> Iterator[Tensor]:
        gain = stream_gain(blocks).float()
        levelled = (block * gain for block in blocks())
        return (block.cpu() / gain for block in enhance_blocks(model, levelled, samples, chunk_s))

    rate = model.config.sample_rate
    with announced(input) as noisy:
        convert(noisy, [output], rate, enhanced, channels=noisy.channels, action="enhancing")


def enhance(model: FRCRN, audio: Audio, sample_rate: int = 16_000, chunk_s: float = 30.0) -> Audio:
    """Enhance a recording of any length and level, a tensor or a NumPy array.

    The level is brought to that of the training data and back. A recording of at most ``chunk_s``
    is enhanced in one pass; the module's docstring says how longer ones are cut.

    Args:
        model: Network in eval mode, on any device; ``model.folded()`` is faster.
        audio: Recording shaped (time,) or (channels, time); channels are enhanced separately.
        sample_rate: Sample rate of the audio in Hz.
        chunk_s: Longest piece in seconds.

    Returns:
        The enhanced recording, of the shape, kind, dtype and device of the audio.

    Raises:
        UserError: shape or sample rate do not match, samples are NaN or infinite, or the network is
            in training mode.
    """
    check_network(model, sample_rate)
    noisy, restore = as_channels(audio, model)
    gain = level_gain(noisy)
    pieces = enhance_blocks(model, [noisy * gain], noisy.shape[1], chunk_s)
    return restore(piece.to(noisy) / gain for piece in pieces)


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


def _windowed(model: FRCRN, blocks: Iterable[Tensor], piece: int) -> Iterator[Tensor]:
    """Enhance pieces with their context; crossfade them if the network has pooling gates."""
    hop, overlap = model.config.hop_length, model.config.win_length - model.config.hop_length
    back, ahead = (frames * hop + overlap for frames in context(model.config))
    fade = round(FADE_S * model.config.sample_rate) if model.config.attention != "none" else 0
    tail = None
    for window, start, stop in windows(blocks, piece, back, fade + ahead):
        window = window.to(model.spectrum.window)
        with torch.no_grad():
            estimate = torch.cat([model(channel[None]).waveform for channel in window])
        estimate = estimate[:, start : stop + fade]
        if tail is not None:
            estimate = crossfade(tail, estimate)
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
