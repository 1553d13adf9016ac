"""The published rules, against pairs made by the official code."""

import json
import os
from pathlib import Path

import polars as pl
import pytest

from sixfold.recsys.tables.preprocess import TRANSFORMS

ROOT = Path(__file__).resolve().parents[3] / "shared" / "golden"
PAIRS = Path(os.environ.get("SIXFOLD_GOLDEN", ROOT)) / "ctr_metrics" / "preprocess.json"


@pytest.mark.skipif(not PAIRS.is_file(), reason=f"{PAIRS} does not exist")
@pytest.mark.parametrize(
    ("rule", "pair", "output"),
    [
        ("log_square", "criteo_log_square_bucket", "output"),
        ("hour", "avazu_time", "hour"),
        ("weekday", "avazu_time", "weekday"),
        ("weekend", "avazu_time", "weekend"),
    ],
)
def test_rules_agree_with_the_official_pairs(rule, pair, output):
    pairs = json.loads(PAIRS.read_text())[pair]
    assert TRANSFORMS[rule](pl.Series(pairs["input"])).to_list() == pairs[output]


def test_ages_fall_into_decades():
    ages = pl.Series(["", "0", "1", "10", "11", "60", "61", "95", "96", None])
    expected = [None, None, "1", "1", "2", "6", "7", "7", None, None]
    assert TRANSFORMS["age_decade"](ages).to_list() == expected


def test_the_country_of_a_recording_is_its_first_two_letters():
    assert TRANSFORMS["country_code"](pl.Series(["USAB1", None, ""])).to_list() == ["US", None, ""]
