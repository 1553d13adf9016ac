"""The sound and the spectrograms of the speech reports."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from sixfold.core.pipeline.figures import drawing, svg
from sixfold.core.pipeline.page import Figure, Section, Sound
from sixfold.core.pipeline.report import Outcome
from sixfold.speech.audio import read_audio


def listening(
    outcome: Outcome, *, clips: Sequence[str], apart: Sequence[str] = ()
) -> Iterator[Section]:
    """Show and play the test clips that the evaluation wrote, one section a clip and speaker.

    Args:
        outcome: Results of the task.
        clips: References and entries whose clips are played side by side; the first holds the
            clean signals too.
        apart: References whose sounds are other recordings than the test's.
    """
    described = [describe(clip) for clip in outcome.manifest["test"]["clips"]]
    known = [key for key in clips if key in outcome.results]
    yield from _sections(outcome, known, outcome.claim.title, described)
    for key in apart:
        yield from _sections(outcome, [key], f"{outcome.claim.title}: {outcome.claim.label(key)}")


def _sections(
    outcome: Outcome, keys: Sequence[str], title: str, described: Sequence[str] = ()
) -> Iterator[Section]:
    """Make a section of each clip (``clip-0.wav``, ``clip-0-speaker-1.wav``) of the first key."""
    first = outcome.samples(keys[0])
    for clip in sorted(file.stem for file in first.glob("clip-*.wav")):
        number, _, speaker = clip.removeprefix("clip-").partition("-")
        files = {"mixture": first / f"mixture-{number}.wav"}
        files |= {outcome.claim.label(key): outcome.samples(key) / f"{clip}.wav" for key in keys}
        files["clean"] = first / f"{clip.replace('clip', 'clean')}.wav"
        files = {caption: file for caption, file in files.items() if file.is_file()}
        read = {caption: read_audio(file) for caption, file in files.items()}
        (rate,) = {rate for _, rate in read.values()}
        signals = {caption: audio[0].numpy() for caption, (audio, _) in read.items()}
        figure = spectrogram_figure(f"{outcome.run.key}-{keys[0]}-{clip}", signals, rate)
        yield Section(
            f"{title}: clip {int(number) + 1}" + (f", {speaker.replace('-', ' ')}" * bool(speaker)),
            described[int(number)] if described else "",
            figures=[figure],
            sounds=[Sound(*pair) for pair in files.items()],
        )


def describe(clip: Mapping[str, Any]) -> str:
    """Describe a test clip of the manifest in a sentence: who speaks, in which noise, how loud."""
    if "speaker" in clip:
        noise = {"recording": clip["noise"], "start_s": clip.get("noise_start_s")}
        return (
            f"Speaker {clip['speaker']} ({_place(clip)}) in noise ({_place(noise)}), at a "
            f"signal-to-noise ratio of {clip['snr_db']:.1f} dB."
        )
    (first, a), (second, b) = [(k, v) for k, v in clip.items() if k != "ratio_db"]
    return (
        f"Speaker {first} ({_place(a)}) mixed with speaker {second} ({_place(b)}), at a level of "
        f"{-clip['ratio_db']:+.1f} dB relative to the first."
    )


def _place(crop: Mapping[str, Any]) -> str:
    """Name a recording without its folder and ending, and the second that the clip begins at."""
    start = crop.get("start_s")
    name = PurePosixPath(crop["recording"]).stem
    return f"recording {name}" + ("" if start is None else f", from {start:.1f} s")


def spectrogram_figure(name: str, signals: Mapping[str, Any], sample_rate: int) -> Figure:
    """Draw the spectrograms of 1-D signals in one row, all on one scale of 80 dB."""
    window, hop = sample_rate // 40, sample_rate // 100  # 25 ms every 10 ms
    levels = {}
    for caption, signal in signals.items():
        samples = np.asarray(signal, dtype=float)
        samples = np.pad(samples, (0, max(0, window - len(samples))))
        frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
        power = np.abs(np.fft.rfft(frames * np.hanning(window))) ** 2
        levels[caption] = 10 * np.log10(power.T + 1e-12)
    top = max(level.max() for level in levels.values())
    with drawing(len(levels), 2.5, 2.4) as canvas:
        for axes, (caption, level) in zip(canvas.axes, levels.items(), strict=True):
            extent = (0, len(signals[caption]) / sample_rate, 0, sample_rate / 2000)
            axes.imshow(
                level, vmin=top - 80, vmax=top, extent=extent, origin="lower", aspect="auto"
            )
            axes.set_title(caption, wrap=True)
            axes.set_xlabel("seconds")
        canvas.axes[0].set_ylabel("kHz")
        return Figure(name, f"spectrograms of {', '.join(signals)}", svg(canvas))
