"""Vocabularies: the values of the training data that have ids, counted in one pass.

Ids follow FuxiCTR: 0 is padding, 1 to K the values with at least ``min_count`` occurrences in their
order (numbers by size, texts by their bytes), K + 1 any other value and a missing one.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from sixfold.core import UserError

Kind = Literal["int", "uint", "str", "bool"]
TYPES = {
    "int": pa.int64(),
    "uint": pa.uint64(),
    "str": pa.large_string(),
    "bool": pa.large_string(),
}
# "007" and "+7" are texts: as numbers they would be those of 7; 1.0 is pandas' 1 beside empty cells
INTEGERS = r"^(?:0|-?[1-9][0-9]*|-?(?:0|[1-9][0-9]*)\.0+)$"
MERGE_ROWS = 1 << 17  # of counts, from which on blocks' counts are added up
SEARCHED = 4  # a search takes as long as hashing this many values of the vocabulary
FEW = 32  # values that are searched one by one


@dataclass(frozen=True)
class Vocabulary:
    """The values of a column that have ids.

    Args:
        kind: Type of the values; bool has the texts false and true.
        values: Values in the order of their ids, which begin at 1.
        counts: Number of times that the training data hold each.
    """

    kind: Kind
    values: pa.Array
    counts: pa.Array

    @property
    def size(self) -> int:
        """Number of ids: padding, values, and the one of unknown values."""
        return len(self.values) + 2

    @property
    def unknown(self) -> int:
        """The id of values that the training data do not hold."""
        return len(self.values) + 1

    def encode(self, values: pa.Array) -> Int[np.ndarray, " rows"]:
        """Return the ids of values as `normalise` returns them; null has the id of unknown ones."""
        if pa.types.is_dictionary(values.type):
            ids = self.encode(values.dictionary)
            ids = np.append(ids, self.unknown).astype(np.int32)
            return ids[values.indices.fill_null(len(ids) - 1).to_numpy(zero_copy_only=False)]
        wanted = as_kind(values, self.kind)
        if len(wanted) * SEARCHED > len(self.values):
            places = pc.index_in(wanted, value_set=self.values)  # type: ignore[attr-defined]
            return places.fill_null(len(self.values)).to_numpy(zero_copy_only=False) + 1
        return self._search_one_by_one(wanted) if len(wanted) <= FEW else self._search(wanted)

    def _search(self, wanted: pa.Array) -> Int[np.ndarray, " rows"]:
        """Look values up without hashing the whole vocabulary, which they do not repay."""
        known, asked = pl.Series(self.values), pl.Series(wanted)
        places = known.search_sorted(asked, side="left").clip(0, len(known) - 1)
        found = (known.gather(places) == asked).fill_null(False).to_numpy()
        return np.where(found, places.to_numpy().astype(np.int32) + 1, self.unknown)

    def _search_one_by_one(self, wanted: pa.Array) -> Int[np.ndarray, " rows"]:
        """Look up the values of a row or two: a call of polars takes a millisecond."""
        known = _Sorted(self.values)
        ids = [self.unknown] * len(wanted)
        for row, value in enumerate(wanted.to_pylist()):
            place = len(known) if value is None else bisect_left(known, value)
            if place < len(known) and known[place] == value:
                ids[row] = place + 1
        return np.array(ids, np.int32)


class _Sorted:
    """A sorted arrow array for `bisect`, which reads only the values that it compares."""

    def __init__(self, values: pa.Array) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, place: int) -> Any:
        return self.values[place].as_py()


class ValueCounts:
    """Counts of the values of one vocabulary, added up block by block."""

    def __init__(self) -> None:
        self._total = self._parts_rows = 0
        self._parts: list[pl.DataFrame] = []

    def add(self, values: pa.Array) -> None:
        """Count values as `normalise` returns them; nulls are left out."""
        part = _count(values)
        if self._parts and part.schema != self._parts[0].schema:
            self._parts = [self._as_text(p) for p in self._parts]
            part = self._as_text(part)
        self._parts.append(part)
        self._parts_rows += len(part)
        if self._parts_rows > 2 * self._total + MERGE_ROWS:  # memory stays that of the values
            self._total = self._parts_rows = len(self._merge())

    def build(self, min_count: int, missing: object = None, dtype: str | None = None) -> Vocabulary:
        """Return the vocabulary of what was counted.

        Args:
            min_count: Smallest number of times that a value with an id occurs.
            missing: Value that stands for missing ones; it has no id.
            dtype: Type that the schema gives the values; None decides by the values.

        Raises:
            UserError: a value is not of that type.
        """
        counts = self._merge()
        kind = _declared(dtype, counts["value"]) if dtype else _kind_of(counts["value"])
        values = pl.Series(as_kind(counts["value"].to_arrow(), kind))
        if kind == "bool" or values.dtype != counts["value"].dtype:  # two texts may be one value
            counts = pl.DataFrame({"value": values, "count": counts["count"]})
            counts = counts.group_by("value").agg(pl.col("count").sum())
        kept = pl.col("count") >= min_count
        if missing is not None:
            token = as_kind(pa.array([_text_of(missing)], pa.large_string()), kind)[0].as_py()
            kept = kept if token is None else kept & (pl.col("value") != token)
        counts = counts.lazy().filter(kept).sort("value").collect()
        sorted_values = counts["value"].to_arrow().cast(TYPES[kind])
        return Vocabulary(kind, sorted_values, counts["count"].to_arrow())

    def _merge(self) -> pl.DataFrame:
        if not self._parts:
            return pl.DataFrame(schema={"value": pl.String, "count": pl.Int64})
        if len(self._parts) > 1:
            together = pl.concat(self._parts).lazy().group_by("value").agg(pl.col("count").sum())
            self._parts = [together.collect()]
        return self._parts[0]

    @staticmethod
    def _as_text(counts: pl.DataFrame) -> pl.DataFrame:
        return counts.with_columns(pl.col("value").cast(pl.String))


def _count(values: pa.Array) -> pl.DataFrame:
    """Count values; those of a dictionary, such as a parquet file's, are not hashed again."""
    if not pa.types.is_dictionary(values.type):
        part = pl.Series("value", values).drop_nulls().value_counts(name="count")
        return part.replace_column(1, part.to_series(1).cast(pl.Int64))
    places = values.indices.drop_null().to_numpy()
    counts = np.bincount(places, minlength=len(values.dictionary))
    known = (counts > 0) & values.dictionary.is_valid().to_numpy(zero_copy_only=False)
    kept = pl.Series("value", values.dictionary.filter(pa.array(known)))
    return pl.DataFrame([kept, pl.Series("count", counts[known], pl.Int64)])


