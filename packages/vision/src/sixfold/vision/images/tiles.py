"""Cut a picture into tiles, each with the surrounding pixels that decide it."""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

MAX_PIXELS = 512 * 512  # of a tile with its surroundings: some 700 MB in CFSR's released size


class Tile(NamedTuple):
    """Rows and columns of a tile, and those of the tile with its surroundings."""

    rows: slice
    columns: slice
    seen_rows: slice
    seen_columns: slice

    def inner(self, scale: int) -> tuple[slice, slice]:
        """Return where the tile lies in the enlargement of what is seen."""
        return _within(self.rows, self.seen_rows, scale), _within(
            self.columns, self.seen_columns, scale
        )

    def outer(self, scale: int) -> tuple[slice, slice]:
        """Return where the tile lies in the enlarged picture."""
        rows, columns = self.rows, self.columns
        return slice(rows.start * scale, rows.stop * scale), slice(
            columns.start * scale, columns.stop * scale
        )


def _within(part: slice, seen: slice, scale: int) -> slice:
    return slice((part.start - seen.start) * scale, (part.stop - seen.start) * scale)


def cut(height: int, width: int, side: int, radius: int) -> Iterator[Tile]:
    """Cut a picture into tiles of at most a side, as equal as can be, from top to bottom.

    Args:
        height: Height of the picture in pixels.
        width: Width of the picture in pixels.
        side: Longest side of a tile, without surroundings.
        radius: Pixels around a tile that are seen with it, as far as the picture goes.
    """
    for rows, seen_rows in _spans(height, side, radius):
        for columns, seen_columns in _spans(width, side, radius):
            yield Tile(rows, columns, seen_rows, seen_columns)


def _spans(length: int, side: int, radius: int) -> Iterator[tuple[slice, slice]]:
    count = math.ceil(length / side)
    bounds = [i * length // count for i in range(count + 1)]
    for start, stop in itertools.pairwise(bounds):
        yield slice(start, stop), slice(max(0, start - radius), min(length, stop + radius))


def automatic_side(height: int, width: int, radius: int | None, pictures: int = 1) -> int:
    """Return the side of tiles that keep within memory; the longer side if no cut is needed.

    Args:
        height: Height of the picture in pixels.
        width: Width of the picture in pixels.
        radius: Pixels around a tile that are seen with it; None if a network cannot be tiled.
        pictures: Number of pictures that are enlarged at once.
    """
    pixels = MAX_PIXELS // pictures
    if radius is None or height * width <= pixels:
        return max(height, width)
    return max(math.isqrt(pixels) - 2 * radius, radius, 1)
