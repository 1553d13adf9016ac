"""Enhance recordings of a microphone array, from the command line."""

import time
from pathlib import Path

from sixfold.core import UserError
from sixfold.speech.audio.files import check_output, read_audio, resample, warn_clipped, write_audio
from sixfold.speech.audio.network import check_device
from sixfold.speech.audio.stitching import WINDOW_S, separate_windows
from sixfold.speech.models.deftan2.model import DeFTAN2


def run(
    input: Path,
    output: Path,
    *,
    weights: Path,
    sample_rate: int | None = None,
    device: str = "cpu",
    window_s: float = WINDOW_S,
) -> None:
    """Remove noise and reverberation from the recording of a microphone array.

    Any length and sample rate; the output has the rate and length of the input, and one channel per
    source. Microphone 0, the first channel of the file, is the reference.

    Args:
        input: Recording with one channel per microphone, in the order of the checkpoint's array.
        output: Enhanced recording: .wav (32-bit float), .flac (24 bits) or .ogg (Vorbis).
        weights: Official or sixfold checkpoint.
        sample_rate: Sample rate that the network was trained at, in Hz, if its checkpoint does not
            hold it and it is not 16000, as released.
        device: Torch device: cpu, cuda, cuda:1 ...
        window_s: Seconds of audio per pass; windows are crossfaded.
    """
    input, output = Path(input), Path(output)
    audio, rate = read_audio(input)
    check_output(output, input)
    check_device(device)
    model = DeFTAN2.from_pretrained(weights, sample_rate).to(device)
    own_rate = model.config.sample_rate
    warn_clipped(input, [audio])
    microphones, channels = model.config.microphones, audio.shape[0]
    if channels != microphones:
        raise UserError(
            f"{input} has {channels} channels, {weights} was trained for {microphones} microphones"
        )
    print(f"{input}: {audio.shape[1] / rate:.1f} s, {channels} channels at {rate} Hz")
    if rate != own_rate:
        print(f"resampled to {own_rate} Hz; nothing above {min(rate, own_rate) // 2} Hz is left")
    started = time.perf_counter()
    array = resample(audio, rate, own_rate).to(device)
    enhanced = separate_windows(model, array, own_rate, window_s).cpu()
    write_audio(output, resample(enhanced, own_rate, rate)[:, : audio.shape[1]], rate)
    print(f"{output}: written after {time.perf_counter() - started:.1f} s")
