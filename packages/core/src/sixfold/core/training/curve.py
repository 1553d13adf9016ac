"""The curve of a run: a CSV file that grows by a row at a time and can be cut back."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from sixfold.core.data.atomic import write_atomic


class Curve:
    """A CSV of ``step`` and named values with 9 significant digits; blank where not logged.

    Columns stand in the order of their first appearance. Same calls, same bytes, with or without
    kills and cuts in between.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[dict[str, str]] = []
        self._columns: dict[str, None] = {}
        self._last_step = -1
        self._file: TextIO | None = None

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Write one row, of a step above the last one, and hand it to the operating system."""
        if step <= self._last_step:
            raise ValueError(f"step {step} was logged after step {self._last_step}")
        row = {"step": str(step)} | {name: f"{value:.9g}" for name, value in values.items()}
        self._rows.append(row)
        self._last_step = step
        if self._file is None or not row.keys() <= self._columns.keys():
            self._rewrite()  # under a new header
        else:
            self._file.write(self._line(row))
            self._file.flush()

    def cut(self, step: int) -> None:
        """Drop the rows after ``step``, and a row that a kill left unfinished."""
        lines = self.path.read_text(encoding="utf-8").split("\n") if self.path.is_file() else [""]
        header, *rows = (line.split(",") for line in lines[:-1] or ["step"])
        named = [dict(zip(header, row, strict=False)) for row in rows if row[0].isdigit()]
        self._rows = [
            {name: cell for name, cell in row.items() if cell}
            for row in named
            if int(row["step"]) <= step
        ]
        self._last_step = step
        self._rewrite()

    def sync(self) -> None:
        """Wait until the disk has every row."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; the next row opens the file again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _line(self, row: Mapping[str, str]) -> str:
        return ",".join(row.get(name, "") for name in self._columns) + "\n"

    def _rewrite(self) -> None:
        self.close()
        self._columns = dict.fromkeys(["step", *(name for row in self._rows for name in row)])
        if self._rows:
            lines = [",".join(self._columns) + "\n", *map(self._line, self._rows)]
            write_atomic(self.path, "".join(lines))
            self._file = self.path.open("a", encoding="utf-8", newline="")
        else:
            self.path.unlink(missing_ok=True)
