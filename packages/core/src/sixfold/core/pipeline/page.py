"""Tables, figures and sounds, and the page that shows them: what any domain's report is made of.

The same results give the same bytes. jinja2 is imported only by `write_page`.
"""

import math
import re
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.core.config import UserError
from sixfold.core.data.atomic import write_atomic

MISSING = "not measured"


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
    write_atomic(path, f"{head}{first}\n{text}\n{last}{tail}")


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
        write_atomic(folder / f"{figure.name}.svg", figure.svg)
    files = dict.fromkeys(sound.file for section in sections for sound in section.sounds)
    sounds = {file: f"sound-{i}.wav" for i, file in enumerate(files, start=1)}
    for file, name in sounds.items():
        shutil.copyfile(file, folder / name)
    template = Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    html = page.from_string(template).render(
        title=title, sections=sections, notice=notice, sounds=sounds, cell=cell
    )
    write_atomic(folder / "index.html", html)
    return folder / "index.html"
