"""Frappe: which app a person used, and two that they did not, in ten fields of context.

The official validation and test splits are public; the training split's file comes from its owner.
Two protocols: Frappe_x1, the whole split of BARS; and Frappe-small, whose training pool is the
official validation split. Scores of one are never compared with those of the other.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import polars as pl

from sixfold.core import UserError
from sixfold.core.data.fetch import Dataset, File, fetch
from sixfold.recsys.data.catalog import DATASETS, FRAPPE_URL
from sixfold.recsys.tables.schema import Schema

FIELDS = (
    "user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country",
    "city",
)  # fmt: skip
FILES = {
    "train": "frappe.train.libfm",
    "valid": "frappe.validation.libfm",
    "test": "frappe.test.libfm",
}
# MD5 of the CSV files of BARS, which `to_csv` makes of the LibFM files.
BARS_MD5 = {
    "train": "ba7306e6c4fc19dd2cd84f2f0596d158",
    "valid": "88d51bf2173505436d3a8f78f2a59da8",
    "test": "3470f6d32713dc5f7715f198ca7c612a",
}
TRAIN_SHARE = 0.9  # of the validation split, in Frappe-small
SCHEMA = Schema(columns={name: {} for name in FIELDS}, group="user")  # type: ignore[dict-item]

# With the training split, whose checksum is that of its CSV.
FRAPPE_X1 = Dataset(
    "frappe_x1",
    DATASETS["frappe_x1"].home,
    DATASETS["frappe_x1"].licence,
    DATASETS["frappe_x1"].citation,
    (*DATASETS["frappe_x1"].files, File(FILES["train"], url=FRAPPE_URL + FILES["train"])),
)


class Splits(NamedTuple):
    """Training, validation and test rows."""

    train: pl.DataFrame
    valid: pl.DataFrame
    test: pl.DataFrame


def read_frappe_small() -> Splits:
    """Return the first 90 % of the official validation split, the rest of it, the official test.

    Raises:
        UserError: a file cannot be had, or has other rows than BARS'.
    """
    folder = fetch(DATASETS["frappe_x1"])
    pool, test = (read_split(folder, name) for name in ("valid", "test"))
    cut = int(TRAIN_SHARE * len(pool))
    return Splits(pool[:cut], pool[cut:], test)


def read_frappe_x1() -> Splits:
    """Return the official splits; the training file is looked for like any other.

    Raises:
        UserError: a file cannot be had, or has other rows than BARS'.
    """
    folder = fetch(FRAPPE_X1)
    return Splits(*(read_split(folder, name) for name in ("train", "valid", "test")))


def read_split(folder: Path, split: str) -> pl.DataFrame:
    """Read one split: label and the ten fields, as integers.

    Raises:
        UserError: the CSV that the file makes is not BARS'.
    """
    content = to_csv(folder / FILES[split])
    if hashlib.md5(content).hexdigest() != BARS_MD5[split]:
        raise UserError(
            f"{folder / FILES[split]} is not the {split} split of Frappe_x1: made into BARS' CSV "
            f"its MD5 is not {BARS_MD5[split]}; get it from {FRAPPE_URL}"
        )
    return pl.read_csv(content)


def to_csv(file: Path) -> bytes:
    """Make BARS' CSV of a LibFM file: labels -1 as 0, ids without ``:1``, lines ended by CRLF."""
    lines = file.read_text(encoding="utf-8").splitlines()
    rows = ("0" + line[2:] if line.startswith("-1 ") else line for line in lines)
    cells = (row.rstrip().replace(":1 ", ",").removesuffix(":1") for row in rows)
    text = [",".join(("label", *FIELDS)), *(row.replace(" ", ",", 1) for row in cells)]
    return ("\r\n".join(text) + "\r\n").encode()
