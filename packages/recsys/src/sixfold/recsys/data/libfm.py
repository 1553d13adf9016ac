"""Frappe and MovieLens tags, as their LibFM files and as the splits that BARS made of them.

Frappe: which app a person used, and two that they did not, in ten fields of context. Its official
validation and test splits are public; the training split's file comes from its owner, as do those
of MovieLens tags: laid into the cache or a mirror under its name it is found. Two protocols of
Frappe: Frappe_x1, the whole split of BARS; and Frappe-small, whose training pool is the official
validation split. Scores of one are never compared with those of the other.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import polars as pl

from sixfold.core import UserError
from sixfold.core.data.fetch import Dataset, File, fetch
from sixfold.recsys.data.catalog import DATASETS, NFM_URL
from sixfold.recsys.tables.schema import Column, Schema

TRAIN_SHARE = 0.9  # of the validation split, in Frappe-small


class Splits(NamedTuple):
    """Training, validation and test rows."""

    train: pl.DataFrame
    valid: pl.DataFrame
    test: pl.DataFrame


@dataclass(frozen=True)
class LibFMSet:
    """A set of BARS whose CSV files are made of LibFM files.

    Args:
        name: Name of the set.
        stem: Path of the files at their home up to the split's name.
        fields: Names of the columns, besides the label.
        md5: MD5 of each split's CSV, as BARS gives it.
        known: The set as the catalog has it: files with checksums.
    """

    name: str
    stem: str
    fields: tuple[str, ...]
    md5: Mapping[str, str] = field(repr=False)
    known: Dataset = field(repr=False)

    @property
    def schema(self) -> Schema:
        """What the columns mean: categories, the first of them the person."""
        return Schema(columns={name: Column() for name in self.fields}, group=self.fields[0])

    @property
    def whole(self) -> Dataset:
        """All three files; those whose checksum is not known are checked by that of their CSV."""
        sums = {file.path: file for file in self.known.files}
        names = [self.file(split) for split in self.md5]
        files = [sums.get(n) or File(n, url=f"{self._folder}/{n}") for n in names]
        known = self.known
        return Dataset(self.name, known.home, known.licence, known.citation, tuple(files))

    def file(self, split: str) -> str:
        """Return the name of a split's file."""
        official = "validation" if split == "valid" else split
        return f"{self.stem.rpartition('/')[2]}.{official}.libfm"

    @property
    def _folder(self) -> str:
        return NFM_URL + self.stem.rpartition("/")[0]

    def read(self) -> Splits:
        """Return the official splits.

        Raises:
            UserError: a file cannot be had, or has other rows than BARS'.
        """
        folder = fetch(self.whole)
        return Splits(*(self.read_split(folder, split) for split in ("train", "valid", "test")))

    def read_split(self, folder: Path, split: str) -> pl.DataFrame:
        """Read one split: the label and the fields, as integers.

        Raises:
            UserError: the CSV that the file makes is not BARS'.
        """
        file = folder / self.file(split)
        content = self.to_csv(file)
        if hashlib.md5(content).hexdigest() != self.md5[split]:
            raise UserError(
                f"{file} is not the {split} split of {self.name}: made into BARS' CSV its MD5 is "
                f"not {self.md5[split]}; get it from {self._folder}"
            )
        return pl.read_csv(content)

    def to_csv(self, file: Path) -> bytes:
        """Make BARS' CSV: labels -1 as 0, ids without ``:1``, lines ended by CRLF."""
        lines = file.read_text(encoding="utf-8").splitlines()
        rows = ("0" + line[2:] if line.startswith("-1 ") else line for line in lines)
        cells = (row.rstrip().replace(":1 ", ",").removesuffix(":1") for row in rows)
        text = [",".join(("label", *self.fields)), *(row.replace(" ", ",", 1) for row in cells)]
        return ("\r\n".join(text) + "\r\n").encode()


FRAPPE = LibFMSet(
    "frappe_x1",
    "frappe/frappe",
    (
        "user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather",
        "country", "city",
    ),
    {
        "train": "ba7306e6c4fc19dd2cd84f2f0596d158",
        "valid": "88d51bf2173505436d3a8f78f2a59da8",
        "test": "3470f6d32713dc5f7715f198ca7c612a",
    },
    DATASETS["frappe_x1"],
)  # fmt: skip
MOVIELENS_TAGS = LibFMSet(
    "movielenslatest_x1",
    "ml-tag/ml-tag",
    ("user_id", "item_id", "tag_id"),
    {
        "train": "efc8bceeaa0e895d566470fc99f3f271",
        "valid": "e1930223a5026e910ed5a48687de8af1",
        "test": "54e8c6baff2e059fe067fb9b69e692d0",
    },
    DATASETS["movielenslatest_x1"],
)


def read_frappe_small() -> Splits:
    """Return the first 90 % of the official validation split, the rest of it, the official test.

    Raises:
        UserError: a file cannot be had, or has other rows than BARS'.
    """
    folder = fetch(DATASETS["frappe_x1"])
    pool, test = (FRAPPE.read_split(folder, name) for name in ("valid", "test"))
    cut = int(TRAIN_SHARE * len(pool))
    return Splits(pool[:cut], pool[cut:], test)
