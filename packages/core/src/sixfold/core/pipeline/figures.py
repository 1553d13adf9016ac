"""Figures of a report: learning curves and spectrograms, as SVG with a description in words.

The same numbers give the same bytes. matplotlib is imported only by the functions that draw.
"""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from sixfold.core.pipeline.page import Figure

INK = "#010203"  # stands for the page's text colour until a figure is written
# Okabe and Ito's colours less black and yellow: told apart without red and green, on light and dark
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", "--", "-.", ":")
THEME = "<style>svg{color:#1b1b1b}@media(prefers-color-scheme:dark){svg{color:#e8e8e8}}</style>"


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
