"""Pretrained vectors of the values of a column, as first rows of its table."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sixfold.core import UserError
from sixfold.recsys.tables.encoder import Encoder
from sixfold.recsys.tables.parquet import native_file


def load_vectors(model: Any, encoder: Encoder) -> None:
    """Copy the vectors that the schema names into a fresh model's tables.

    Values of the vocabulary without a vector keep their random rows.

    Args:
        model: Model with an ``embedding``, a `sixfold.recsys.layers.embedding.FieldEmbedding`.
        encoder: Fitted schema.

    Raises:
        UserError: a file is missing or not as it should be, or holds no value of the vocabulary.
    """
    for name, column in encoder.schema.columns.items():
        if column.pretrained is None:
            continue
        if not hasattr(model, "embedding"):
            raise UserError(
                f"{type(model).__name__} has no vectors; leave out pretrained of {name}"
            )
        values, vectors = _read(column.pretrained, model.embedding.dim)
        ids = np.array(encoder.ids(name, values))
        known = ids < encoder.rules[name].size - 1
        if not known.any():
            raise UserError(f"{column.pretrained} has no vector of a value of column {name!r}")
        print(f"{name}: {known.sum()} of {encoder.rules[name].size - 2} values have a vector")
        with torch.no_grad():
            model.embedding.rows(name)[ids[known]] = torch.from_numpy(vectors[known])


def _read(file: Path, width: int) -> tuple[list[Any], np.ndarray]:
    if not file.is_file():
        raise UserError(f"there is no file of vectors {file}")
    try:
        # polars ends in a panic where a file is damaged
        with native_file(file) as opened:
            table = pl.DataFrame(pq.read_table(opened, columns=["value", "vector"]))
        vectors = np.array(table["vector"].to_list(), np.float32)
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise UserError(f"{file} has no columns value and vector of one length: {reason}") from None
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise UserError(
            f"{file} has vectors of {vectors.shape[-1]} numbers; set embedding_dim, now {width}"
        )
    if not np.isfinite(vectors).all():
        raise UserError(f"{file} holds a vector with NaN or infinity")
    if (twice := table["value"].is_duplicated()).any():
        raise UserError(f"{file} has two vectors of {table['value'].filter(twice)[0]!r}; keep one")
    return table["value"].to_list(), vectors
