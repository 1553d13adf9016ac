"""Figures of a report: curves as SVG, pictures and films from arrays.

The same numbers give the same bytes. matplotlib and Pillow are imported only by what draws.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sixfold.core.messages import printable
from sixfold.core.pipeline.page import Figure, Row

INK = "#010203"  # of figures.mplstyle
DASHES = ("-", "--", "-.", ":")
THEME = "<style>svg{color:#1b1b1b}@media(prefers-color-scheme:dark){svg{color:#e8e8e8}}</style>"
SMALL = 160  # pixels; smaller pictures are enlarged here, because browsers would smooth them
FILM_BYTES, FRAME_MS = 1_000_000, 100
# tried in turn until a film fits: WebP's quality, and n where every n-th frame is kept
FILM_QUALITIES = ((90, 1), (75, 1), (50, 1), (50, 2), (25, 2), (10, 4))


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
        quantity: Quantity on the vertical axis, with its unit.
        curves: Steps and values of each seed, by system; seeds share their steps, and a longer
            seed is cut to the shortest.
        seconds_per_step: Seconds per step of each system that was timed on this machine.
        over: Quantity on the horizontal axis.
    """
    seconds = {n: s for n, s in (seconds_per_step or {}).items() if n in curves}
    panels = [(over, dict.fromkeys(curves, 1.0))] + ([("seconds", seconds)] if seconds else [])
    with drawing(len(panels), 4.5, 3.2) as canvas:
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
                line = {"linestyle": DASHES[i % len(DASHES)], "marker": "o" * (length == 1)}
                axes.plot(x, mean, color=f"C{i}", label=_plain(system), **line)
                axes.fill_between(x, mean - spread, mean + spread, color=f"C{i}", alpha=0.2, lw=0)
            axes.set_xlabel(_plain(unit))
            axes.legend()
        canvas.axes[0].set_ylabel(_plain(quantity))
        image = svg(canvas)
    alt = f"{quantity} of {', '.join(curves)} over {' and over '.join(unit for unit, _ in panels)}"
    untimed = [system for system in curves if system not in seconds] if seconds else []
    notes = ["Mean over seeds; the band is one standard deviation."]
    notes *= any(len(seeds) > 1 for seeds in curves.values())
    notes += [f"Seconds not measured for {', '.join(untimed)}."] * bool(untimed)
    return Figure(name, alt, image, " ".join(notes))


def _plain(text: str) -> str:
    """Return a name as it can be drawn; a legend leaves out what begins with an underscore."""
    return printable(f" {text}" if text.startswith("_") else text)


def picture_row(
    name: str,
    caption: str,
    arrays: Mapping[str, Any],
    limits: tuple[float, float] | None = None,
    colour_map: str = "gray",
) -> Row:
    """Show pictures and films side by side, on one scale; what is not finite is black.

    Args:
        name: Beginning of the file names.
        caption: Content of the row; with a label, the alternative text of a panel.
        arrays: Pictures (height, width) or films (time, height, width) by label, in colour with a
            last axis of 3.
        limits: Values drawn darkest and brightest; by default the extremes of the row.
        colour_map: Colours of arrays without a colour axis, by matplotlib's name.

    Raises:
        ValueError: an array has another shape, or a film does not fit into `FILM_BYTES`.
    """
    values = {label: np.asarray(array, dtype=float) for label, array in arrays.items()}
    finite = np.concatenate([x[np.isfinite(x)] for x in values.values()])
    low, high = limits or ((finite.min(), finite.max()) if finite.size else (0.0, 1.0))
    panels = []
    for i, (label, x) in enumerate(values.items(), start=1):
        pixels = _pixels(label, (x - low) / (high - low or 1.0), colour_map)
        film = _film(label, pixels) if pixels.ndim == 4 else b""
        image = _encode(pixels[:1] if film else pixels[None], "PNG")
        panels.append(Figure(f"{name}-{i}", f"{caption}: {label}", image, label, film))
    return Row(caption, panels)


def _pixels(label: str, values: np.ndarray, colour_map: str) -> np.ndarray:
    """Draw values from 0 to 1 as bytes (..., height, width, colour)."""
    import matplotlib as mpl

    coloured = values.ndim > 2 and values.shape[-1] == 3
    if values.ndim - coloured not in (2, 3) or not values.size:
        raise ValueError(
            f"{label!r} must be shaped (height, width) or (time, height, width), with a last axis "
            f"of 3 if in colour, got {values.shape}"
        )
    if coloured:
        pixels = np.nan_to_num(values.clip(0, 1) * 255).round().astype(np.uint8)
    else:
        pixels = mpl.colormaps[colour_map](values, bytes=True)[..., :3]
    times = max(1, SMALL // max(pixels.shape[-3:-1]))
    return pixels.repeat(times, axis=-3).repeat(times, axis=-2)


def _film(label: str, frames: np.ndarray) -> bytes:
    """Encode a film in the best quality that fits into `FILM_BYTES`."""
    size = 0
    for quality, every in FILM_QUALITIES:
        shown = {"save_all": True, "loop": 0, "duration": FRAME_MS * every}
        film = _encode(frames[::every], "WEBP", quality=quality, **shown)
        if (size := len(film)) <= FILM_BYTES:
            return film
    raise ValueError(
        f"the film {label!r}, {frames.shape}, has {size} bytes at the lowest quality and must "
        f"have at most {FILM_BYTES}; give fewer or smaller frames"
    )


def _encode(frames: np.ndarray, kind: str, **settings: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    first, *others = map(Image.fromarray, frames)
    first.save(file, kind, append_images=others, **settings)
    return file.getvalue()


@contextmanager
def drawing(count: int, width: float, height: float) -> Iterator[Any]:
    """Lend a canvas of panels in one row, each of a size in inches."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context(fname=Path(__file__).with_name("figures.mplstyle")):
        canvas = Canvas(figsize=(width * count, height))
        canvas.subplots(1, count, sharey=True)
        yield canvas


def svg(canvas: Any) -> str:
    """Write a canvas as an image whose ink is the page's."""
    page = io.StringIO()
    canvas.savefig(page, format="svg", metadata={"Date": None})
    return page.getvalue().replace(INK, "currentColor").replace("<metadata>", f"{THEME}<metadata>")
