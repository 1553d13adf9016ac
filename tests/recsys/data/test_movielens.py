"""MovieLens-100k's protocol, on generated ratings and, where they are to be had, on the real."""

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from sixfold.core.data.fetch import available
from sixfold.recsys.data.catalog import DATASETS
from sixfold.recsys.data.movielens import (
    BEHAVIOURS,
    LENGTH,
    TASKS,
    generate_movielens,
    histories,
    read_movielens,
    schema,
)
from sixfold.recsys.tables.encoder import Encoder
from sixfold.recsys.tables.memory import EncodedTable

RATINGS = pl.DataFrame(
    {
        "user": [1, 1, 1, 1, 2, 1],
        "item": [10, 11, 12, 13, 10, 14],
        "rating": [5.0, 2.0, 4.0, 4.0, 5.0, 3.0],
        "timestamp": [5, 6, 8, 8, 7, 9],
    }
)


def test_a_history_is_what_was_before_the_moment_latest_first():
    found = {name: series.to_list() for name, series in histories(RATINGS).items()}
    assert found["rated"] == [[], [10], [11, 10], [11, 10], [], [13, 12, 11, 10]]
    assert found["liked"] == [[], [10], [10], [10], [], [13, 12, 10]]
    assert found["disliked"] == [[], [], [11], [11], [], [11]]


def test_histories_are_those_of_a_loop_over_rows():
    ratings = pl.concat([RATINGS] * 30).with_columns(
        user=pl.int_range(180) % 4, item=pl.int_range(180), timestamp=pl.int_range(180) * 7 % 90
    )
    found, rules = histories(ratings), {**TASKS, "rated": pl.lit(True)}
    for name, rule in (("liked", "like"), ("disliked", "dislike"), ("rated", "rated")):
        events = ratings.filter(rules[rule]).sort("timestamp", "item", descending=True)
        for row, ids in zip(ratings.iter_rows(named=True), found[name], strict=True):
            before = events.filter(
                (pl.col("user") == row["user"]) & (pl.col("timestamp") < row["timestamp"])
            )
            assert ids.to_list() == before["item"].to_list()[:LENGTH]


def test_generated_ratings_are_the_same_each_time_and_have_the_same_form():
    first, again = generate_movielens(600), generate_movielens(600)
    assert [len(rows) for rows in first] == [480, 60, 60]
    for rows, same in zip(first, again, strict=True):
        assert_frame_equal(rows, same)
    encoder = Encoder.fit(schema(tuple(TASKS)), first.train)
    table = EncodedTable.read(first.test, encoder)
    batch = table.batch([3, 1])
    assert batch["liked"].shape == (2, LENGTH)
    assert 0 < table.arrays["like"].mean() < 1
    shared = {field.name for field in encoder.fields if field.share == "item"}
    assert shared == {*BEHAVIOURS}


@pytest.mark.skipif(not available(DATASETS["ml-100k"]), reason="no MovieLens-100k in cache, mirror")
def test_the_protocol_on_the_real_ratings():
    splits = read_movielens()
    assert [len(rows) for rows in splits] == [80_000, 10_000, 10_000]
    shares = [[round(float(rows[k].mean()), 4) for k in TASKS] for rows in splits]  # type: ignore[arg-type]
    assert shares[0] == [0.5509, 0.2071, 0.177]
    encoder = Encoder.fit(schema(), splits.train)
    sizes = [field.vocab_size for field in encoder.fields]
    assert sizes == [753, 9, 4, 23, 1618, 73, 21, 1618, 1618, 1618]
