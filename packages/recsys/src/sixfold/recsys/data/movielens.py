"""MovieLens-100k as a set of several tasks and behaviours: who rates a film high, or low.

The ratings are split by time, the first 80 % for training, 10 % for validation, 10 % for the test.
Tasks: ``like`` is a rating of 4 or 5, ``love`` 5, ``dislike`` 1 or 2. Behaviours: the last films
that the person liked, disliked, rated, the latest first, all strictly before the moment of the
rating: what was rated in the same second is not known yet.
"""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from sixfold.core.data.fetch import fetch
from sixfold.recsys.data.catalog import DATASETS
from sixfold.recsys.data.libfm import Splits
from sixfold.recsys.tables.schema import Column, Schema

LENGTH = 20  # of a sequence
TASKS = {
    "like": pl.col("rating") >= 4,
    "love": pl.col("rating") == 5,
    "dislike": pl.col("rating") <= 2,
}
BEHAVIOURS = {"liked": TASKS["like"], "disliked": TASKS["dislike"], "rated": pl.lit(True)}
AGES = (18, 25, 35, 45, 50, 56)  # first years of buckets, as in MovieLens-1M
SHARES = (0.8, 0.9)  # ends of training and validation


def schema(tasks: tuple[str, ...] = ("like", "love")) -> Schema:
    """Return what the columns mean.

    Args:
        tasks: Labels, of `TASKS`.
    """
    behaviours = {
        name: Column(kind="sequence", share="item", max_length=LENGTH) for name in BEHAVIOURS
    }
    return Schema(
        columns={
            **{name: Column() for name in ("user", "age", "gender", "occupation", "item", "year")},
            "genres": Column(kind="multivalued", max_length=6),
            **behaviours,
        },
        labels=tasks,
        group="user",
    )


def read_movielens() -> Splits:
    """Return the ratings of MovieLens-100k with labels, features and behaviours.

    Raises:
        UserError: a file cannot be had.
    """
    folder = fetch(DATASETS["ml-100k"])
    ratings, people, films = (
        _read(folder / f"ml-100k.{name}") for name in ("inter", "user", "item")
    )
    bucket = pl.sum_horizontal(pl.col("age") >= first for first in AGES)
    people = people.select("user", bucket.alias("age"), "gender", "occupation")
    films = films.select(
        "item",
        year=pl.col("release_year").cast(pl.Int64, strict=False),
        genres=pl.col("class").str.split(" "),
    )
    return split(ratings.join(people, on="user").join(films, on="item"))


def generate_movielens(rows: int = 4000, seed: int = 0) -> Splits:
    """Return generated ratings of the same form: people and films of a few tastes, and chance.

    Args:
        rows: Number of ratings.
        seed: Seed of all that is random.
    """
    rng = np.random.default_rng(seed)
    people, films, tastes = max(rows // 50, 4), max(rows // 40, 6), 3
    user, item = rng.integers(0, people, rows), rng.integers(0, films, rows)
    likes, shows = rng.normal(size=(people, tastes)), rng.normal(size=(films, tastes))
    score = 3.4 + (likes[user] * shows[item]).sum(1) / 1.5 + 0.5 * rng.normal(size=rows)
    table = pl.DataFrame(
        {
            "user": user + 1,
            "item": item + 1,
            "rating": score.round().clip(1, 5),
            "timestamp": rng.integers(0, 10 * rows, rows),
            "age": np.array(["young", "old"])[(likes[:, 0] > 0).astype(int)][user],
            "gender": np.array(["F", "M"])[user % 2],
            "occupation": np.array(["a", "b", "c"])[user % 3],
            "year": 1990 + item % 7,
        }
    )
    taste = pl.Series(shows.argmax(1)[item]).cast(pl.String)
    return split(table.with_columns(genres=pl.concat_list(pl.lit("taste ") + taste)))


def split(ratings: pl.DataFrame) -> Splits:
    """Order ratings by time, add labels and behaviours, and cut them into three."""
    rows = ratings.sort("timestamp", "user", "item")
    labels = {name: rule.cast(pl.Int8) for name, rule in TASKS.items()}
    rows = rows.with_columns(**labels, **histories(rows))
    ends = [int(share * len(rows)) for share in SHARES]
    rows = rows.drop("rating", "timestamp")
    return Splits(rows[: ends[0]], rows[ends[0] : ends[1]], rows[ends[1] :])


def histories(ratings: pl.DataFrame) -> dict[str, pl.Series]:
    """Return each behaviour of every rating's person before its moment, the latest film first.

    Args:
        ratings: Ratings, with the columns user, item, rating and timestamp.
    """
    ordered = ratings.sort("user", "timestamp", "item")
    return {name: _before(ratings, ordered.filter(rule)) for name, rule in BEHAVIOURS.items()}


def _before(ratings: pl.DataFrame, events: pl.DataFrame) -> pl.Series:
    """List the items of a person's last events before each rating; events are in order."""
    user, time = (ratings[name].to_numpy() for name in ("user", "timestamp"))
    span = int(time.max()) + 1
    # one number that grows with the person and, within a person, with time
    keys = events["user"].to_numpy() * span + events["timestamp"].to_numpy()
    ends = np.searchsorted(keys, user * span + time)
    starts = np.maximum(np.searchsorted(keys, user * span), ends - LENGTH)
    offsets = np.concatenate([[0], np.cumsum(ends - starts)])
    places = np.repeat(ends - 1 + offsets[:-1], ends - starts) - np.arange(offsets[-1])
    values = pa.array(events["item"].to_numpy()[places])
    found = pl.from_arrow(pa.LargeListArray.from_arrays(pa.array(offsets), values))
    assert isinstance(found, pl.Series)
    return found


def _read(path: Path) -> pl.DataFrame:
    """Read one of RecBole's atomic files: tab-separated, the type behind each column's name."""
    table = pl.read_csv(path, separator="\t", quote_char=None, infer_schema_length=None)
    names = {name: name.partition(":")[0].removesuffix("_id") for name in table.columns}
    return table.rename(names)
