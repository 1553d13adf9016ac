"""The speech report: what the paper claims, what this budget shows, to look at and to listen to."""

import csv
import json
import statistics
from typing import Any

from sixfold.core.pipeline import INPUT, Pipeline
from sixfold.core.report import (
    Figure,
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
from sixfold.speech.audio import read_audio
from sixfold.speech.recordings import SAMPLE_RATE

METRICS = {
    "si_sdr": ("SI-SDR, dB", 2),
    "pesq_wb": ("PESQ-wb", 2),
    "stoi": ("STOI", 3),
    "dnsmos": ("DNSMOS overall", 2),
}
MODEL, BASELINE = "frcrn", "frcrn_no_recurrence"
NAMES = {INPUT: "noisy input", MODEL: "FRCRN", BASELINE: "no frequency recurrence"}
CLAIM = (
    "The paper (arXiv:2206.07293) claims that recurrence along frequency improves enhancement. "
    "Its numbers, at full size on other data: VoiceBank+DEMAND, PESQ 3.21; DNS-2020 without "
    "reverberation, WB-PESQ 3.23. Here the same network is trained with and without that "
    "recurrence, the channels of the second raised to as many parameters, on SI-SNR alone."
)
CURVE = "si_snr"  # the loss whose negative is a level in dB
WINDOW = 0.1  # of the steps: the training loss is averaged over so many before it is read off


def write_report(pipeline: Pipeline) -> None:
    """Write reports/speech.md, the page reports/speech/index.html and the README's table."""
    results = pipeline.results()
    source = pipeline.source()
    notice = (
        ""
        if source == "real"
        else "Built-in source: synthesised voices and generated noise, not the real recordings."
    )
    curves = {name: read_curve(pipeline, name) for name in pipeline.params.systems}
    speeds = {name: s for name in curves if (s := seconds_per_step(pipeline, name))}
    rows, columns = score_rows(results), ["system", "parameters", "steps", *labels()]
    table = Table(
        f"Test mixtures, mean ± std over {len(pipeline.params.seeds)} seeds", columns, rows
    )
    time_columns = [
        "system",
        "seconds per step",
        "training SI-SNR at equal steps, dB",
        "at equal time, dB",
    ]
    equal = Table(
        "Equal steps and equal time (training SI-SNR, smoothed)",
        time_columns,
        equal_rows(curves, speeds),
    )
    verdict = [shown(results), reached(results)]
    sections = [
        Section("Claim", "\n\n".join([CLAIM, *verdict]), tables=[table]),
        Section("Learning", EQUAL, tables=[equal], figures=[curve(curves, speeds)]),
        *listening(pipeline),
        Section("Data", data_text(pipeline)),
    ]
    page = write_page(pipeline.root / "reports" / "speech", "Speech enhancement", sections, notice)
    text = [
        "# Speech enhancement",
        *([f"**{notice}**"] if notice else []),
        CLAIM,
        *verdict,
        table.caption,
        markdown_table(rows, columns),
        EQUAL,
        markdown_table(equal.rows, time_columns),
        "Command: `dvc repro pipelines/speech`.",
    ]
    write_text(pipeline.root / "reports" / "speech.md", "\n\n".join(text) + "\n")
    readme = pipeline.root / "packages" / "speech" / "README.md"
    if readme.is_file():
        replace_between_markers(readme, "results", markdown_table(rows, columns))
    print(f"report: {page}")


EQUAL = (
    "Equal steps: the end of training. Equal time: each system at the moment when the faster one "
    "is done. The learning rate falls only towards the end of training, so the slower one is read "
    "off before its best part. The seconds per step are of the machine that trained."
)


def labels() -> list[str]:
    """Return the metrics' column names."""
    return [label for label, _ in METRICS.values()]


def score_rows(results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Make one row a system: mean and standard deviation of each metric over seeds."""
    rows = []
    for name, result in results.items():
        row = {"system": NAMES.get(name, name)}
        row |= {"parameters": result.get("parameters", "-"), "steps": result.get("steps", "-")}
        for metric, (label, digits) in METRICS.items():
            row[label] = mean_std([s[metric] for s in result["seeds"].values()], digits)
        rows.append(row)
    return rows


def shown(results: dict[str, dict[str, Any]]) -> str:
    """Say whether the claim shows: the difference, seed by seed, against its standard error."""
    if not {MODEL, BASELINE} <= results.keys():
        return "The baseline was not trained, so nothing can be said of the claim."
    pairs = [
        (results[MODEL]["seeds"][s]["si_sdr"], results[BASELINE]["seeds"][s]["si_sdr"])
        for s in results[MODEL]["seeds"]
        if s in results[BASELINE]["seeds"]
    ]
    gains = [a - b for a, b in pairs]
    gain = statistics.fmean(gains)
    if len(gains) < 2:
        return f"One seed: FRCRN is {gain:+.2f} dB SI-SDR from its baseline; that proves nothing."
    error = statistics.stdev(gains) / len(gains) ** 0.5
    size = f"{gain:+.2f} dB SI-SDR at equal steps (standard error {error:.2f}, {len(gains)} seeds)"
    if gain > 2 * error:
        return f"The claim shows at this budget: FRCRN is {size} from its baseline."
    if gain < -2 * error:
        return f"The claim does not show at this budget, on the contrary: {size}."
    return f"The claim does not show at this budget: {size} is no clear difference."


def reached(results: dict[str, dict[str, Any]]) -> str:
    """Say what the systems make of the input."""
    before = results[INPUT]["mean"]["si_sdr"]
    gains = [
        f"{NAMES.get(name, name)} {result['mean']['si_sdr'] - before:+.2f} dB"
        for name, result in results.items()
        if name != INPUT
    ]
    return f"SI-SDR over the noisy input's {before:.2f} dB: {', '.join(gains)}."


def read_curve(pipeline: Pipeline, name: str) -> list[tuple[list[float], list[float]]]:
    """Return, for each seed, steps and smoothed training SI-SNR in dB."""
    path = pipeline.folder / "curves" / f"{name}.csv"
    seeds: dict[str, tuple[list[float], list[float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            steps, values = seeds.setdefault(row["seed"], ([], []))
            steps.append(float(row["step"]))
            values.append(-float(row[CURVE]))
    smoothed = []
    for steps, values in seeds.values():
        width = max(1, round(len(values) * WINDOW))
        means = [
            statistics.fmean(values[max(0, i - width + 1) : i + 1]) for i in range(len(values))
        ]
        smoothed.append((steps, means))
    return smoothed


def seconds_per_step(pipeline: Pipeline, name: str) -> float | None:
    """Return the median over seeds; None where the training was not timed on this machine."""
    files = [
        pipeline.folder / "runs" / name / f"seed-{seed}" / "perf.json"
        for seed in pipeline.params.seeds
    ]
    times = [json.loads(file.read_text())["seconds_per_step"] for file in files if file.is_file()]
    return statistics.median(times) if times else None


def equal_rows(
    curves: dict[str, list[tuple[list[float], list[float]]]], speeds: dict[str, float]
) -> list[dict[str, Any]]:
    """Read each curve at its end, and at the time when the first system is done."""
    ends = {
        name: seeds[0][0][-1] * speeds[name] for name, seeds in curves.items() if name in speeds
    }
    rows = []
    for name, seeds in curves.items():
        row: dict[str, Any] = {"system": NAMES.get(name, name)}
        row["seconds per step"] = speeds.get(name)
        row["training SI-SNR at equal steps, dB"] = mean_std([values[-1] for _, values in seeds])
        if len(ends) == len(curves):
            step = min(ends.values()) / speeds[name]
            at = [v[max(0, sum(s <= step for s in steps) - 1)] for steps, v in seeds]
            row["at equal time, dB"] = mean_std(at)
        rows.append(row)
    return rows


def curve(
    curves: dict[str, list[tuple[list[float], list[float]]]], speeds: dict[str, float]
) -> Figure:
    """Draw the learning curves over steps and over seconds."""
    named = {NAMES.get(name, name): seeds for name, seeds in curves.items()}
    seconds = {NAMES.get(name, name): s for name, s in speeds.items()}
    return curve_figure("curves", "training SI-SNR, dB", named, seconds)


def listening(pipeline: Pipeline) -> list[Section]:
    """Show and play the test clips that `evaluate` wrote, one section a clip."""
    folder, sections = pipeline.folder / "samples", []
    manifest = json.loads((pipeline.prepared / "manifest.json").read_text(encoding="utf-8"))
    for i, clean in enumerate(sorted((folder / INPUT).glob("clean-*.wav"))):
        files = {
            NAMES.get(n, n): folder / n / f"clip-{i}.wav" for n in (INPUT, *pipeline.params.systems)
        }
        files["clean"] = clean
        signals = {name: read_audio(file)[0][0].numpy() for name, file in files.items()}
        clip = manifest["test"]["clips"][i]
        text = (
            f"Speaker {clip['speaker']}, {clip['recording']}, in {clip['noise']} "
            f"at {clip['snr_db']:.1f} dB."
        )
        figure = spectrogram_figure(f"clip-{i}", signals, SAMPLE_RATE)
        sounds = [Sound(name, file) for name, file in files.items()]
        sections.append(Section(f"Clip {i + 1}", text, figures=[figure], sounds=sounds))
    return sections


def data_text(pipeline: Pipeline) -> str:
    """Say what was trained and tested on."""
    manifest = json.loads((pipeline.prepared / "manifest.json").read_text(encoding="utf-8"))
    parts = [f"Source: {manifest['source']}."]
    for split in ("train", "test"):
        talk = ", ".join(
            f"{s} ({d['seconds']:.0f} s)" for s, d in manifest[split]["speech"].items()
        )
        noise = ", ".join(manifest[split]["noise"])
        parts.append(f"{split.capitalize()}: speakers {talk}; noise {noise}.")
    parts.append("No speaker and no noise recording of the test occurs in training.")
    return "\n\n".join(parts)
