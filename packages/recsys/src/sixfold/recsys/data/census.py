"""Census-Income (KDD): two tasks of the paper of MMoE, income above 50,000 and never married.

The files have no header, a blank after each comma, ``?`` for what is missing; ``NA`` is a category.
The instance weight is no feature, nor are the columns that the tasks are made of.
"""

import gzip
from typing import NamedTuple

import numpy as np
import polars as pl

from sixfold.core.data.fetch import fetch
from sixfold.recsys.data.catalog import DATASETS
from sixfold.recsys.tables.schema import Column, Schema

COLUMNS = (
    "age", "class_of_worker", "industry_code", "occupation_code", "education", "wage_per_hour",
    "enrolled_in_education", "marital_status", "industry", "occupation", "race", "hispanic_origin",
    "sex", "union_member", "reason_for_unemployment", "employment", "capital_gains",
    "capital_losses", "dividends", "tax_filer", "previous_region", "previous_state",
    "detailed_household", "household", "instance_weight", "migration_msa", "migration_region",
    "migration_within_region", "same_house", "migration_sunbelt", "employer_size",
    "family_members_under_18", "father_birth", "mother_birth", "own_birth", "citizenship",
    "own_business", "veterans_questionnaire", "veterans_benefits", "weeks_worked", "year",
    "income",
)  # fmt: skip
LABELS = ("income", "never_married")
NO_FEATURES = ("instance_weight", "marital_status", "income")
# Amounts, whose logarithm squared is a bucket as Criteo's; they are 0 in nine rows of ten.
AMOUNTS = ("wage_per_hour", "capital_gains", "capital_losses", "dividends")
SCHEMA = Schema(
    columns={
        name: Column(transform="log_square") if name in AMOUNTS else Column()
        for name in COLUMNS
        if name not in NO_FEATURES
    },
    labels=LABELS,
)


class Splits(NamedTuple):
    """Official training and test rows."""

    train: pl.DataFrame
    test: pl.DataFrame


def read_census() -> Splits:
    """Return the official splits: 199,523 and 99,762 rows of 39 features and two labels.

    Raises:
        UserError: a file cannot be had.
    """
    folder = fetch(DATASETS["census_income"])
    return Splits(
        *(parse(gzip.decompress((folder / f"{n}.csv.gz").read_bytes())) for n in ("train", "test"))
    )


def parse(content: bytes) -> pl.DataFrame:
    """Read the rows of a file: features as texts, labels as 0 and 1."""
    texts = pl.read_csv(
        content, has_header=False, new_columns=list(COLUMNS), infer_schema=False, quote_char=None
    ).select(pl.all().str.strip_chars())
    features = texts.drop(*NO_FEATURES).select(pl.all().replace("?", ""))
    return features.with_columns(
        (texts["income"].str.starts_with("50000+")).cast(pl.Int8).alias("income"),
        (texts["marital_status"] == "Never married").cast(pl.Int8).alias("never_married"),
    )


def generate_census(rows: int = 6000, seed: int = 0) -> Splits:
    """Return generated rows of the same columns: age, schooling and weeks decide, and chance.

    Args:
        rows: Number of rows, two thirds of them for training.
        seed: Seed of all that is random.
    """
    rng = np.random.default_rng(seed)
    codes = {name: rng.integers(0, 8, rows).astype(str) for name in SCHEMA.columns}
    age, education = rng.integers(0, 90, rows), rng.integers(0, 17, rows)
    weeks = rng.integers(0, 53, rows)
    codes |= {"age": age.astype(str), "weeks_worked": weeks.astype(str)}
    codes |= {"education": education.astype(str)}
    wealth = 0.2 * education + 0.05 * weeks + 0.02 * age + rng.logistic(size=rows)
    labels = {
        "income": (wealth > 6.0).astype(np.int8),
        "never_married": (age < 25 + 8 * rng.logistic(size=rows)).astype(np.int8),
    }
    table = pl.DataFrame(codes | labels)
    cut = 2 * rows // 3
    return Splits(table[:cut], table[cut:])
