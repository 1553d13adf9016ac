"""A whole table, encoded, in memory: four bytes a value."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sixfold.core import UserError
from sixfold.recsys.tables.encode import EncodingReport
from sixfold.recsys.tables.encoder import Encoder, to_tensors
from sixfold.recsys.tables.read import Source, open_source
from sixfold.recsys.tables.schema import Schema


class EncodedTable:
    """Encoded rows, taken by their numbers: a data set of `sixfold.core.training.fit.fit`.

    Args:
        arrays: Columns, of one length: ids as int32, the others as float32.
        report: What encoding did with values that it did not know.
    """

    def __init__(self, arrays: dict[str, np.ndarray], report: EncodingReport | None = None) -> None:
        self.arrays, self.report = arrays, report or EncodingReport()
        self._tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}

    @classmethod
    def read(
        cls, data: Any, encoder: Encoder, keep: np.ndarray | None = None, *, targets: bool = True
    ) -> "EncodedTable":
        """Read and encode a table.

        Args:
            data: Table; see `sixfold.recsys.tables.read.open_source`.
            encoder: Fitted schema.
            keep: Whether each row is taken; None takes all.
            targets: Whether labels and weights are read.
        """
        source = open_source(data, encoder.schema.text)
        report = EncodingReport()
        needed = needed_columns(encoder.schema, targets)
        source.check(needed)
        parts = [
            encoder.encode(block, report, targets=targets) for block in source.blocks(needed, keep)
        ]
        if not parts:
            raise UserError(f"{source.name}: no row is left; check the share of rows to keep")
        return cls({name: np.concatenate([p[name] for p in parts]) for name in parts[0]}, report)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return some rows as a model's batch."""
        rows = torch.as_tensor(indices)
        found = {name: tensor[rows] for name, tensor in self._tensors.items()}
        return {n: t if t.is_floating_point() else t.long() for n, t in found.items()}

    def batches(self, size: int) -> Iterator[dict[str, Tensor]]:
        """Yield all rows in their order, as a model's batches."""
        for first in range(0, len(self), size):
            yield to_tensors({n: a[first : first + size] for n, a in self.arrays.items()})


def needed_columns(schema: Schema, targets: bool) -> list[str]:
    """List the columns of a table to read: inputs and, if asked for, labels and weights."""
    names = schema.needed(labels=False)
    names += [*schema.labels, *filter(None, [schema.weight])] if targets else []
    return list(dict.fromkeys(names))


def encoded_bytes(source: Source, encoder: Encoder) -> int:
    """Return how much memory an encoded table takes."""
    lengths = (column.max_length or 1 for column in encoder.schema.columns.values())
    return 4 * len(source) * (sum(lengths) + len(encoder.schema.labels) + 1)
