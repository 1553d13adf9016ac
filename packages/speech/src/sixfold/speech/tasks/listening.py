"""The sound and the spectrograms of the speech reports."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sixfold.core.pipeline.figures import spectrogram_figure
from sixfold.core.pipeline.page import Section, Sound
from sixfold.core.pipeline.report import Outcome
from sixfold.speech.audio import read_audio


def listening(
    outcome: Outcome, *, clips: Sequence[str], apart: Sequence[str] = ()
) -> Iterator[Section]:
    """Show and play the test clips that the evaluation wrote, one section a clip.

    Args:
        outcome: Results of the task.
        clips: References and entries whose clips are played side by side; the first holds the
            clean signals too.
        apart: References whose sounds are other recordings than the test's.
    """
    claim = outcome.claim
    rows = [key for key in clips if key in outcome.results]
    for i, clip in enumerate(outcome.manifest["test"]["clips"]):
        files = {
            f"{claim.label(key)} {_words(file.stem.removeprefix(f'clip-{i}'))}".strip(): file
            for key in rows
            for file in sorted(outcome.samples(key).glob(f"clip-{i}*.wav"))
        }
        clean = sorted(outcome.samples(rows[0]).glob(f"clean-{i}*.wav"))
        files |= {_words(file.stem.replace(f"-{i}", "")): file for file in clean}
        if files:
            name = f"{outcome.run.key}-clip-{i}"
            yield _sounding(f"{claim.title}: clip {i + 1}", f"{describe(clip)}.", name, files)
    for key in apart:
        files = sorted(outcome.samples(key).glob("*.wav"))
        if files:
            named = {_words(file.stem): file for file in files}
            name = f"{outcome.run.key}-{key}"
            yield _sounding(f"{claim.title}: {claim.label(key)}", "", name, named)


def describe(clip: Mapping[str, Any]) -> str:
    """Describe a test clip in words: what was mixed, and how loud."""
    parts = []
    for name, value in clip.items():
        name = name.replace("_db", ", dB").replace("_s", ", s").replace("_", " ")
        match value:
            case Mapping():
                parts.append(f"{name} ({describe(value)})")
            case float():
                parts.append(f"{name} {value:.4g}")
            case list() | tuple():
                parts.append(f"{name} {', '.join(map(str, value))}")
            case _:
                parts.append(f"{name} {value}")
    return "; ".join(parts)


def _words(stem: str) -> str:
    return stem.replace("-", " ").strip()


def _sounding(title: str, text: str, name: str, files: Mapping[str, Path]) -> Section:
    """Make a section of sounds and their spectrograms."""
    read = {caption: read_audio(file) for caption, file in files.items()}
    signals = {caption: audio[0].numpy() for caption, (audio, _) in read.items()}
    (rate,) = {rate for _, rate in read.values()}
    figure = spectrogram_figure(name, signals, rate)
    return Section(title, text, figures=[figure], sounds=[Sound(*pair) for pair in files.items()])
