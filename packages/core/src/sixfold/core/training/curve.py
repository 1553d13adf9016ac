"""The curve of a run: a CSV file that grows by a row at a time and can be cut back."""

import errno
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path

from sixfold.core.config import UserError
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
        self._file: FileIO | None = None

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
            line = self._line(row).encode()
            if self._file.write(line) < len(line):  # the end of what fits on the disk
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def cut(self, step: int) -> None:
        """Drop the rows after ``step``, and a row that a kill left unfinished.

        Raises:
            UserError: the file is damaged.
        """
        named = read_curve(self.path) if step >= 0 and self.path.is_file() else []
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
            # without a buffer, whose rest would be written when it is closed, and fail again
            self._file = self.path.open("ab", buffering=0)
        else:
            self.path.unlink(missing_ok=True)


def read_curve(path: Path) -> list[dict[str, str]]:
    """Read the finished rows of a curve, by column; blank where nothing was logged.

    Raises:
        UserError: the file is damaged.
    """
    # after a power failure what was not synchronised yet may read as zeros
    *lines, _ = path.read_bytes().rstrip(b"\0").split(b"\n")
    columns: list[str] = []
    rows: list[dict[str, str]] = []
    last = -1.0
    for number, line in enumerate(lines or [b""]):
        try:
            cells = line.decode().split(",")
            if number == 0:
                columns, good = cells, cells[0] == "step" and len({*cells}) == len(cells)
            else:
                rows.append(dict(zip(columns, cells, strict=True)))
                step, *_ = [float(cell or "nan") for cell in cells]
                last, good = step, step > last
        except ValueError:
            good = False
        if not good:
            raise UserError(
                f"{path} is damaged in line {number + 1}; delete the run folder {path.parent} to "
                "train again"
            )
    return rows
