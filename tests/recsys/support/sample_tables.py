"""Small tables with every kind of column, made from a seed."""

from pathlib import Path

import numpy as np
import polars as pl

from sixfold.recsys.tables.schema import Schema

SCHEMA = Schema.parse(
    {
        "labels": ["click"],
        "group": "user",
        "columns": {
            "user": {},
            "item": {"min_count": 2},
            "city": {},
            "member": {},
            "price": {"kind": "numeric", "missing": 0.0},
            "age": {"transform": "quantiles", "buckets": 4},
            "genres": {"kind": "multivalued", "separator": "|", "max_length": 3},
            "history": {
                "kind": "sequence", "separator": " ", "max_length": 4, "share": "item",
            },
        },
    },
    "the test's schema",
)  # fmt: skip


def interactions(rows: int = 400, seed: int = 0) -> pl.DataFrame:
    """Make rows of users and items, with a click that depends on both."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 20, rows), rng.integers(0, 15, rows)
    active, popular = np.random.default_rng(99).normal(size=(2, 20))
    score = active[user] + popular[item] + rng.normal(size=rows) * 0.3
    words = np.array(["drama", "action", "comedy", "war"])
    return pl.DataFrame(
        {
            "user": 2**60 + user,
            "item": item - 7,
            "city": np.array(["Rome", "Oslo", "", "NA"])[rng.integers(0, 4, rows)],
            "member": rng.random(rows) < 0.5,
            "price": np.round(rng.random(rows), 3),
            "age": rng.integers(10, 80, rows),
            "genres": ["|".join(words[rng.integers(0, 4, rng.integers(0, 4))]) for _ in user],
            "history": [" ".join(map(str, rng.integers(-7, 8, rng.integers(0, 7)))) for _ in user],
            "click": (score > 0).astype(np.int64),
        }
    )


def write(table: pl.DataFrame, path: Path, row_group: int = 97) -> Path:
    """Write a table as CSV or parquet, by its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        table.write_csv(path)
    else:
        table.write_parquet(path, row_group_size=row_group)
    return path
