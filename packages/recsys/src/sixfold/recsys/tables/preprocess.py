"""The published rules that make a category of a number, a time or a code, by name."""

from collections.abc import Callable

import numpy as np
import polars as pl


def log_square(values: pl.Series) -> pl.Series:
    """Put numbers into Criteo's buckets: floor(ln(v)^2) above 2, else the integer part."""
    v = values.cast(pl.Float64).fill_null(np.nan).to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        bucket = np.where(v > 2, np.floor(np.log(v) ** 2), np.trunc(v))
    known = ~np.isnan(bucket)
    whole = pl.Series(values.name, np.where(known, bucket, 0).astype(np.int64))
    return whole if known.all() else whole.set(pl.Series(~known), None)


def hour(values: pl.Series) -> pl.Series:
    """Return the hour, 0 to 23, of Avazu's times YYMMDDHH."""
    return _time(values).dt.hour().cast(pl.Int64)


def weekday(values: pl.Series) -> pl.Series:
    """Return the day of the week of Avazu's times YYMMDDHH: Monday 1 to Saturday 6, Sunday 0."""
    return _time(values).dt.weekday().cast(pl.Int64) % 7


def weekend(values: pl.Series) -> pl.Series:
    """Return 1 for Saturday and Sunday, else 0, of Avazu's times YYMMDDHH."""
    return (_time(values).dt.weekday() > 5).cast(pl.Int64)


def age_decade(values: pl.Series) -> pl.Series:
    """Return KKBox's bucket of an age: "1" to "6" by decades, "7" above 60, null outside 1 to 95.

    Bucket "1" holds the ages 1 to 10.
    """
    age = pl.col("age")
    bucket = pl.when(age.is_between(1, 95)).then(((age - 1) // 10 + 1).clip(1, 7).cast(pl.String))
    ages = values.cast(pl.Int64, strict=False).rename("age").to_frame()
    return ages.select(bucket).to_series().rename(values.name)


def country_code(values: pl.Series) -> pl.Series:
    """Return the country of an ISRC: its first two characters."""
    return values.cast(pl.String).str.slice(0, 2)


TRANSFORMS: dict[str, Callable[[pl.Series], pl.Series]] = {
    "log_square": log_square,
    "hour": hour,
    "weekday": weekday,
    "weekend": weekend,
    "age_decade": age_decade,
    "country_code": country_code,
}


def _time(values: pl.Series) -> pl.Series:
    digits = values.cast(pl.String).str.strip_chars()
    # a whole year and minutes, without which chrono's format knows no time
    return ("20" + digits + "00").str.to_datetime("%Y%m%d%H%M", strict=False)
