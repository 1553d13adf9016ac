"""Enhance recordings at 48 kHz by MossFormer2_SE_48K: tensors, and files from the command line."""

import time
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.speech.audio.files import (
    check_finite,
    check_output,
    read_audio,
    resample,
    warn_clipped,
    write_audio,
)
from sixfold.speech.audio.network import check_device, check_network
from sixfold.speech.audio.stitching import separate_windows
from sixfold.speech.models.mossformer2.se_48k import MossFormer2SE

# As released; but there windows are cut in the middle of their overlap, here they are crossfaded.
ONE_PASS_S, WINDOW_S, OVERLAP_S = 20.0, 4.0, 1.0


def run(input: Path, output: Path, *, weights: Path, device: str = "cpu") -> None:
    """Remove noise from a full-band recording of speech (up to 24 kHz).

    Any length, any number of channels (each enhanced separately), any usual sample rate; the output
    has the rate, channels and length of the input. More than 20 s are enhanced in windows of 4 s.

    Args:
        input: Noisy recording, in any format that libsndfile reads (wav, flac, ogg ...).
        output: Enhanced recording: .wav (32-bit float), .flac (24 bits) or .ogg (Vorbis).
        weights: Official MossFormer2_SE_48K or sixfold checkpoint.
        device: Torch device: cpu, cuda, cuda:1 ...
    """
    input, output = Path(input), Path(output)
    audio, rate = read_audio(input)
    check_output(output, input)
    check_device(device)
    model = MossFormer2SE.from_pretrained(weights).to(device)
    own_rate = model.config.sample_rate
    print(f"{input}: {audio.shape[1] / rate:.1f} s, {audio.shape[0]} channel(s) at {rate} Hz")
    warn_clipped(input, [audio])
    if rate != own_rate:
        print(f"resampled to {own_rate} Hz; nothing above {min(rate, own_rate) // 2} Hz is left")
    started = time.perf_counter()
    enhanced = enhance(model, resample(audio, rate, own_rate).to(device), own_rate).cpu()
    write_audio(output, resample(enhanced, own_rate, rate)[:, : audio.shape[1]], rate)
    print(f"{output}: written after {time.perf_counter() - started:.1f} s")


def enhance(
    model: MossFormer2SE, audio: Tensor, sample_rate: int = 48_000
) -> Float[Tensor, "channels time"]:
    """Enhance a recording (channels, time), full scale ±1; length and device stay the same.

    Up to 20 s take one pass.

    Raises:
        UserError: shape or sample rate do not match, samples are NaN or infinite, or the network is
            in training mode.
    """
    check_network(model, sample_rate)
    model.check(audio)
    check_finite("audio", audio)
    window_s = ONE_PASS_S if audio.shape[1] <= ONE_PASS_S * sample_rate else WINDOW_S

    def one_source(window: Tensor) -> Tensor:
        return model(window)[:, None]

    return torch.cat(
        [separate_windows(one_source, x, sample_rate, window_s, OVERLAP_S) for x in audio]
    )
