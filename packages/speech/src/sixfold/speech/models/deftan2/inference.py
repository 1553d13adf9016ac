"""Enhance recordings of a microphone array: tensors, and files from the command line."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor

from sixfold.core import UserError
from sixfold.core.devices import check_device
from sixfold.core.many_files import run_files
from sixfold.speech.audio.arrays import Audio, as_channels
from sixfold.speech.audio.conversion import Blocks, announced, convert
from sixfold.speech.audio.files import READS, WRITES, check_output
from sixfold.speech.audio.network import check_eval_mode, check_network
from sixfold.speech.audio.stitching import WINDOW_S, process_windows
from sixfold.speech.models.deftan2.model import DeFTAN2


def run(
    *paths: Path,
    weights: Path,
    sample_rate: int | None = None,
    device: str = "cpu",
    window_s: float = WINDOW_S,
    overwrite: bool = False,
) -> None:
    """Remove noise and reverberation from recordings of a microphone array.

    Any length and sample rate; an output has the rate and length of its input, and one channel per
    source. Microphone 0, the first channel of the file, is the reference.

    Args:
        paths: One or more recordings with one channel per microphone, in the order of the
            checkpoint's array, folders of them or quoted patterns ('*.wav') and, last, the output:
            a .wav (32-bit float), .flac (24 bits) or .ogg (Vorbis) file, or a folder.
        weights: Official or sixfold checkpoint.
        sample_rate: Sample rate that the network was trained at, in Hz, if its checkpoint does not
            hold it and it is not 16000, as released.
        device: Torch device: cpu, cuda, cuda:1 ...
        window_s: Seconds of audio per pass; windows are crossfaded.
        overwrite: Whether finished outputs in a folder are made again.
    """
    model = load(weights, device, sample_rate)
    run_files(
        paths,
        lambda input, output: enhance_file(model, input, output, window_s),
        reads=READS,
        writes=WRITES,
        overwrite=overwrite,
    )


def load(weights: str | Path, device: str = "cpu", sample_rate: int | None = None) -> DeFTAN2:
    """Load a checkpoint for inference, in eval mode.

    Raises:
        UserError: there is no such device, or the checkpoint is missing, damaged or another
            system's.
    """
    check_device(device)
    return DeFTAN2.from_pretrained(weights, sample_rate).to(device)


def enhance_file(model: DeFTAN2, input: Path, output: Path, window_s: float = WINDOW_S) -> None:
    """Enhance one sound file with a channel per microphone, in bounded memory.

    Raises:
        UserError: the input cannot be read or is of another array, or the output cannot be written
            or is the input.
    """
    check_output(output, input)
    check_eval_mode(model)

    def enhanced(blocks: Blocks, samples: int) -> Iterator[Tensor]:
        return _enhance_blocks(model, blocks(), samples, window_s)

    with announced(input) as noisy:
        microphones = model.config.microphones
        if noisy.channels != microphones:
            raise UserError(
                f"{input} has {noisy.channels} channels, this network was trained for "
                f"{microphones} microphones; take the checkpoint of your array"
            )
        rate, sources = model.config.sample_rate, model.config.sources
        convert(noisy, [output], rate, enhanced, channels=sources, action="enhancing")


def enhance(
    model: DeFTAN2, audio: Audio, sample_rate: int = 16_000, window_s: float = WINDOW_S
) -> Audio:
    """Enhance the recording of an array, a tensor or a NumPy array; ``window_s`` take one pass.

    Args:
        model: Network in eval mode, on any device.
        audio: Recording shaped (microphone, time).
        sample_rate: Sample rate of the recording in Hz.
        window_s: Seconds of audio per pass.

    Returns:
        Direct sound at microphone 0, shaped (source, time), of the kind, dtype and device of the
        audio.

    Raises:
        UserError: shape or sample rate do not match, samples are NaN or infinite, or the network is
            in training mode.
    """
    check_network(model, sample_rate)
    noisy, restore = as_channels(audio, model)
    return restore(_enhance_blocks(model, [noisy], noisy.shape[1], window_s))


def _enhance_blocks(
    model: DeFTAN2, blocks: Iterable[Tensor], samples: int, window_s: float
) -> Iterator[Tensor]:
    rate, device = model.config.sample_rate, next(model.parameters()).device
    return process_windows(
        lambda window: model(window[None].to(device))[0], blocks, samples, rate, window_s
    )
