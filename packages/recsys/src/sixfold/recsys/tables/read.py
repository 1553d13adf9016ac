"""Read tables piece by piece: parquet by row groups, CSV and libsvm by blocks of lines, frames.

`open_source` lists the pieces; each is read by itself and in any order, so that memory holds one
piece and a reader can begin anywhere.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from sixfold.core import UserError
from sixfold.recsys.tables.parquet import list_row_groups
from sixfold.recsys.tables.schema import TextFormat
from sixfold.recsys.tables.text import list_csv_chunks, list_libsvm_chunks

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".libsvm": "libsvm",
    ".libfm": "libsvm",
    ".svm": "libsvm",
}
ARCHIVES = (".gz", ".zst", ".zip", ".bz2", ".xz")
FRAME_ROWS = 1 << 18  # of a piece of a table in memory


@dataclass(frozen=True)
class Block:
    """A piece of a table, read, which knows where it came from.

    Args:
        table: The piece.
        origin: Name of the file or frame.
        first_row: Number of the first row, from 1, a header not counted.
        rows: Row of each value, where the values are those of lists.
    """

    table: pa.Table
    origin: str
    first_row: int
    rows: np.ndarray | None = None

    def column(self, name: str) -> pa.Array:
        """Return one column, in one piece."""
        found = self.table.column(name).combine_chunks()
        return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found

    def where(self, column: str, row: int | None = None) -> str:
        """Phrase the place of a column, or of a cell in it, for an error."""
        text = f"{self.origin}: column {column!r}"
        if row is None:
            return text
        row = row if self.rows is None else int(self.rows[row])
        return f"{text}, row {self.first_row + row}"

    def of_lists(self, lengths: np.ndarray) -> "Block":
        """Return the block whose values are those of the rows' lists."""
        own = np.arange(len(lengths)) if self.rows is None else self.rows
        return replace(self, rows=np.repeat(own, lengths))

    def select(self, keep: np.ndarray) -> "Block":
        """Return the block with some of its rows; errors name rows by their old numbers."""
        rows = np.flatnonzero(keep)
        return replace(self, table=self.table.take(pa.array(rows)), rows=rows)


@runtime_checkable
class Chunk(Protocol):
    """A piece of a table that can be read by itself."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        ...

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Read some columns."""
        ...


@dataclass(frozen=True)
class Piece:
    """A chunk with its place in its file."""

    chunk: Chunk
    origin: str
    first_row: int


