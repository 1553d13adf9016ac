"""CSV and libsvm files by blocks of lines, which an index of one pass finds.

Every CSV cell is read as text: what it means is the schema's business, and "007" or 2^64 - 1 are
not numbers that a reader may round.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pv

from sixfold.core import UserError
from sixfold.recsys.tables.schema import TextFormat

BLOCK_BYTES = 1 << 23
BOM = b"\xef\xbb\xbf"
NEWLINE, RETURN, QUOTE = b'\n\r"'


@dataclass(frozen=True)
class Lines:
    """Some whole lines of a file."""

    file: Path
    start: int
    stop: int
    rows: int

    def text(self) -> bytes:
        """Read the lines."""
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            return stream.read(self.stop - self.start)


@dataclass(frozen=True)
class CsvChunk:
    """Some lines of a CSV file."""

    lines: Lines
    names: tuple[str, ...]
    separator: str
    first_row: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.lines.rows

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Read some columns, as texts.

        Raises:
            UserError: a row has too few or too many cells, or the text is not UTF-8.
        """
        text = self.lines.text()
        self._check_utf8(text)
        wrong: list[pv.InvalidRow] = []

        def note(row: pv.InvalidRow) -> str:
            wrong.append(row)
            return "error"

        types = dict.fromkeys(columns, pa.large_string())
        try:
            return pv.read_csv(
                pa.BufferReader(text),
                pv.ReadOptions(use_threads=False, column_names=list(self.names)),
                pv.ParseOptions(
                    delimiter=self.separator,
                    newlines_in_values=True,
                    invalid_row_handler=note,
                ),
                pv.ConvertOptions(
                    column_types=types, include_columns=list(columns), strings_can_be_null=False
                ),
            )
        except pa.ArrowInvalid as error:
            if not wrong:
                reason = str(error).partition("\n")[0][:120]
                raise UserError(f"{self.lines.file} cannot be read: {reason}") from None
            number = self.first_row + (wrong[0].number or 1) - 1
            raise UserError(
                f"{self.lines.file}, row {number} has {wrong[0].actual_columns} cells instead of "
                f"{wrong[0].expected_columns}: {wrong[0].text[:60]!r}"
            ) from None

    def _check_utf8(self, text: bytes) -> None:
        try:
            text.decode()
        except UnicodeDecodeError as error:
            row = self.first_row + text.count(b"\n", 0, error.start)
            line = text[text.rfind(b"\n", 0, error.start) + 1 :].partition(b"\n")[0]
            raise UserError(
                f"{self.lines.file}, row {row}: the text is not UTF-8: {line[:40]!r}; save the "
                "file as UTF-8"
            ) from None


