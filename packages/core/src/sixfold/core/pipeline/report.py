"""Tables, figures, sounds and the page that shows them: what the report of any domain is made of.

The same results give the same bytes. matplotlib and jinja2 are imported only by the functions that
need them.
"""

import io
import math
import re
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sixfold.core.config import UserError
from sixfold.core.data.atomic import write_atomic as write_text

MISSING = "not measured"
INK = "#010203"  # stands for the page's text colour until a figure is written
# Okabe and Ito's colours less black and yellow: told apart without red and green, on light and dark
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", "--", "-.", ":")
THEME = "<style>svg{color:#1b1b1b}@media(prefers-color-scheme:dark){svg{color:#e8e8e8}}</style>"


@dataclass(frozen=True)
class Table:
    """Rows under named columns; a value of None reads ``not measured``."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Figure:
    """An SVG, and what it shows in words (for those who cannot see it)."""

    name: str
    alt: str
    svg: str


@dataclass(frozen=True)
class Sound:
    """A WAV file, copied next to the page."""

    caption: str
    file: Path


@dataclass(frozen=True)
class Section:
    """One heading of the page; ``text`` is plain, with an empty line between paragraphs."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    sounds: Sequence[Sound] = ()


def cell(value: Any) -> str:
    """Write one value of a table; what is missing or not a number reads ``not measured``."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def mean_std(values: Sequence[float | None], digits: int = 2) -> str:
    """Write mean ± standard deviation over seeds (n - 1 in the divisor; one seed has none)."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known or len(known) < len(values):
        return MISSING
    spread = f" ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.{digits}f}{spread}"


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Write rows as a Markdown table; a column that a row lacks reads ``not measured``."""
    cells = [[cell(row.get(column)) for column in columns] for row in rows]
    lines = [list(columns), ["---"] * len(columns), *cells]
    safe = [[re.sub(r"\s*\n\s*", " ", text).replace("|", "\\|") for text in ln] for ln in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in safe)


def replace_between_markers(path: Path, name: str, text: str) -> None:
    """Put text between the lines ``<!-- name -->`` and ``<!-- /name -->`` of a file.

    Raises:
        UserError: the file has not exactly one such pair.
    """
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    page = path.read_text(encoding="utf-8")
    head, begin, rest = page.partition(first)
    _, end, tail = rest.partition(last)
    if not begin or not end or first in rest or last in head + tail:
        raise UserError(f"{path} needs one line {first} and, below it, one line {last}")
    write_text(path, f"{head}{first}\n{text}\n{last}{tail}")


def curve_figure(
    name: str,
    quantity: str,
    curves: Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]],
    seconds_per_step: Mapping[str, float] | None = None,
    over: str = "step",
) -> Figure:
    """Draw curves: mean and range of one standard deviation over seeds.

    A second panel shows them over seconds, for those whose seconds per step are known.

    Args:
        name: File name without ending.
        quantity: What the vertical axis shows, with its unit.
        curves: For each system, for each seed, steps and values; seeds share their steps, and a
            longer seed is cut to the shortest.
        seconds_per_step: Of each system that was timed on this machine.
        over: What the horizontal axis shows.
    """
    seconds = {n: s for n, s in (seconds_per_step or {}).items() if n in curves}
    panels = [(over, dict.fromkeys(curves, 1.0))] + ([("seconds", seconds)] if seconds else [])
    with _panels(len(panels)) as canvas:
        for axes, (unit, scale) in zip(canvas.axes, panels, strict=True):
            for i, (system, seeds) in enumerate(curves.items()):
                if system not in scale:
                    continue
                length = min(len(steps) for steps, _ in seeds)
                if any(list(at[:length]) != list(seeds[0][0][:length]) for at, _ in seeds):
                    raise ValueError(f"the seeds of {system!r} were logged at different steps")
                x = np.asarray(seeds[0][0][:length], dtype=float) * scale[system]
                y = np.asarray([values[:length] for _, values in seeds], dtype=float)
                mean, spread = y.mean(0), y.std(0, ddof=1) if len(y) > 1 else 0 * y[0]
                colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
                axes.plot(x, mean, color=colour, linestyle=dash, label=system)
                axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, lw=0)
            axes.set(xlabel=unit, ylabel=quantity)
            axes.legend()
        untimed = [system for system in curves if system not in seconds]
        note = f"; seconds not measured for {', '.join(untimed)}" if seconds and untimed else ""
        over = " and over ".join(unit for unit, _ in panels)
        alt = f"{quantity} of {', '.join(curves)} over {over}{note}"
        return Figure(name, alt, _svg(canvas))


def spectrogram_figure(name: str, signals: Mapping[str, Any], sample_rate: int) -> Figure:
    """Draw the spectrograms of 1-D signals beside each other, all on one scale of 80 dB."""
    window, hop = sample_rate // 40, sample_rate // 100  # 25 ms every 10 ms
    levels = {}
    for caption, signal in signals.items():
        samples = np.asarray(signal, dtype=float)
        samples = np.pad(samples, (0, max(0, window - len(samples))))
        frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
        power = np.abs(np.fft.rfft(frames * np.hanning(window))) ** 2
        levels[caption] = 10 * np.log10(power.T + 1e-12)
    top = max(level.max() for level in levels.values())
    with _panels(len(levels)) as canvas:
        for axes, (caption, level) in zip(canvas.axes, levels.items(), strict=True):
            extent = (0, len(signals[caption]) / sample_rate, 0, sample_rate / 2000)
            axes.imshow(
                level, vmin=top - 80, vmax=top, extent=extent, origin="lower", aspect="auto"
            )
            axes.set(title=caption, xlabel="seconds", ylabel="kHz")
        return Figure(name, f"spectrograms of {', '.join(signals)}", _svg(canvas))


def write_page(folder: Path, title: str, sections: Sequence[Section], notice: str = "") -> Path:
    """Write ``index.html`` and, next to it, its figures and sounds; it works without a network.

    Args:
        folder: Where the page goes; files of the same names are replaced.
        title: Heading of the page.
        sections: What it shows.
        notice: Said at the top, e.g. that the data are built in and not the paper's.

    Returns:
        The page.
    """
    import jinja2

    folder.mkdir(parents=True, exist_ok=True)
    figures = [figure for section in sections for figure in section.figures]
    if len({figure.name for figure in figures}) < len(figures):
        raise ValueError(f"two figures of {title!r} have the same name")
    for figure in figures:
        write_text(folder / f"{figure.name}.svg", figure.svg)
    files = dict.fromkeys(sound.file for section in sections for sound in section.sounds)
    sounds = {file: f"sound-{i}.wav" for i, file in enumerate(files, start=1)}
    for file, name in sounds.items():
        shutil.copyfile(file, folder / name)
    template = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    html = page.from_string(template).render(
        title=title, sections=sections, notice=notice, sounds=sounds, cell=cell
    )
    write_text(folder / "index.html", html)
    return folder / "index.html"


@contextmanager
def _panels(count: int) -> Iterator[Any]:
    """Panels, three in a row; what is drawn and saved inside gives the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    style: dict[Any, Any] = {"svg.hashsalt": "sixfold", "svg.fonttype": "none"}
    style |= {"text.parse_math": False, "legend.frameon": False} | dict.fromkeys(inked, INK)
    with mpl.rc_context(style):
        rows, columns = math.ceil(count / 3), min(count, 3)
        size = (4.5 * columns, 3.2 * rows)
        canvas = Canvas(figsize=size, layout="constrained", facecolor="none")
        for i in range(count):
            canvas.add_subplot(rows, columns, i + 1, facecolor="none")
        yield canvas


def _svg(canvas: Any) -> str:
    page = io.StringIO()
    canvas.savefig(page, format="svg", metadata={"Date": None})
    return page.getvalue().replace(INK, "currentColor").replace("<metadata>", f"{THEME}<metadata>")
