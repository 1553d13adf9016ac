"""One block of a table as a model takes it: ids, padded lists of ids, numbers, labels.

Files, frames and rows all come through here, while training and after it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa
from jaxtyping import Float, Int

from sixfold.core import UserError
from sixfold.core.memory import check_memory
from sixfold.recsys.tables.preprocess import TRANSFORMS
from sixfold.recsys.tables.read import Block
from sixfold.recsys.tables.schema import QUANTILES, Column, Schema
from sixfold.recsys.tables.values import Lists, normalise, plain, split_lists, to_floats
from sixfold.recsys.tables.vocabulary import Vocabulary


@dataclass(frozen=True)
class Quantiles:
    """Buckets of equal counts in the training data: bucket b begins at ``boundaries[b - 2]``."""

    boundaries: Float[np.ndarray, " boundaries"]

    @property
    def size(self) -> int:
        """Number of ids: padding, buckets, and the one of missing values."""
        return len(self.boundaries) + 3

    def encode(self, values: Float[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
        """Return the bucket of each value, from 1; nan has the last id."""
        buckets = np.searchsorted(self.boundaries, values, side="right") + 1
        return np.where(np.isnan(values), self.size - 1, buckets)


Rule = Vocabulary | Quantiles


@dataclass
class EncodingReport:
    """What encoding had to do with values that it did not know.

    Args:
        rows: Number of rows.
        values: Number of values of each categorical or list column.
        unknown: Number of those without an id, missing ones included.
        filled: Number of missing numbers that the schema's rule filled.
        cut: Number of lists longer than ``max_length``.
    """

    rows: int = 0
    values: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    filled: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)

    def unknown_shares(self) -> dict[str, float]:
        """Return the share of values without an id of each categorical or list column."""
        return {
            name: self.unknown.get(name, 0) / count if count else 0.0
            for name, count in self.values.items()
        }

    def __str__(self) -> str:
        parts = [f"{name} {share:.2%}" for name, share in self.unknown_shares().items() if share]
        lines = [f"unknown or missing: {', '.join(parts)}"] if parts else []
        lines += [f"{name}: {n} missing numbers filled" for name, n in self.filled.items()]
        lines += [f"{name}: {n} lists cut to the maximum" for name, n in self.cut.items()]
        return "\n".join(lines)


def encode_inputs(
    schema: Schema, rules: Mapping[str, Rule], block: Block, report: EncodingReport
) -> dict[str, np.ndarray]:
    """Encode the input columns of a block: ids as int32, numbers as float32.

    Args:
        schema: Meaning of the columns.
        rules: Vocabulary or quantiles of each column that has its own.
        block: Block with at least the input columns.
        report: Counts to add to.

    Raises:
        UserError: a column is of a wrong type, or a number is missing without a rule for it.
    """
    report.rows += block.table.num_rows
    found = {}
    for name, column in schema.columns.items():
        if column.kind == "numeric":
            found[name] = _encode_numbers(name, column, schema.source(name), block, report)
            continue
        rule = rules[schema.owner(name)]
        values = read_values(schema, name, block)
        if isinstance(values, Lists):
            assert isinstance(rule, Vocabulary)
            ids = rule.encode(values.values).astype(np.int32)
            found[name], cut = _pad(ids, values.offsets, column)
            _add(report.cut, name, cut)
        else:
            ids = rule.encode(values).astype(np.int32)  # type: ignore[arg-type]
            found[name] = ids
        _add(report.values, name, len(ids))
        _add(report.unknown, name, int((ids == rule.size - 1).sum()))
    return found


def encode_targets(schema: Schema, block: Block) -> dict[str, np.ndarray]:
    """Read labels, and the weight as ``weight``, of a block as float32.

    Raises:
        UserError: a label is not 0 or 1, or a weight is negative or no number.
    """
    found = encode_labels(schema, block)
    if schema.weight is not None:
        weights = to_floats(block.column(schema.weight), block, schema.weight)
        with np.errstate(invalid="ignore"):
            wrong = ~((weights >= 0) & (weights < np.inf))
        _refuse(wrong, weights, schema.weight, block, "a sample weight: write 0 or more")
        found["weight"] = weights.astype(np.float32)
    return found


def encode_labels(schema: Schema, block: Block) -> dict[str, np.ndarray]:
    """Read the labels of a block as float32.

    Raises:
        UserError: a label is not 0 or 1.
    """
    found = {}
    for name in schema.labels:
        labels = to_floats(block.column(name), block, name)
        _refuse((labels != 0) & (labels != 1), labels, name, block, "a label: write 0 or 1")
        found[name] = labels.astype(np.float32)
    return found


def read_values(schema: Schema, name: str, block: Block) -> pa.Array | Lists | np.ndarray:
    """Read a categorical or list column as its vocabulary counts it, or its quantiles do."""
    column, source = schema.columns[name], schema.source(name)
    array = block.column(source)
    if column.is_list:
        return split_lists(array, column.separator, block, source)
    if column.transform is None:
        return normalise(array, block, source)
    if column.transform in (QUANTILES, "log_square"):
        numbers = to_floats(array, block, source)
        if isinstance(column.missing, int | float):
            numbers = np.where(np.isfinite(numbers), numbers, float(column.missing))
        numbers = np.where(np.isfinite(numbers), numbers, np.nan)
        if column.transform == QUANTILES:
            return numbers
        array = pa.array(numbers, mask=np.isnan(numbers))
    series = pl.Series(plain(array))
    return normalise(TRANSFORMS[column.transform](series).to_arrow(), block, source)


def _add(counts: dict[str, int], name: str, number: int) -> None:
    if number:
        counts[name] = counts.get(name, 0) + number


def _encode_numbers(
    name: str, column: Column, source: str, block: Block, report: EncodingReport
) -> Float[np.ndarray, " rows"]:
    numbers = to_floats(block.column(source), block, source)
    with np.errstate(over="ignore"):
        found = numbers.astype(np.float32)  # a float64 that is too large for it is infinite now
    bad = ~np.isfinite(found)
    if bad.any():
        if column.missing is None:
            row = int(bad.argmax())
            raise UserError(
                f"{block.where(source, row)} is {_said(numbers[row])}; give the schema a rule for "
                f"it, e.g. columns: {{{name}: {{kind: numeric, missing: 0.0}}}}"
            )
        found[bad] = float(column.missing)
        _add(report.filled, name, int(bad.sum()))
    return found


def _pad(
    ids: Int[np.ndarray, " values"], offsets: Int[np.ndarray, " bounds"], column: Column
) -> tuple[Int[np.ndarray, "rows length"], int]:
    """Return lists as rows of one length, padded with 0, and how many were cut."""
    length = column.max_length
    assert length is not None  # the schema's promise
    lengths = np.diff(offsets)
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(ids)) - offsets[row]
    if column.kind == "sequence":  # the last ones count
        place -= np.maximum(lengths - length, 0)[row]
    inside = (place >= 0) & (place < length)
    if column.padding == "pre":
        place += np.maximum(length - lengths, 0)[row]
    check_memory("a block of lists", 4 * len(lengths) * length, "make max_length smaller")
    padded = np.zeros((len(lengths), length), np.int32)
    padded[row[inside], place[inside]] = ids[inside]
    return padded, int((lengths > length).sum())


def _refuse(wrong: np.ndarray, values: np.ndarray, name: str, block: Block, what: str) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(f"{block.where(name, row)} is {_said(values[row])}, not {what}")


def _said(value: float) -> str:
    return "empty or NaN" if np.isnan(value) else f"{value:g}"