@dataclass(frozen=True)
class LibsvmChunk:
    """Some lines of a libsvm, libfm or libffm file."""

    lines: Lines
    names: tuple[str, ...]
    first_row: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.lines.rows

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Read some columns: the label, the list ``features``, or one column an entry.

        Raises:
            UserError: a row has another number of entries than there are names, or an entry is not
                ``index:1``.
        """
        parts = pl.Series("row", _filled_lines(self.lines.text()), pl.String)
        parts = parts.str.strip_chars().str.replace_all(r"\s+", " ").str.split(" ")
        label = parts.list.first().replace({"-1": "0", "+1": "1", "-1.0": "0"})
        entries = parts.list.slice(1)
        indices = entries.list.eval(pl.element().str.extract(r"^(?:\d+:)?(\d+):1(?:\.0*)?$"))
        self._check(entries, indices)
        found = {self.names[0]: label}
        if self.names[1:] == ("features",):
            found["features"] = indices.cast(pl.List(pl.Int64))
        else:
            for place, name in enumerate(self.names[1:]):
                found[name] = indices.list.get(place).cast(pl.Int64)
        return pl.DataFrame({name: found[name] for name in columns}).to_arrow()

    def _check(self, entries: pl.Series, indices: pl.Series) -> None:
        bad = indices.list.eval(pl.element().is_null()).list.any()
        if bad.any():
            row = int(bad.arg_max() or 0)
            entry = entries[row][int(indices[row].is_null().arg_max() or 0)]
            raise UserError(
                f"{self.lines.file}, row {self.first_row + row}: {entry[:40]!r} is not index:1; "
                "numeric entries are columns of their own: convert the file to CSV"
            )
        if self.names[1:] == ("features",):
            return
        wrong = entries.list.len() != len(self.names) - 1
        if wrong.any():
            row = int(wrong.arg_max() or 0)
            raise UserError(
                f"{self.lines.file}, row {self.first_row + row} has {len(entries[row])} entries, "
                f"but text.names has {len(self.names) - 1} besides the label; without names the "
                "entries are one multivalued column, `features`"
            )


def list_csv_chunks(
    file: Path, text: TextFormat, separator: str
) -> tuple[list[str], list[CsvChunk]]:
    """Return the names of the columns and the blocks of lines of a CSV file."""
    begin, names = _header(file, separator)
    if text.names is not None:
        begin, names = 0, list(text.names)
    chunks, row = [], 1
    for lines in _index(file, begin, separator):
        chunks.append(CsvChunk(lines, tuple(names), separator, row))
        row += lines.rows
    return names, chunks


def list_libsvm_chunks(file: Path, text: TextFormat) -> tuple[list[str], list[LibsvmChunk]]:
    """Return the names of the columns and the blocks of lines of a libsvm file."""
    names = text.names or ("label", "features")
    with file.open("rb") as stream:
        begin = len(BOM) if stream.read(len(BOM)) == BOM else 0
    chunks, row = [], 1
    for lines in _index(file, begin, separator=None):
        chunks.append(LibsvmChunk(lines, names, row))
        row += lines.rows
    return list(names), chunks


def _header(file: Path, separator: str) -> tuple[int, list[str]]:
    """Return where the first line that is not empty ends, and the names in it."""
    begin = 0

    def lines(stream: BinaryIO) -> Iterator[str]:
        nonlocal begin
        for line in stream:
            text = line if begin else line.removeprefix(BOM)
            begin += len(line)
            yield text.decode("utf-8", "replace")

    with file.open("rb") as stream:
        try:
            names = next(filter(None, csv.reader(lines(stream), delimiter=separator)), [])
        except csv.Error:
            raise UserError(f"{file}: the header is no line; end lines by LF or CRLF") from None
    return begin, [name.strip() for name in names]


def _index(file: Path, begin: int, separator: str | None) -> Iterator[Lines]:
    """Yield blocks of whole lines; a line end within quotes is none.

    Args:
        file: Path of the file.
        begin: Position of the first line.
        separator: Character between cells; None where quotes have no meaning.

    Raises:
        UserError: quotes are opened and not closed.
    """
    count = _count_filled if separator is None else _count_rows
    row = 1
    with file.open("rb") as stream:
        stream.seek(begin)
        held, start = b"", begin
        while True:
            more = stream.read(BLOCK_BYTES)
            held += more
            codes = np.frombuffer(held, np.uint8)
            ends = np.flatnonzero(codes == NEWLINE)
            if separator is not None and len(marks := _quotes(codes, separator)):
                ends = ends[np.searchsorted(marks, ends) % 2 == 0]
                if not more and len(marks) % 2:
                    row += _count_rows(codes[: marks[-1] + 1], ends[ends < marks[-1]]) - 1
                    raise UserError(f"{file}, row {row}: quotes are opened and not closed")
            stop = len(held) if not more else (int(ends[-1]) + 1 if ends.size else 0)
            if stop and (rows := count(codes[:stop], ends)):
                yield Lines(file, start, start + stop, rows)
                row += rows
            held, start = held[stop:], start + stop
            if not more:
                return


def _quotes(codes: np.ndarray, separator: str) -> np.ndarray:
    """Return the places of the quotes that open and close, in turn; a doubled one does both.

    A quote opens at the start of a cell only: in ``27" screen`` it is a letter.
    """
    marks = np.flatnonzero(codes == QUOTE)
    before = codes[marks - 1]
    opens = (marks == 0) | (before == NEWLINE) | (before == ord(separator))
    doubled = np.diff(marks, prepend=-2) == 1
    if (opens | doubled)[::2].all():
        return marks
    kept: list[int] = []
    for mark, is_start in zip(marks.tolist(), opens.tolist(), strict=True):
        closes = len(kept) % 2
        if closes or is_start or (kept and kept[-1] == mark - 1):
            kept.append(mark)
    return np.array(kept, np.int64)


def _count_rows(codes: np.ndarray, ends: np.ndarray) -> int:
    """Count the lines that are not empty."""
    if len(ends) == 0 or ends[-1] != len(codes) - 1:
        ends = np.append(ends, len(codes))  # the last line has no end
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends - starts
    returns = (lengths == 1) & (codes[np.minimum(starts, len(codes) - 1)] == RETURN)
    return int(((lengths > 0) & ~returns).sum())


def _count_filled(codes: np.ndarray, _: np.ndarray) -> int:
    """Count the lines that hold more than blanks."""
    return len(_filled_lines(codes.tobytes()))


def _filled_lines(text: bytes) -> list[str]:
    lines = text.decode("utf-8", "replace").split("\n")
    return [line for line in lines if line.strip()]
