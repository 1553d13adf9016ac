"""Train from a table that does not fit into memory: shuffled pieces, then rows of a window of them.

The order is a function of the seed alone, so that a reader begins at any row and several processes
agree on it without a word. What a process holds is one window, and the next, which a thread
prepares meanwhile.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.training.sampling import derive_seed
from sixfold.recsys.tables.encoder import Encoder, to_tensors
from sixfold.recsys.tables.memory import needed_columns
from sixfold.recsys.tables.read import open_source

WINDOW_ROWS = 1 << 18


class Order(NamedTuple):
    """The order of one epoch: the pieces of each window, and the position at which it starts."""

    seed: int
    windows: list[np.ndarray]
    starts: np.ndarray


class TableStream:
    """A table as a data set of `sixfold.core.training.fit.fit` that streams.

    An epoch takes the pieces (row groups, blocks of lines) in random order and fills a window with
    whole ones; the rows of a window are shuffled.

    Args:
        data: Table; see `sixfold.recsys.tables.read.open_source`.
        encoder: Fitted schema.
        keep: Whether each row is taken; None takes all.
        window: Number of rows that a window has at least, if the table has them.

    Raises:
        UserError: a column is missing, or no row is taken.
    """

    def __init__(
        self,
        data: Any,
        encoder: Encoder,
        keep: np.ndarray | None = None,
        window: int = WINDOW_ROWS,
    ) -> None:
        self.source = open_source(data, encoder.schema.text)
        self.encoder, self.window = encoder, window
        self._needed = needed_columns(encoder.schema, targets=True)
        self.source.check(self._needed)
        rows = [piece.chunk.rows for piece in self.source.pieces]
        bounds = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)
        self._keep = None if keep is None else np.split(keep, bounds[1:-1])
        counts = rows if self._keep is None else [int(part.sum()) for part in self._keep]
        self._counts = np.array(counts, np.int64)
        if len(self) == 0:
            raise UserError(f"{self.source.name}: no row is left; check the share of rows to keep")
        self._order: Order | None = None
        self._ready: dict[tuple[int, int], Future[dict[str, np.ndarray]]] = {}
        self._reader: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return int(self._counts.sum())

    def at(self, positions: Sequence[int], seed: int) -> dict[str, Tensor]:
        """Return the rows at ascending positions of the order that belongs to a seed."""
        order = self._order_of(seed)
        places = np.asarray(positions, np.int64)
        windows = np.searchsorted(order.starts, places, side="right") - 1
        parts = []
        for number in np.unique(windows):
            rows = places[windows == number] - order.starts[number]
            encoded = self._window(order, int(number))
            parts.append({name: array[rows] for name, array in encoded.items()})
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return to_tensors(joined)

    def _order_of(self, seed: int) -> Order:
        if self._order is None or self._order.seed != seed:
            pieces = np.random.default_rng(seed).permutation(np.flatnonzero(self._counts))
            ends = np.cumsum(self._counts[pieces])
            # a window ends with the piece that fills it
            full = ends // self.window > (ends - self._counts[pieces]) // self.window
            windows = np.split(pieces, np.flatnonzero(full[:-1]) + 1)
            rows = [int(self._counts[window].sum()) for window in windows]
            self._order = Order(seed, windows, np.concatenate([[0], np.cumsum(rows)[:-1]]))
        return self._order

    def _window(self, order: Order, number: int) -> dict[str, np.ndarray]:
        """Return a window's rows, shuffled, and have the next one prepared."""
        wanted = [(order.seed, n) for n in (number, number + 1) if n < len(order.windows)]
        for key in [key for key in self._ready if key not in wanted]:
            self._ready.pop(key).cancel()
        for key in wanted:
            if key not in self._ready:
                self._reader = self._reader or ThreadPoolExecutor(1, "table-stream")
                self._ready[key] = self._reader.submit(self._read, order, key[1])
        return self._ready[wanted[0]].result()

    def _read(self, order: Order, number: int) -> dict[str, np.ndarray]:
        parts = [self._read_piece(int(piece)) for piece in order.windows[number]]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        length = len(next(iter(joined.values())))
        mixed = np.random.default_rng(derive_seed(order.seed, "window", number)).permutation(length)
        return {name: array[mixed] for name, array in joined.items()}

    def _read_piece(self, piece: int) -> dict[str, np.ndarray]:
        block = self.source.read(piece, self._needed)
        if self._keep is not None and not self._keep[piece].all():
            block = block.select(self._keep[piece])
        return self.encoder.encode(block, targets=True)
