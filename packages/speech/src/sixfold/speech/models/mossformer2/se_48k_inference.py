"""Enhance recordings at 48 kHz by MossFormer2_SE_48K: tensors, and files from the command line."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from sixfold.core.devices import check_device
from sixfold.core.many_files import run_files
from sixfold.speech.audio.arrays import Audio, as_channels
from sixfold.speech.audio.conversion import Blocks, announced, convert
from sixfold.speech.audio.files import READS, WRITES, check_output
from sixfold.speech.audio.network import check_eval_mode, check_network
from sixfold.speech.audio.stitching import process_windows
from sixfold.speech.models.mossformer2.se_48k import MossFormer2SE

# As released; but there windows are cut in the middle of their overlap, here they are crossfaded.
ONE_PASS_S, WINDOW_S, OVERLAP_S = 20.0, 4.0, 1.0


def run(*paths: Path, weights: Path, device: str = "cpu", overwrite: bool = False) -> None:
    """Remove noise from full-band recordings of speech (up to 24 kHz).

    Any length, any number of channels (each enhanced separately), any sample rate; an output has
    the rate, channels and length of its input. More than 20 s are enhanced in windows of 4 s.

    Args:
        paths: One or more noisy recordings, folders of them or quoted patterns ('*.wav') and, last,
            the output: a .wav (32-bit float), .flac (24 bits) or .ogg (Vorbis) file, or a folder.
            Formats read: wav, flac, ogg, mp3 ...; with ffmpeg installed also m4a and others.
        weights: Official MossFormer2_SE_48K or sixfold checkpoint.
        device: Torch device: cpu, cuda, cuda:1 ...
        overwrite: Whether finished outputs in a folder are made again.
    """
    model = load(weights, device)
    run_files(
        paths,
        lambda input, output: enhance_file(model, input, output),
        reads=READS,
        writes=WRITES,
        overwrite=overwrite,
    )


def load(weights: str | Path, device: str = "cpu") -> MossFormer2SE:
    """Load a checkpoint for inference, in eval mode.

    Raises:
        UserError: there is no such device, or the checkpoint is missing, damaged or another
            system's.
    """
    check_device(device)
    return MossFormer2SE.from_pretrained(weights).to(device)


def enhance_file(model: MossFormer2SE, input: Path, output: Path) -> None:
    """Enhance one sound file, in bounded memory.

    Raises:
        UserError: the input cannot be read, or the output cannot be written or is the input.
    """
    check_output(output, input)
    check_eval_mode(model)

    def enhanced(blocks: Blocks, samples: int) -> Iterator[Tensor]:
        return _enhance_blocks(model, blocks(), samples)

    rate = model.config.sample_rate
    with announced(input) as noisy:
        convert(noisy, [output], rate, enhanced, channels=noisy.channels, action="enhancing")


def enhance(model: MossFormer2SE, audio: Audio, sample_rate: int = 48_000) -> Audio:
    """Enhance a recording, full scale ±1, a tensor or a NumPy array; up to 20 s take one pass.

    Args:
        model: Network in eval mode, on any device.
        audio: Recording shaped (time,) or (channels, time); channels are enhanced separately.
        sample_rate: Sample rate of the audio in Hz.

    Returns:
        The enhanced recording, of the shape, kind, dtype and device of the audio.

    Raises:
        UserError: shape or sample rate do not match, samples are NaN or infinite, or the network is
            in training mode.
    """
    check_network(model, sample_rate)
    noisy, restore = as_channels(audio, model)
    return restore(_enhance_blocks(model, [noisy], noisy.shape[1]))


def _enhance_blocks(
    model: MossFormer2SE, blocks: Iterable[Tensor], samples: int
) -> Iterator[Tensor]:
    rate, device = model.config.sample_rate, next(model.parameters()).device
    window_s = ONE_PASS_S if samples <= ONE_PASS_S * rate else WINDOW_S

    def channels(window: Tensor) -> Tensor:
        return torch.cat([model(channel[None]) for channel in window.to(device)])

    return process_windows(channels, blocks, samples, rate, window_s, OVERLAP_S, ordered=True)
