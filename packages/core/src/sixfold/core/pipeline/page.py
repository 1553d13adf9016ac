"""Tables, figures and sounds, and the page that shows them: what a report is made of.

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
from sixfold.core.data.atomic import atomic_folder, write_atomic
from sixfold.core.messages import printable

MISSING = "not measured"
PUNCTUATION = r"[!-/:-@\[-`{-~]"
# Only what a reader of Markdown would take for markup: a name keeps its underscores.
MARKUP = re.compile(
    rf"[`|\[]|\\(?={PUNCTUATION})|\*(?=\S)|(?<!\w)_(?=\S)|~(?=~)|<(?=[A-Za-z/!?])|&(?=#?\w+;)"
)


@dataclass(frozen=True)
class Table:
    """Rows under named columns; a value of None reads ``not measured``."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Figure:
    """An image, its content in words (for those who cannot see it), and a caption if it needs one.

    The image is the text of an SVG or the bytes of a PNG; a film is an animated WebP besides, whose
    first frame the image is: for print, and for those who asked for less motion.
    """

    name: str
    alt: str
    image: str | bytes
    caption: str = ""
    film: bytes = b""

    @property
    def files(self) -> dict[str, str | bytes]:
        """Content of the image's file and, of a film, of the film's, by name."""
        image = {f"{self.name}.{'svg' if isinstance(self.image, str) else 'png'}": self.image}
        return image | ({f"{self.name}.webp": self.film} if self.film else {})


@dataclass(frozen=True)
class Row:
    """Pictures and films that stay in one row, at any number."""

    caption: str
    panels: Sequence[Figure]


@dataclass(frozen=True)
class Sound:
    """A WAV file, copied next to the page."""

    caption: str
    file: Path


@dataclass(frozen=True)
class Section:
    """One heading of the page; ``text`` is plain, with an empty line between paragraphs.

    A section titled "A: b" that follows the section "A" is shown as a part of it. A ``timed`` one,
    of seconds on this machine, is for the page alone.
    """

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    pictures: Sequence[Row] = ()
    sounds: Sequence[Sound] = ()
    timed: bool = False


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
    """Write rows as a Markdown table; a column that a row lacks reads ``not measured``.

    Markup in a cell is shown, not obeyed.
    """
    cells = [[cell(row.get(column)) for column in columns] for row in rows]
    lines = [list(columns), ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def read_markdown_table(path: Path) -> Table:
    """Read a page that holds one table, such as a benchmark's; its title becomes the caption."""
    title, *lines = path.read_text(encoding="utf-8").splitlines()
    cells = (re.findall(r"((?:\\.|[^\\|])*)\|", line[1:]) for line in lines if line.startswith("|"))
    rows = [[re.sub(rf"\\({PUNCTUATION})", r"\1", text.strip()) for text in row] for row in cells]
    columns, _, *values = rows
    return Table(title.strip("# "), columns, [dict(zip(columns, v, strict=True)) for v in values])


def _escaped(text: str) -> str:
    line = printable(re.sub(r"\s*\n\s*", " ", text))
    return MARKUP.sub(r"\\\g<0>", line)


def replace_between_markers(path: Path, name: str, text: str) -> None:
    """Put text between the lines ``<!-- name -->`` and ``<!-- /name -->`` of a file.

    Raises:
        UserError: the file has not exactly one such pair.
    """
    markers = [f"<!-- {name} -->", f"<!-- /{name} -->"]
    head, *rest = re.split(f"({'|'.join(map(re.escape, markers))})", path.read_text("utf-8"))
    if rest[::2] != markers:
        raise UserError(f"{path} needs one line {markers[0]} and, below it, one line {markers[1]}")
    write_atomic(path, f"{head}{markers[0]}\n{text}\n{markers[1]}{rest[-1]}")


def _printable(value: Any) -> Any:
    """Return what a page shows of a value; what a template made is of a class of its own."""
    return "\n".join(map(printable, value.split("\n"))) if type(value) is str else value


def write_page(folder: Path, title: str, sections: Sequence[Section], notice: str = "") -> Path:
    """Write ``index.html`` and the files that it shows to a folder, in the place of what it held.

    The page works without a network; ``notice`` stands above everything else on it.
    """
    import jinja2

    figures = [figure for section in sections for figure in section.figures]
    figures += [panel for s in sections for row in s.pictures for panel in row.panels]
    if len({figure.name for figure in figures}) < len(figures):
        raise ValueError(f"two figures of {title!r} have the same name")
    files = dict.fromkeys(sound.file for section in sections for sound in section.sounds)
    sounds = {file: f"sound-{i}.wav" for i, file in enumerate(files, start=1)}
    template = Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, finalize=_printable
    )
    shown = {"title": title, "sections": sections, "notice": notice, "sounds": sounds, "cell": cell}
    with atomic_folder(folder) as partial:
        text = page.from_string(template).render(shown)
        (partial / "index.html").write_text(text, encoding="utf-8")
        for figure in figures:
            for name, content in figure.files.items():
                data = content.encode() if isinstance(content, str) else content
                (partial / name).write_bytes(data)
        for file, name in sounds.items():
            shutil.copyfile(file, partial / name)
    return folder / "index.html"
