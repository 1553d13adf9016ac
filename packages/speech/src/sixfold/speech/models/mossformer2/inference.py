"""Separate recordings of any length, without speakers that swap: tensors, and files.

A long recording is separated in windows. A network gives its speakers in no particular order, and
from window to window it may give them in another; the released code joins windows as they come, so
that voices swap at the seams. Here the outputs of a window are ordered by their correlation with
those of the window before, in the stretch that both have, and crossfaded there.
"""

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
from sixfold.speech.models.mossformer2.model import MOSSFORMER, MossFormer, MossFormer2
from sixfold.speech.pit import pit

WINDOW_S, OVERLAP_S = 8.0, 2.0


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
        input: One channel of overlapping voices: wav, flac, ogg or what else libsndfile reads.
        folder: Where to write; made if it is missing.
        weights: Official (MossFormer2_SS) or sixfold checkpoint.
        sample_rate: That the network works at, in Hz; by default what the checkpoint says, 8000
            for an official one. The released MossFormer2_SS_16K takes 16000.
        device: cpu, cuda, cuda:1 ...
        precision: bf16 multiplies matrices in bfloat16, less exactly; a CPU needs AMX for it.
        window_s: Seconds that the network sees at once.
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
    _check_folder(folder)
    warn_clipped(input, [mixture])
    model = load(weights, device)
    own_rate = sample_rate or model.config.sample_rate
    print(f"{input}: {mixture.shape[1] / rate:.1f} s at {rate} Hz")
    if rate != own_rate:
        print(f"resampled to {own_rate} Hz; nothing above {min(rate, own_rate) // 2} Hz is left")
    started = time.perf_counter()
    at_own_rate = resample(mixture, rate, own_rate)[0].to(device)
    speakers = separate_windows(upright(model), at_own_rate, own_rate, window_s).cpu()
    speakers = resample(speakers, own_rate, rate)[:, : mixture.shape[1]]
    for number, speaker in enumerate(speakers, 1):
        write_audio(folder / f"speaker-{number}.wav", speaker[None], rate)
    print(f"{folder}: {len(speakers)} speakers, after {time.perf_counter() - started:.1f} s")


def load(weights: str | Path, device: str = "cpu") -> MossFormer2:
    """Load a checkpoint of MossFormer2 or MossFormer, whichever it is.

    Raises:
        UserError: it is neither, or damaged.
    """
    from sixfold.core.weights.convert import read_pretrained

    name, _ = read_pretrained(weights) or (None, None)
    kind = MossFormer if name == MOSSFORMER.name else MossFormer2
    return kind.from_pretrained(weights).to(device)


def separate(
    model: MossFormer2, mixture: Tensor, sample_rate: int, window_s: float = WINDOW_S
) -> Float[Tensor, "speaker time"]:
    """Separate a recording (time,) of any length; one not longer than ``window_s`` in one pass.

    Raises:
        UserError: the shape or the sample rate is another, samples are NaN or infinite.
    """
    if sample_rate != model.config.sample_rate:
        raise UserError(
            f"this network works at {model.config.sample_rate} Hz, the audio is at {sample_rate} "
            f"Hz; use sixfold.speech.audio.files.resample(audio, {sample_rate}, "
            f"{model.config.sample_rate})"
        )
    if mixture.ndim != 1:
        raise UserError(f"a mixture is shaped (time,), got {tuple(mixture.shape)}")
    check_finite("mixture", mixture)
    return separate_windows(upright(model), mixture, sample_rate, window_s)


def upright(model: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Turn over the outputs of a separator that are upside down, by their share in the mixture.

    SI-SNR, which it was trained on, has no sign. The second output of the released MossFormer2 is
    upside down: a speaker who changes outputs between windows turns over, and joining would take
    them for another (benchmarks/stitching.py).

    Args:
        model: Maps (1, time) to (1, speaker, time), the speakers in any order.
    """

    def turned(mixture: Tensor) -> Tensor:
        speakers = model(mixture)
        down = correlation(speakers, mixture[:, None]) < 0
        return torch.where(down[..., None], -speakers, speakers)

    return turned


@torch.no_grad()
def separate_windows(
    model: Callable[[Tensor], Tensor],
    mixture: Tensor,
    sample_rate: int,
    window_s: float,
    overlap_s: float = OVERLAP_S,
) -> Float[Tensor, "speaker time"]:
    """Separate window by window and join them, every speaker with itself.

    Args:
        model: Maps (1, ..., time) to (1, speaker, time), the speakers in any order.
        mixture: (..., time).
        sample_rate: In Hz.
        window_s: Seconds of a window, more than twice the overlap.
        overlap_s: Seconds over which a window is faded into the next.
    """
    overlap = round(overlap_s * sample_rate)
    size, samples = round(window_s * sample_rate), mixture.shape[-1]
    if size <= 2 * overlap:
        raise UserError(
            f"window_s is the seconds of a window, above {2 * overlap_s}; got {window_s}"
        )
    count = max(1, -(-(samples - overlap) // (size - overlap)))
    # Equal windows: a short last one would separate badly.
    step = max(1, -(-(samples - overlap) // count))
    joined = None
    for first in range(0, count * step, step):
        window = model(mixture[None, ..., first : first + step + overlap])[0]
        joined = window if joined is None else join(joined, window, min(overlap, len(window[0])))
    assert joined is not None
    return joined


def join(
    before: Float[Tensor, "speaker _time"], window: Float[Tensor, "speaker _more"], overlap: int
) -> Float[Tensor, "speaker _whole"]:
    """Append a window that begins ``overlap`` samples before the end, its speakers reordered."""
    tail, head = before[:, -overlap:], window[:, :overlap]
    _, order = pit(head[None], tail[None], correlation)
    window = window[order[0]]
    rise = (torch.arange(overlap).to(tail) + 1) / (overlap + 1)
    blend = rise * window[:, :overlap] + (1 - rise) * tail
    return torch.cat([before[:, :-overlap], blend, window[:, overlap:]], 1)


def correlation(
    a: Float[Tensor, "*#batch time"], b: Float[Tensor, "*#batch time"]
) -> Float[Tensor, "*_batch"]:
    """Correlate, zero-mean, so that louder stretches count for more: no division by energies."""
    a, b = (x - x.mean(-1, keepdim=True) for x in (a, b))
    return (a * b).sum(-1)


def in_bf16(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the model with its matrix products in bfloat16, what comes out in float32."""

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


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder for the speakers")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error}") from None
    check_output(folder / "speaker-1.wav")
