"""Columns of any type that tables come with, as one of a few: integers, texts, lists, floats.

What a type cannot hold exactly is an error, never a rounded number.
"""

from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float

from sixfold.core import UserError
from sixfold.recsys.tables.read import Block

EXACT = 2.0**53  # from here on neighbouring integers are one float64


class Lists(NamedTuple):
    """Lists of values: row r holds ``values[offsets[r]:offsets[r + 1]]``."""

    values: pa.Array
    offsets: np.ndarray


def normalise(array: pa.Array, block: Block, column: str) -> pa.Array:
    """Convert values of a categorical column to int64, uint64 or large_string, or fail.

    Null, NaN and the empty text become null. A dictionary stays one, its values converted.

    Raises:
        UserError: the type is none of integer, text, boolean, decimal, date or whole float.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        values = normalise(array.dictionary, block, column)
        return pa.DictionaryArray.from_arrays(array.indices.cast(pa.int32()), values)
    if pa.types.is_integer(kind):
        return array.cast(pa.int64() if pa.types.is_signed_integer(kind) else pa.uint64())
    if pa.types.is_floating(kind):
        return _whole(array, block, column)
    if pa.types.is_decimal(kind):
        return _from_decimal(array)
    if _is_text(kind):
        texts = array.cast(pa.large_string())
        empty = pc.equal(pc.binary_length(texts), 0)  # type: ignore[attr-defined]
        return pc.if_else(empty, pa.scalar(None, pa.large_string()), texts)  # type: ignore
    if pa.types.is_boolean(kind) or pa.types.is_temporal(kind) or pa.types.is_null(kind):
        return array.cast(pa.large_string())
    mend = "declare it multivalued or sequence" if is_list(kind) else "leave it out of the schema"
    raise UserError(f"{block.where(column)} is of type {kind}, no category; {mend}")


def split_lists(array: pa.Array, separator: str | None, block: Block, column: str) -> Lists:
    """Return the lists of a column of lists, or of texts with a separator, flattened.

    Nulls within and empty texts are left out.

    Raises:
        UserError: the column holds neither lists nor, with a separator, texts.
    """
    array = plain(array)
    if _is_text(array.type) and separator is not None:
        parts = pc.split_pattern(array.cast(pa.large_string()), separator)  # type: ignore
        array = parts
    elif pa.types.is_null(array.type):
        array = array.cast(pa.large_list(pa.int64()))
    elif not is_list(array.type):
        mend = "give its separator" if _is_text(array.type) else "declare it categorical"
        raise UserError(f"{block.where(column)} is of type {array.type}, no list; {mend}")
    lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)  # type: ignore
    values = normalise(array.flatten(), block.of_lists(lengths), column)
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    if not valid.all():
        row = np.repeat(np.arange(len(lengths)), lengths)
        lengths = np.bincount(row[valid], minlength=len(lengths))
        values = values.drop_null()
    return Lists(values, np.concatenate([[0], np.cumsum(lengths)]))


def to_floats(array: pa.Array, block: Block, column: str) -> Float[np.ndarray, " rows"]:
    """Return numbers as float64, nan where there is none.

    Raises:
        UserError: a text is no number, or the type is none.
    """
    array = plain(array)
    kind = array.type
    if _is_text(kind):
        texts = pl.Series(array.cast(pa.large_string())).str.strip_chars()
        lower = texts.str.to_lowercase()
        words = lower.replace_strict(BOOLEANS, default=None, return_dtype=pl.Float64)
        numbers = texts.cast(pl.Float64, strict=False).fill_null(words)
        missing = texts.is_null() | lower.is_in(MISSING)
        if (wrong := numbers.is_null() & ~missing).any():
            row = int(wrong.arg_max() or 0)
            raise UserError(f"{block.where(column, row)} is {texts[row]!r}, no number")
        return numbers.fill_null(np.nan).to_numpy()
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not (numeric or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise UserError(f"{block.where(column)} is of type {kind}, no number")
    floats = array.cast(pa.float64(), safe=False)
    return floats.fill_null(np.nan).to_numpy(zero_copy_only=False)


BOOLEANS = {"false": 0.0, "true": 1.0}
MISSING = ["", "na", "n/a", "nan", "null", "none", "-nan"]  # texts that mean no number


def plain(array: pa.Array) -> pa.Array:
    """Return the values of a dictionary, or the array as it is."""
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def is_list(kind: pa.DataType) -> bool:
    """Return whether an arrow type is one of lists."""
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _whole(array: pa.Array, block: Block, column: str) -> pa.Array:
    """Convert floats that are whole numbers: pandas makes such of integers with nulls."""
    numbers = array.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        wrong = (numbers != np.trunc(numbers)) & ~np.isnan(numbers)
        inexact = np.abs(numbers) >= EXACT
    if wrong.any():
        row = int(wrong.argmax())
        where = block.where(column, row)
        raise UserError(f"{where} is {numbers[row]}, no category; declare the column numeric")
    if inexact.any():
        row = int(inexact.argmax())
        raise UserError(
            f"{block.where(column, row)} is {numbers[row]:.0f} in a column of floats, which "
            "confuses ids above 2^53; write it as integers or texts"
        )
    known = ~np.isnan(numbers)
    return pa.array(np.where(known, numbers, 0).astype(np.int64), mask=~known)


def _from_decimal(array: pa.Array) -> pa.Array:
    """Convert decimals: to integers if their type has no fractions, else to texts.

    By their type alone, for another block may hold other values.
    """
    for kind in (pa.int64(), pa.uint64()) if array.type.scale <= 0 else ():
        try:
            return array.cast(kind)
        except pa.ArrowInvalid:
            continue
    return array.cast(pa.large_string())
