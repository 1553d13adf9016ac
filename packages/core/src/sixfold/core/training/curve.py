"""The curve of a run: a CSV file that grows by a row at a time and can be cut back."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from sixfold.core.training.checkpoint import replace


class Curve:
    """A CSV of ``step`` and named values with 9 significant digits; blank where not logged.

    Columns stand in the order of their first appearance; a new one is added to the rows before it.
    Same calls, same bytes, with or without kills and cuts in between.

    Args:
        path: The file; made at the first row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None
        self._last_step = -1
        self._columns = ["step"]
        if path.is_file():
            self._columns = path.read_text(encoding="utf-8").split("\n", 1)[0].split(",")

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Write one row and hand it to the operating system.

        Raises:
            ValueError: the step is not above the last one.
        """
        if step <= self._last_step:
            raise ValueError(f"step {step} was logged after step {self._last_step}")
        if new := [name for name in values if name not in self._columns]:
            self._widen(new)
        if self._file is None:
            self._file = self.path.open("a", encoding="utf-8", newline="")
        cells = [f"{values[name]:.9g}" if name in values else "" for name in self._columns[1:]]
        self._file.write(",".join([str(step), *cells]) + "\n")
        self._file.flush()
        self._last_step = step

    def cut(self, step: int) -> None:
        """Drop the rows after ``step``, and a row that a kill left unfinished."""
        self.close()
        self._last_step = step
        if not self.path.is_file():
            return
        header, *rows = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        kept = [row for row in rows if row[:1].isdigit() and int(row.split(",", 1)[0]) <= step]
        self._replace([header, *kept] if kept else [])

    def sync(self) -> None:
        """Wait until the disk has every row."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; the next row opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _widen(self, new: list[str]) -> None:
        self.close()
        rows = (
            self.path.read_text(encoding="utf-8").split("\n")[1:-1] if self.path.is_file() else []
        )
        self._columns += new
        self._replace([",".join(self._columns), *(row + "," * len(new) for row in rows)])

    def _replace(self, lines: list[str]) -> None:
        if not lines:
            self._columns = ["step"]
            self.path.unlink()
            return
        replace(self.path, "".join(line + "\n" for line in lines).encode())