@dataclass(frozen=True)
class Source:
    """A table that is read piece by piece.

    Args:
        name: Name of the file, folder or frame.
        columns: Names of the columns.
        pieces: Pieces in the order of the rows.
        files: Files behind the table.
    """

    name: str
    columns: tuple[str, ...]
    pieces: tuple[Piece, ...]
    files: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return sum(piece.chunk.rows for piece in self.pieces)

    def read(self, number: int, columns: Sequence[str]) -> Block:
        """Read some columns of one piece."""
        piece = self.pieces[number]
        return Block(piece.chunk.read(columns), piece.origin, piece.first_row)

    def blocks(self, columns: Sequence[str], keep: np.ndarray | None = None) -> Iterator[Block]:
        """Yield some columns, piece by piece.

        Args:
            columns: Names of the columns.
            keep: Whether each row is taken; None takes all.
        """
        first = 0
        for number, piece in enumerate(self.pieces):
            rows = None if keep is None else keep[first : first + piece.chunk.rows]
            first += piece.chunk.rows
            if rows is None or rows.all():
                yield self.read(number, columns)
            elif rows.any():
                yield self.read(number, columns).select(rows)

    def check(self, needed: Sequence[str]) -> None:
        """Check that columns are there.

        Raises:
            UserError: one is missing.
        """
        for name in needed:
            if name not in self.columns:
                near = difflib.get_close_matches(name, self.columns, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise UserError(
                    f"{self.name} has no column {name!r}; {hint}it has: {', '.join(self.columns)}"
                )


@dataclass(frozen=True)
class _Frame:
    table: pa.Table

    @property
    def rows(self) -> int:
        return self.table.num_rows

    def read(self, columns: Sequence[str]) -> pa.Table:
        return self.table.select(list(columns))


def open_source(data: Any, text: TextFormat | None = None) -> Source:
    """Open a table: a file, a folder of files, a frame, or rows as mappings.

    Args:
        data: Path of a parquet, CSV or libsvm file or of a folder of such, whose empty parts are
            passed over; an arrow table, a polars or pandas frame, or a mapping from names to
            arrays; or a list of mappings from names to values.
        text: Format of CSV and libsvm files.

    Raises:
        UserError: there is no such file or it is empty, cut short or of another format than its
            name says; the files of a folder differ in their columns; a column name is repeated.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, str | Path):
        return _open_files(Path(data), text or TextFormat())
    table = _to_table(data)
    _refuse_twice(table.column_names, "the table")
    starts = range(0, table.num_rows, FRAME_ROWS)
    pieces = [Piece(_Frame(table.slice(i, FRAME_ROWS)), "the table", i + 1) for i in starts]
    return Source("the table", tuple(table.column_names), tuple(pieces))


def _open_files(path: Path, text: TextFormat) -> Source:
    files = _list_files(path)
    pieces: list[Piece] = []
    names: list[str] | None = None
    for file in files:
        columns, chunks = _chunks(file, text)
        _refuse_twice(columns, str(file))
        if names is not None and set(columns) != set(names):
            differing = ", ".join(sorted(set(columns) ^ set(names)))
            raise UserError(f"{file} and {files[0]} differ in their columns: {differing}")
        names = names or list(columns)
        row = 1
        for chunk in chunks:
            pieces.append(Piece(chunk, str(file), row))
            row += chunk.rows
    if not pieces:
        raise UserError(f"{path} is empty: it has columns and no rows")
    assert names is not None  # there is a file
    return Source(str(path), tuple(names), tuple(pieces), tuple(files))


def _chunks(file: Path, text: TextFormat) -> tuple[Sequence[str], Sequence[Chunk]]:
    kind = FORMATS.get(file.suffix.lower())
    if kind is None:
        mend = "unpack it" if file.suffix.lower() in ARCHIVES else "rename it for what it is"
        raise UserError(f"{file}: files end in {', '.join(FORMATS)}; {mend}")
    found = _sniff(file)
    if found != (kind if kind == "parquet" else "text"):
        raise UserError(f"{file} is no {kind} file by its content, but {found}; {_mend(found)}")
    if kind == "parquet":
        return list_row_groups(file)
    if kind == "libsvm":
        return list_libsvm_chunks(file, text)
    return list_csv_chunks(file, text, "\t" if file.suffix.lower() == ".tsv" else text.separator)


def _list_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"there is no file or folder {path}")
    files = [f for f in sorted(path.rglob("*")) if f.is_file() and f.suffix.lower() in FORMATS]
    kinds = {FORMATS[file.suffix.lower()] for file in files}
    if len(kinds) != 1:
        what = "files of several formats" if kinds else f"no file ending in {', '.join(FORMATS)}"
        raise UserError(f"the folder {path} holds {what}; name a file, or a folder of one format")
    return files


def _sniff(file: Path) -> str:
    """Return what a file is by its first bytes.

    Raises:
        UserError: it is empty.
    """
    with file.open("rb") as stream:
        start = stream.read(4096)
    if not start.strip():
        raise UserError(f"{file} is empty")
    for magic, name in MAGIC.items():
        if start.startswith(magic):
            return name
    return "a binary file of another format" if b"\0" in start else "text"


MAGIC = {
    b"PAR1": "parquet",
    b"\x1f\x8b": "a gzip archive",
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"ARROW1": "an arrow file",
}


def _mend(found: str) -> str:
    if "archive" in found:
        return "unpack it"
    if found in ("parquet", "text"):
        return f"rename it to end in {'.parquet' if found == 'parquet' else '.csv'}"
    return "convert it to parquet"


def _to_table(data: Any) -> pa.Table:
    if isinstance(data, pa.RecordBatch) or hasattr(data, "__arrow_c_stream__"):
        return _from_frame(data)
    if isinstance(data, Mapping) and data:
        return _from_columns(data)
    if isinstance(data, Sequence) and not isinstance(data, str) and len(data):
        if not all(isinstance(row, Mapping) for row in data):
            raise UserError("rows should be mappings from the names of columns to values")
        return _from_rows(data)
    raise UserError(
        f"a table is a path, an arrow table, a frame, a dict of arrays or a list of rows, none of "
        f"which is {'an empty ' if isinstance(data, list | dict) else ''}{type(data).__name__}"
    )


def _from_frame(frame: Any) -> pa.Table:
    try:
        table = pa.table(frame)
        return table.cast(pa.schema([field.with_type(_kept(field.type)) for field in table.schema]))
    except (pa.ArrowException, ValueError, TypeError) as error:
        reason = " ".join(map(str, error.args)).partition("\n")[0]
        raise UserError(
            f"the table cannot be read: {reason}; give each column one type and one name"
        ) from None


def _from_columns(columns: Mapping[str, Any]) -> pa.Table:
    for name, values in columns.items():
        if not hasattr(values, "__len__"):
            kind = type(values).__name__
            raise UserError(
                f"the table's column {name!r} is no array or list of values, but {kind}"
            )
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"the table's columns differ in their numbers of rows: {found}")
    # arrow takes arrays of one axis only; those of two are lists of rows
    return pa.table({n: _array(v if np.ndim(v) == 1 else list(v)) for n, v in columns.items()})


def _kept(kind: pa.DataType) -> pa.DataType:
    """Return the type to read a column of a type as: text views, which arrow cannot take, as text.

    Views are what polars hands on, in lists and categoricals too.
    """
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _kept(kind.value_type), kind.ordered)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.large_list(_kept(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_kept(kind.value_type), kind.list_size)
    return kind


def _from_rows(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Build a table of rows; a column is there if any row has it, and null in the others."""
    names = dict.fromkeys(name for row in rows for name in row)
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise UserError(f"rows map the names of columns to values, and {wrong[0]!r:.80} is no name")
    return pa.table({name: _array([row.get(name) for row in rows]) for name in names})


def _array(values: Any) -> pa.Array:
    for kind in (None, pa.uint64()):
        try:
            return pa.array(values, kind)
        except (pa.ArrowException, OverflowError):
            continue
    return pa.array([None if v is None else str(v) for v in values], pa.large_string())


def _refuse_twice(names: Sequence[str], where: str) -> None:
    if twice := sorted({name for name in names if list(names).count(name) > 1}):
        raise UserError(f"{where} has the column {', '.join(twice)} more than once; rename one")
