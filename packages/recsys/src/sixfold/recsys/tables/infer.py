"""Guess the schema of a table from its first rows: a first one, for its owner to correct."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from sixfold.core import UserError
from sixfold.recsys.tables.read import Block, open_source
from sixfold.recsys.tables.schema import Column, Schema, TextFormat
from sixfold.recsys.tables.values import MISSING, is_list, plain, split_lists, to_floats

LABELS = ("label", "click", "clk", "is_click", "clicked", "target", "conversion", "purchase")
GROUPS = ("user", "user_id", "userid", "uid")
CELLS = (";", "\t", "|")  # characters between cells, where they are no commas
SEPARATORS = ("|", "^", ";", " ", ",")
DIGITS = r"^-?[0-9]+$"
MANY_NUMBERS = 0.05  # share of different values from which whole floats are numbers, not codes
LISTS = 0.5  # share of rows with a separator that make a column one of lists


def infer_schema(
    data: Any, out: str | Path | None = None, *, labels: Sequence[str] | None = None
) -> Schema:
    """Guess a schema from the first rows of a table, and write it as YAML.

    Integers, texts and booleans become categories, fractions numbers, lists and texts with a
    separator multivalued columns. A column with another text in every row is left out, and one of a
    type that has no categories, such as structs.

    Args:
        data: Table; see `sixfold.recsys.tables.read.open_source`.
        out: YAML file to write; None writes none.
        labels: Columns to predict; None looks for usual names.

    Raises:
        UserError: no column has a usual name of a label, or one asked for is missing.
    """
    text = TextFormat()
    source = open_source(data, text)
    if source.files and len(source.columns) == 1:  # the header was not cut
        text = TextFormat(separator=next((c for c in CELLS if c in source.columns[0]), ","))
        source = open_source(data, text)
    block = source.read(0, source.columns)
    if labels is None:
        lower = {name.lower(): name for name in source.columns}
        labels = [lower[name] for name in LABELS if name in lower]
        if not labels:
            raise UserError(
                f"{source.name}: no column is called {', '.join(LABELS)}; say labels=[...] of "
                f"{', '.join(source.columns)}"
            )
    source.check(labels)
    columns, left_out = {}, []
    for name in source.columns:
        if name in labels:
            continue
        column = _guess(block, name)
        if column is not None and name == "weight":  # the name of sample weights in a batch
            columns["weight_"] = column.model_copy(update={"source": name})
        elif column is not None:
            columns[name] = column
        left_out += [name] if column is None else []
    if left_out:
        print(f"left out, no categories or another value in every row: {', '.join(left_out)}")
    group = next((name for name in source.columns if name.lower() in GROUPS), None)
    schema = Schema.parse(
        {"columns": columns, "labels": tuple(labels), "group": group, "text": text}, source.name
    )
    if out is not None:
        schema.write(out)
    return schema


def _guess(block: Block, name: str) -> Column | None:
    array = block.column(name)
    if is_list(array.type):
        return _lists(array, block, name)
    if pa.types.is_nested(array.type) or _is_binary(array.type):
        return None
    values = pl.Series(plain(array)).drop_nulls()
    if values.dtype == pl.String:
        texts = values.filter(values != "")
        if len(texts) == 0 or texts.str.contains(DIGITS).all():
            return Column()
        numbers = texts.filter(~texts.str.to_lowercase().is_in(MISSING))
        if numbers.cast(pl.Float64, strict=False).null_count() == 0:
            return _number(block, name)
        return _text(texts)
    if values.dtype.is_float() or values.dtype.is_decimal():
        return _number(block, name)
    return Column()


def _lists(array: pa.Array, block: Block, name: str) -> Column | None:
    try:
        offsets = split_lists(array, None, block, name).offsets
    except UserError:  # of structs or fractions, such as vectors
        return None
    return Column(kind="multivalued", max_length=max(1, int(np.diff(offsets).max())))


def _is_binary(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(test(kind) for test in (*tests, pa.types.is_fixed_size_binary))


def _number(block: Block, name: str) -> Column:
    """Guess a column of floats: whole ones that repeat are codes, e.g. integers with nulls."""
    numbers = pl.Series(to_floats(block.column(name), block, name)).fill_nan(None)
    known = numbers.drop_nulls()
    if (known == known.floor()).all() and known.n_unique() <= MANY_NUMBERS * len(known):
        return Column()
    gaps = numbers.null_count() or not numbers.is_finite().all()
    return Column(kind="numeric", missing=0.0) if gaps else Column(kind="numeric")


def _text(texts: pl.Series) -> Column | None:
    for separator in SEPARATORS:
        parts = texts.str.split(separator)
        repeat = parts.list.explode().n_unique() < parts.list.len().sum()  # words, not sentences
        if parts.list.len().gt(1).mean() > LISTS and repeat:  # type: ignore[operator]
            longest = int(parts.list.len().max())  # type: ignore[arg-type]
            return Column(kind="multivalued", separator=separator, max_length=longest)
    return None if len(texts) > 20 and texts.n_unique() == len(texts) else Column()
