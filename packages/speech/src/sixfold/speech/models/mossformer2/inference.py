"""Separate recordings of any length: tensors, and files from the command line."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from sixfold.core import UserError
from sixfold.core.devices import check_device
from sixfold.core.many_files import run_files
from sixfold.speech.audio.arrays import Audio, as_channels
from sixfold.speech.audio.conversion import Blocks, announced, convert
from sixfold.speech.audio.files import READS, check_output
from sixfold.speech.audio.network import check_eval_mode, check_network
from sixfold.speech.audio.stitching import WINDOW_S, correlation, process_windows
from sixfold.speech.models.mossformer2.model import MossFormer, MossFormer2

Precision = Literal["float32", "bf16"]


def run(
    *paths: Path,
    weights: Path,
    sample_rate: int | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    window_s: float = WINDOW_S,
    overwrite: bool = False,
) -> None:
    """Separate the speakers of a recording into speaker-1.wav, speaker-2.wav, ... in a folder.

    Any length and sample rate; the outputs have the rate and length of the input. Each of several
    recordings has a folder of its own.

    Args:
        paths: One or more recordings of one channel, folders of them or quoted patterns ('*.wav')
            and, last, the folder for the outputs, created if it is missing. Formats read: wav,
            flac, ogg, mp3 ...; with ffmpeg installed also m4a and others.
        weights: Official (MossFormer2_SS) or sixfold checkpoint.
        sample_rate: Sample rate that the network was trained at, in Hz; asked for where neither the
            checkpoint nor its published name says it.
        device: Torch device: cpu, cuda, cuda:1 ...
        precision: Number format of matrix products; bf16 is less exact, and needs AMX on a CPU.
        window_s: Seconds of audio per pass.
        overwrite: Whether finished outputs of several recordings are made again.
    """
    check_device(device)
    if precision == "bf16":
        _check_bf16(device)
    model = load(weights, device, sample_rate)
    check_rate_is_known(model)
    run_files(
        paths,
        lambda input, folder: separate_file(model, input, folder, window_s, precision),
        reads=READS,
        writes=(),
        overwrite=overwrite,
    )


def load(weights: str | Path, device: str = "cpu", sample_rate: int | None = None) -> MossFormer2:
    """Load a checkpoint of MossFormer2 or MossFormer, in eval mode, see `MossFormer2`.

    Raises:
        UserError: the checkpoint is damaged, or another system's.
    """
    from sixfold.core.weights.convert import read_pretrained
    from sixfold.core.weights.published import find_weights
    from sixfold.speech.models.mossformer2 import MOSSFORMER, SYSTEM  # that module imports this one

    check_device(device)
    weights = find_weights(weights, SYSTEM)
    name, _ = read_pretrained(weights) or (None, None)
    kind = MossFormer if name == MOSSFORMER.name else MossFormer2
    return kind.from_pretrained(weights, sample_rate).to(device)


def check_rate_is_known(model: MossFormer2) -> None:
    """Raise a UserError if nobody said which sample rate a network was trained at."""
    if not _has_known_rate(model):
        raise UserError(
            "this checkpoint does not say which sample rate its network was trained at; add "
            "--sample-rate 8000 (as in the papers) or --sample-rate 16000 (as MossFormer2_SS_16K)"
        )


def _has_known_rate(model: MossFormer2) -> bool:
    """Return whether its checkpoint, its published name or who loaded it said the sample rate."""
    return "sample_rate" in model.config.model_fields_set


def separate_file(
    model: MossFormer2,
    input: Path,
    folder: Path,
    window_s: float = WINDOW_S,
    precision: Precision = "float32",
) -> None:
    """Separate one sound file into a file for each speaker in a folder, in bounded memory.

    Raises:
        UserError: the input cannot be read or has several channels, or an output cannot be written
            or is the input.
    """
    outputs = [folder / f"speaker-{n}.wav" for n in range(1, model.config.speakers + 1)]
    _check_folder(folder, outputs, input)
    check_eval_mode(model)

    def separated(blocks: Blocks, samples: int) -> Iterator[Tensor]:
        return _separate_blocks(model, blocks(), samples, window_s, precision)

    with announced(input) as mixture:
        if mixture.channels != 1:
            raise UserError(
                f"{input} has {mixture.channels} channels, separation takes one; pick it first, "
                f"e.g. ffmpeg -i {input.name} -af 'pan=mono|c0=c0' mono.wav"
            )
        rate = model.config.sample_rate
        convert(mixture, outputs, rate, separated, channels=len(outputs), action="separating")


def separate(
    model: MossFormer2, mixture: Audio, sample_rate: int, window_s: float = WINDOW_S
) -> Audio:
    """Separate a recording of any length, a tensor or a NumPy array; ``window_s`` take one pass.

    Args:
        model: Network in eval mode, on any device.
        mixture: Recording shaped (time,) or (1, time).
        sample_rate: Sample rate of the recording in Hz.
        window_s: Seconds of audio per pass.

    Returns:
        The speakers, shaped (speaker, time), of the kind, dtype and device of the mixture.

    Raises:
        UserError: shape or sample rate do not match, samples are NaN or infinite, or the network is
            in training mode.
    """
    if not _has_known_rate(model) and sample_rate != model.config.sample_rate:
        raise UserError(
            f"nobody said which sample rate this {type(model).__name__} was trained at, which is "
            f"taken for {model.config.sample_rate} Hz; the audio is at {sample_rate} Hz: load it "
            f"with from_pretrained(path, sample_rate={sample_rate}) if that is its rate, else use "
            "sixfold.speech.audio.resample"
        )
    check_network(model, sample_rate)
    audio, restore = as_channels(mixture, model)
    if audio.shape[0] != 1:
        raise UserError(
            f"a mixture is shaped (time,) or (1, time), got {tuple(mixture.shape)}; separate one "
            "channel"
        )
    return restore(_separate_blocks(model, [audio], audio.shape[1], window_s))


def _separate_blocks(
    model: MossFormer2,
    blocks: Iterable[Tensor],
    samples: int,
    window_s: float,
    precision: Precision = "float32",
) -> Iterator[Tensor]:
    network = with_aligned_polarity(in_bf16(model) if precision == "bf16" else model)
    rate, device = model.config.sample_rate, next(model.parameters()).device
    return process_windows(
        lambda window: network(window.to(device))[0], blocks, samples, rate, window_s
    )


def with_aligned_polarity(model: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Wrap a separator so that outputs of negative correlation with the mixture change sign.

    SI-SNR, the training loss, ignores the sign. The second output of the released MossFormer2 is
    inverted: a speaker who changes outputs between windows changes sign, and joining would take the
    two for different speakers (benchmarks/stitching.py).

    Args:
        model: Separator that maps (1, time) to (1, speaker, time), in any order of speakers.
    """

    def aligned(mixture: Tensor) -> Tensor:
        speakers = model(mixture)
        inverted = correlation(speakers, mixture[:, None]) < 0
        return torch.where(inverted[..., None], -speakers, speakers)

    return aligned


def in_bf16(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Wrap a model so that its matrix products run in bfloat16 and its outputs are float32."""

    def call(mixture: Tensor) -> Tensor:
        with torch.autocast(mixture.device.type, torch.bfloat16):
            return model(mixture).float()

    return call


def _check_bf16(device: str) -> None:
    if torch.device(device).type == "cpu" and not torch.cpu._is_amx_tile_supported():
        raise UserError(
            "precision bf16 is faster only on a CPU with AMX, which this one lacks; leave it at "
            "float32"
        )


def _check_folder(folder: Path, outputs: list[Path], input: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder for the speakers")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error}") from None
    for output in outputs:
        check_output(output, input)
