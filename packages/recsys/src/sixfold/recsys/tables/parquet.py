"""Parquet files by their row groups."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sixfold.core import UserError


@dataclass(frozen=True)
class RowGroup:
    """One row group of a file."""

    file: Path
    number: int
    rows: int

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Read some columns.

        Raises:
            UserError: the file is damaged.
        """
        try:
            return _open(self.file).read_row_group(self.number, columns=list(columns))
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{self.file} is damaged: {_first_line(error)}; get it again") from None


def list_row_groups(file: Path) -> tuple[list[str], list[RowGroup]]:
    """Return the names of the columns and the row groups of a file.

    Raises:
        UserError: the file is cut short or damaged.
    """
    with file.open("rb") as stream:
        stream.seek(-4, 2)
        if stream.read() != b"PAR1":
            raise UserError(f"{file} is cut short: its end is missing; get it again")
    _open.cache_clear()  # the file of that name may be another one by now
    try:
        opened = _open(file)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} is damaged: {_first_line(error)}; get it again") from None
    counts = [opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)]
    groups = [RowGroup(file, i, rows) for i, rows in enumerate(counts) if rows]
    return list(opened.schema_arrow.names), groups


@lru_cache(maxsize=8)
def _open(file: Path) -> pq.ParquetFile:
    """Open a file; its texts come as dictionaries, as it stores them, and need no hashing."""
    with native_file(file) as opened:
        schema = pq.read_schema(opened)
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    return pq.ParquetFile(native_file(file), read_dictionary=texts)


def native_file(path: Path, mode: str = "rb") -> pa.OSFile:
    """Open a file for pyarrow, which by itself refuses names that are not UTF-8."""
    return pa.OSFile(os.fsencode(path), mode)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")[:120]
