"""Separate recordings of any length: tensors, and files from the command line."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sixfold.core import UserError
from sixfold.speech.audio.files import (
    check_finite,
    check_output,
    read_audio,
    resample,
    warn_clipped,
    write_audio,
)
from sixfold.speech.audio.network import check_device, check_network, has_known_rate
from sixfold.speech.audio.stitching import WINDOW_S, correlation, separate_windows
from sixfold.speech.models.mossformer2.model import MossFormer, MossFormer2


def run(
    input: Path,
    folder: Path,
    *,
    weights: Path,
    sample_rate: int | None = None,
    device: str = "cpu",
    precision: Literal["float32", "bf16"] = "float32",
    window_s: float = WINDOW_S,
) -> None:
    """Separate the speakers of a recording into speaker-1.wav, speaker-2.wav, ... in a folder.

    Any length and sample rate; the outputs have the rate and length of the input.

    Args:
        input: Recording of one channel, in any format that libsndfile reads (wav, flac, ogg ...).
        folder: Folder for the outputs, created if it is missing.
        weights: Official (MossFormer2_SS) or sixfold checkpoint.
        sample_rate: Sample rate that the network was trained at, in Hz; asked for where neither the
            checkpoint nor its published name says it.
        device: Torch device: cpu, cuda, cuda:1 ...
        precision: Number format of matrix products; bf16 is less exact, and needs AMX on a CPU.
        window_s: Seconds of audio per pass.
    """
    input, folder = Path(input), Path(folder)
    if precision == "bf16":
        _check_bf16(device)
    mixture, rate = read_audio(input)
    if mixture.shape[0] != 1:
        raise UserError(
            f"{input} has {mixture.shape[0]} channels, separation takes one; pick it first, e.g. "
            f"ffmpeg -i {input.name} -af 'pan=mono|c0=c0' mono.wav"
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder for the speakers")
    model = load(weights, device, sample_rate)
    check_rate_is_known(model)
    outputs = [folder / f"speaker-{n}.wav" for n in range(1, model.config.speakers + 1)]
    _check_folder(folder, outputs, input)
    warn_clipped(input, [mixture])
    own_rate = model.config.sample_rate
    print(f"{input}: {mixture.shape[1] / rate:.1f} s at {rate} Hz")
    if rate != own_rate:
        print(f"resampled to {own_rate} Hz; nothing above {min(rate, own_rate) // 2} Hz is left")
    started = time.perf_counter()
    at_own_rate = resample(mixture, rate, own_rate)[0].to(device)
    speakers = separate_windows(with_aligned_polarity(model), at_own_rate, own_rate, window_s).cpu()
    speakers = resample(speakers, own_rate, rate)[:, : mixture.shape[1]]
    for output, speaker in zip(outputs, speakers, strict=True):
        write_audio(output, speaker[None], rate)
    print(f"{folder}: {len(speakers)} speakers, after {time.perf_counter() - started:.1f} s")


def load(weights: str | Path, device: str = "cpu", sample_rate: int | None = None) -> MossFormer2:
    """Load a checkpoint of MossFormer2 or MossFormer, in eval mode, see `MossFormer2`.

    Raises:
        UserError: the checkpoint is damaged, or another system's.
    """
    from sixfold.core.weights.convert import read_pretrained
    from sixfold.core.weights.published import find_weights
    from sixfold.speech.models.mossformer2 import MOSSFORMER, SYSTEM  # that module imports this one

    weights = find_weights(weights, SYSTEM)
    name, _ = read_pretrained(weights) or (None, None)
    kind = MossFormer if name == MOSSFORMER.name else MossFormer2
    check_device(device)
    return kind.from_pretrained(weights, sample_rate).to(device)


def check_rate_is_known(model: MossFormer2) -> None:
    """Raise a UserError if nobody said which sample rate a network was trained at."""
    if not has_known_rate(model):
        raise UserError(
            "this checkpoint does not say which sample rate its network was trained at; add "
            "--sample-rate 8000 (as in the papers) or --sample-rate 16000 (as MossFormer2_SS_16K)"
        )


def separate(
    model: MossFormer2, mixture: Tensor, sample_rate: int, window_s: float = WINDOW_S
) -> Float[Tensor, "speaker time"]:
    """Separate a recording (time,) of any length; up to ``window_s`` take one pass.

    Raises:
        UserError: shape or sample rate do not match, samples are NaN or infinite, or the network is
            in training mode.
    """
    check_network(model, sample_rate)
    if mixture.ndim != 1:
        raise UserError(f"a mixture is shaped (time,), got {tuple(mixture.shape)}")
    check_finite("mixture", mixture)
    return separate_windows(with_aligned_polarity(model), mixture, sample_rate, window_s)


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error}") from None
    for output in outputs:
        check_output(output, input)