def as_kind(values: pa.Array, kind: Kind) -> pa.Array:
    """Convert values to a vocabulary's type; what has no counterpart there becomes null."""
    target = TYPES[kind]
    if values.type == target and kind != "bool":
        return values
    if pa.types.is_integer(values.type) and pa.types.is_integer(target):
        # of two integers of different signedness, only those of both types are equal
        return (
            pl.Series(values)
            .cast(pl.Int64 if kind == "int" else pl.UInt64, strict=False)
            .to_arrow()
        )
    if kind == "bool":
        lower = pc.utf8_lower(values.cast(target))  # type: ignore[attr-defined]
        for number, word in (("1", "true"), ("0", "false")):
            lower = pc.if_else(pc.equal(lower, number), word, lower)  # type: ignore[attr-defined]
        return lower.cast(target)
    texts = pl.Series(values).cast(pl.String)
    if kind == "str":
        return texts.to_arrow().cast(target)
    dtype = pl.Int64 if kind == "int" else pl.UInt64
    numbers = texts.cast(dtype, strict=False)
    if numbers.null_count() > texts.null_count():
        numbers = numbers.fill_null(texts.str.replace(r"\.0+$", "").cast(dtype, strict=False))
    return numbers.to_arrow()


def restored(kind: Kind, texts: pa.Array, counts: pa.Array) -> Vocabulary:
    """Build a vocabulary from its values written as texts."""
    return Vocabulary(kind, as_kind(texts.cast(pa.large_string()), kind), counts)


def _kind_of(values: pl.Series) -> Kind:
    """Return the type of counted values: of texts, the narrowest that loses nothing."""
    if values.dtype == pl.Int64:
        return "int"
    if values.dtype == pl.UInt64:
        return "int" if len(values) == 0 or values.max() <= 2**63 - 1 else "uint"  # type: ignore[operator]
    if len(values) and values.str.to_lowercase().is_in(["true", "false"]).all():
        return "bool"
    if len(values) == 0 or not values.str.contains(INTEGERS).all():
        return "str"
    kinds: tuple[Kind, ...] = ("int", "uint")
    for kind in kinds:
        if as_kind(values.to_arrow(), kind).null_count == 0:
            return kind
    return "str"


def _declared(dtype: str, values: pl.Series) -> Kind:
    """Return the type that a schema declares, if the values are of it."""
    kinds: tuple[Kind, ...] = ("int", "uint") if dtype == "int" else (dtype,)  # type: ignore
    for kind in kinds:
        converted = pl.Series(as_kind(values.to_arrow(), kind))
        wrong = converted.is_null()
        if kind == "bool":
            wrong = ~converted.is_in(["true", "false"])
        if not wrong.any():
            return kind
    raise UserError(f"{values.filter(wrong)[0]!r} is no {dtype}, which the schema says")


def _text_of(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
