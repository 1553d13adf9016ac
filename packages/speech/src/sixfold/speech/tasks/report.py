"""The speech report: what the papers claim, what this budget shows, to look at and to listen to."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sixfold.core.pipeline.params import Pipeline
from sixfold.core.pipeline.report import (
    Section,
    Sound,
    Table,
    curve_figure,
    markdown_table,
    mean_std,
    replace_between_markers,
    spectrogram_figure,
    write_page,
    write_text,
)
from sixfold.speech.audio.files import read_audio
from sixfold.speech.data.mixing import read_manifest
from sixfold.speech.tasks.claims import CLAIMS, Claim
from sixfold.speech.tasks.learning import EQUAL, equal_rows, read_curve, seconds_per_step

BUILTIN = "Built-in source: synthesised voices and generated noise, not the real recordings."


def write_report(pipeline: Pipeline) -> None:
    """Write reports/speech.md, the page reports/speech/index.html and the README's tables.

    The longer pipeline's are called speech-paper, and leave the README alone. Experiments without a
    trained system in params.yaml are left out.

    Raises:
        UserError: a result is missing.
    """
    notice = "" if pipeline.source() == "real" else BUILTIN
    text = ["# Speech", *([f"**{notice}**"] if notice else []), EQUAL]
    sections, reports, name = [], pipeline.root / "reports", pipeline.folder.name
    readme = pipeline.root / "packages" / "speech" / "README.md"
    for task, claim in CLAIMS.items():
        entries = [key for key, entry in pipeline.params.systems.items() if entry.task == task]
        if not entries:
            continue
        results = pipeline.results(task)
        scores = Table(
            f"{claim.caption}, mean ± std over {len(pipeline.params.seeds)} seeds",
            ["system", "parameters", "steps", *(label for label, _ in claim.scores.values())],
            score_rows(results, claim),
        )
        verdicts = [shown(results, claim, pair) for pair in claim.pairs]
        learning = _learning(pipeline, task, entries)
        sections += [
            Section(claim.title, "\n\n".join([claim.text, *verdicts]), tables=[scores]),
            learning,
            *listening(pipeline, task, claim),
            Section(f"{claim.title}: data", data_text(read_manifest(pipeline.prepared / task))),
        ]
        equal = learning.tables[0]
        text += [f"## {claim.title}", claim.text, *verdicts, scores.caption]
        text += [markdown_table(scores.rows, scores.columns)]
        text += [markdown_table(equal.rows, equal.columns)]
        if readme.is_file() and name == pipeline.name:
            table = markdown_table(scores.rows, scores.columns)
            replace_between_markers(readme, f"results of {task}", table)
    page = write_page(reports / name, "Speech", sections, notice)
    text += [f"Command: `dvc repro pipelines/{name}`."]
    write_text(reports / f"{name}.md", "\n\n".join(text) + "\n")
    print(f"report: {page}")


def score_rows(results: Mapping[str, dict[str, Any]], claim: Claim) -> list[dict[str, Any]]:
    """Make one row a system: mean and standard deviation of each score over seeds."""
    rows = []
    for name, result in results.items():
        row = {"system": claim.names.get(name, name)}
        row |= {"parameters": result.get("parameters", "-"), "steps": result.get("steps", "-")}
        for score, (label, digits) in claim.scores.items():
            row[label] = mean_std([s[score] for s in result["seeds"].values()], digits)
        rows.append(row)
    return rows


def shown(results: Mapping[str, dict[str, Any]], claim: Claim, pair: tuple[str, str]) -> str:
    """Say whether a claim shows: the difference, seed by seed, against its standard error."""
    if not set(pair) <= results.keys():
        missing = " and ".join(sorted(set(pair) - results.keys()))
        return f"{missing} was not trained, so nothing can be said of it."
    model, baseline = (results[name]["seeds"] for name in pair)
    score, (label, digits) = next(iter(claim.scores.items()))
    gains = [model[seed][score] - baseline[seed][score] for seed in model if seed in baseline]
    gain = f"{statistics.fmean(gains):+.{digits}f} {label.split(', ')[-1]}"
    names = f"{claim.names[pair[0]]} over {claim.names[pair[1]]}"
    what = f"{names}: {gain} {label.split(', ')[0]} at equal steps"
    if len(gains) < 2:
        return f"{what}, of one seed, which proves nothing."
    error = statistics.stdev(gains) / len(gains) ** 0.5
    what = f"{what} (standard error {error:.{digits}f}, {len(gains)} seeds)"
    if statistics.fmean(gains) > 2 * error:
        return f"The claim shows at this budget. {what}."
    if statistics.fmean(gains) < -2 * error:
        return f"The claim does not show at this budget, on the contrary. {what}."
    return f"The claim does not show at this budget, there is no clear difference. {what}."


def _learning(pipeline: Pipeline, task: str, entries: list[str]) -> Section:
    """Set the systems against each other at equal steps and at equal time."""
    claim = CLAIMS[task]
    column, quantity, sign = claim.curve
    names = {key: claim.names.get(key, key) for key in entries}
    curves = {names[key]: read_curve(pipeline, key, column, sign) for key in entries}
    speeds = {names[key]: s for key in entries if (s := seconds_per_step(pipeline, key))}
    rows = equal_rows(curves, speeds, quantity)
    table = Table("Equal steps and equal time, smoothed", list(rows[0]), rows)
    figure = curve_figure(f"{task}-curves", quantity, curves, speeds)
    return Section(f"{claim.title}: learning", EQUAL, tables=[table], figures=[figure])


def listening(pipeline: Pipeline, task: str, claim: Claim) -> list[Section]:
    """Show and play the test clips that `evaluate` wrote, one section a clip."""
    rows = [row for row in pipeline.of_task(task) if row not in claim.apart]
    folders = {claim.names.get(r, r): pipeline.folder / "samples" / r for r in rows}
    sections = []
    for i, clip in enumerate(read_manifest(pipeline.prepared / task)["test"]["clips"]):
        files = {
            name + file.stem.removeprefix(f"clip-{i}").replace("-", " "): file
            for name, folder in folders.items()
            for file in sorted(folder.glob(f"clip-{i}*.wav"))
        }
        first = pipeline.folder / "samples" / rows[0]  # holds what the ideal would be, too
        files |= {_spaced(file): file for file in sorted(first.glob(f"clean-{i}*.wav"))}
        if files:
            title = f"{claim.title}: clip {i + 1}"
            sections.append(_sounding(title, f"{_words(clip)}.", f"{task}-clip-{i}", files))
    for row in claim.apart:
        files = sorted((pipeline.folder / "samples" / row).glob("*.wav"))
        if files:
            title = f"{claim.title}: {claim.names[row]}"
            shown = {_spaced(file): file for file in files}
            sections.append(_sounding(title, "", f"{task}-{row}", shown))
    return sections


def _spaced(file: Path) -> str:
    return file.stem.replace("-", " ")


def _sounding(title: str, text: str, name: str, files: Mapping[str, Path]) -> Section:
    """Make a section of sounds and their spectrograms."""
    read = {caption: read_audio(file) for caption, file in files.items()}
    signals = {caption: audio[0].numpy() for caption, (audio, _) in read.items()}
    (rate,) = {rate for _, rate in read.values()}
    figure = spectrogram_figure(name, signals, rate)
    return Section(title, text, figures=[figure], sounds=[Sound(*pair) for pair in files.items()])


def _words(clip: Mapping[str, Any]) -> str:
    """Say in one line what a test clip is made of."""
    said = []
    for what, value in clip.items():
        value = f"({_words(value)})" if isinstance(value, Mapping) else value
        said.append(f"{what} {value:.4g}" if isinstance(value, float) else f"{what} {value}")
    return ", ".join(said)


def data_text(manifest: Mapping[str, Any]) -> str:
    """Say what was trained and tested on."""
    parts = [f"Source: {manifest['source']}."]
    for split in ("train", "test"):
        talk = ", ".join(
            f"{s} ({d['seconds']:.0f} s)" for s, d in manifest[split]["speech"].items()
        )
        noise = ", ".join(manifest[split].get("noise", {}))
        parts.append(f"{split.capitalize()}: speakers {talk}{noise and '; noise ' + noise}.")
    return "\n\n".join([*parts, "No recording of the test occurs in training."])
