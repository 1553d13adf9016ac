"""The published tables: their homes, licences, and the checksum of every file.

The checksums are in checksums.csv. Sets without a download URL exist in mirrors only: archives that
were repacked, and figures that were collected from a public repository's records; a set without
files is checked otherwise (libfm.py). Tables that are
not for everyone to have (Criteo, Avazu, KKBox ...) have a schema in schemas/ instead.
"""

import csv
from importlib.resources import as_file, files

from sixfold.core import UserError
from sixfold.core.config import unknown_name_error
from sixfold.core.data.fetch import Dataset, File
from sixfold.recsys.tables.schema import Schema

_RAW = "https://raw.githubusercontent.com/"
_RECHUB = _RAW + "datawhalechina/torch-rechub/5a73b2eebc3a670dc64c54971cc06a78ddd55394/"
_FUXICTR = _RAW + "reczoo/FuxiCTR/0245987fdc1d43c36164ea496a02324885a8557a/data/"
NFM_URL = (
    _RAW + "hexiangnan/neural_factorization_machine/ca2a5d11b929816aa44c6e470e795af144608507/data/"
)


def _url(set_: str, path: str) -> str | None:
    if set_ == "frappe_x1":
        return NFM_URL + f"frappe/{path}"
    if set_ == "tiny_samples":
        own = path.removeprefix("fuxictr_tiny/")
        return _FUXICTR + own if own != path else f"{_RECHUB}examples/ranking/data/{path}"
    return None


def published_files(name: str) -> tuple[File, ...]:
    """Return the files of a set, with size, checksum and URL."""
    table = (files("sixfold.recsys.data") / "checksums.csv").read_text(encoding="utf-8")
    return tuple(
        File(row["path"], row["sha256"], int(row["bytes"]), _url(name, row["path"]))
        for row in csv.DictReader(table.splitlines())
        if row["set"] == name
    )


# set: home, licence, citation
_SETS = {
    "frappe_x1": (
        "https://github.com/hexiangnan/neural_factorization_machine",
        "research with citation; no redistribution, no commercial use",
        "Baltrunas, Church, Karatzoglou, Oliver: Frappe, arXiv:1505.03014",
    ),
    "movielenslatest_x1": (
        "https://github.com/hexiangnan/neural_factorization_machine",
        "research with citation; no redistribution, no commercial use without permission",
        "Harper, Konstan: The MovieLens datasets, TiiS 2015; tags, split by He, Chua, SIGIR 2017",
    ),
    "census_income": (
        "https://archive.ics.uci.edu/dataset/117/census+income+kdd",
        "CC BY 4.0",
        "Census-Income (KDD), UCI Machine Learning Repository, 2000",
    ),
    "bars_ctr_results": (
        "https://github.com/reczoo/BARS",
        "Apache-2.0",
        "Zhu et al.: BARS, SIGIR 2022; test results by run",
    ),
    "ml-100k": (
        "https://grouplens.org/datasets/movielens/100k/",
        "research with citation; no redistribution, no commercial use without permission",
        "Harper, Konstan: The MovieLens datasets, TiiS 2015; as RecBole's atomic files",
    ),
    "tiny_samples": (
        "https://github.com/datawhalechina/torch-rechub, https://github.com/reczoo/FuxiCTR",
        "each set's own (Criteo, Avazu: Kaggle; Ali-CCP, AliExpress: Tianchi; Census: CC BY 4.0)",
        "first rows of public sets, for tests of formats; no metric of them is a result",
    ),
}

DATASETS = {
    name: Dataset(name, home, licence, citation, published_files(name))
    for name, (home, licence, citation) in _SETS.items()
}


def published_schema(name: str) -> Schema:
    """Return what the columns of a public table mean: criteo_x4, avazu_x4, kkbox, ali_ccp ...

    Raises:
        UserError: there is no schema of that name.
    """
    folder = files("sixfold.recsys.data") / "schemas"
    known = sorted(file.name.removesuffix(".yaml") for file in folder.iterdir())
    if name not in known:
        raise UserError(unknown_name_error("recsys", "published schema", name, known))
    with as_file(folder / f"{name}.yaml") as file:
        return Schema.read(file)
