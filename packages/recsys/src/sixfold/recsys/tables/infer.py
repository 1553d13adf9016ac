"""Guess the schema of a table from its first rows: a first one, for its owner to correct."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from sixfold.core import UserError
from sixfold.recsys.tables.read import Block, open_source
from sixfold.recsys.tables.schema import Column, Schema, TextFormat
from sixfold.recsys.tables.values import MISSING, is_list, plain, to_floats
from sixfold.recsys.tables.vocabulary import INT

LABELS = ("label", "click", "clk", "is_click", "clicked", "target", "conversion", "purchase")
GROUPS = ("user", "user_id", "userid", "uid")
SEPARATORS = ("|", "^", ";", " ", ",")
MANY_NUMBERS = 0.05  # share of different values from which whole floats are numbers, not codes
LISTS = 0.5  # share of rows with a separator that make a column one of lists


def infer_schema(
    data: Any, out: str | Path | None = None, *, labels: Sequence[str] | None = None
) -> Schema:
    """Guess a schema from the first rows of a table, and write it as YAML.

    Integers, texts and booleans become categories, fractions numbers, lists and texts with a
    separator multivalued columns. A column with another text in every row is left out.

    Args:
        data: Table; see `sixfold.recsys.tables.read.open_source`.
        out: YAML file to write; None writes none.
        labels: Columns to predict; None looks for usual names.

    Raises:
        UserError: no column has a usual name of a label, or one asked for is missing.
    """
    source = open_source(data, TextFormat())
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
        print(f"left out, another value in every row: {', '.join(left_out)}")
    group = next((name for name in source.columns if name.lower() in GROUPS), None)
    schema = Schema.parse(
        {"columns": columns, "labels": tuple(labels), "group": group}, source.name
    )
    if out is not None:
        schema.write(out)
    return schema


def _guess(block: Block, name: str) -> Column | None:
    array = block.column(name)
    if is_list(array.type):
        longest = pl.Series(array).list.len().max()
        return Column(kind="multivalued", max_length=int(longest or 1))  # type: ignore[arg-type]
    values = pl.Series(plain(array)).drop_nulls()
    if values.dtype == pl.String:
        texts = values.filter(values != "")
        if len(texts) == 0 or texts.str.contains(INT).all():
            return Column()
        numbers = texts.filter(~texts.str.to_lowercase().is_in(MISSING))
        if numbers.cast(pl.Float64, strict=False).null_count() == 0:
            return _number(block, name)
        return _text(texts)
    if values.dtype.is_float() or values.dtype.is_decimal():
        return _number(block, name)
    return Column()


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
