"""A schema with its vocabularies: ids, rules for what is missing, the file."""

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sample_tables

from sixfold.core import UserError
from sixfold.recsys.tables.encode import EncodingReport
from sixfold.recsys.tables.encoder import Encoder
from sixfold.recsys.tables.memory import EncodedTable
from sixfold.recsys.tables.read import open_source
from sixfold.recsys.tables.schema import Schema


def schema(**columns) -> Schema:
    return Schema.parse({"columns": columns}, "the test's schema")


def encode(encoder: Encoder, data, report=None) -> dict[str, np.ndarray]:
    source = open_source(data, encoder.schema.text)
    needed = encoder.schema.needed(labels=False)
    parts = [encoder.encode(block, report) for block in source.blocks(needed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def ids_of(train, new=None, **column) -> list:
    """Fit one column on some values and return the ids of others."""
    encoder = Encoder.fit(schema(x=column), pa.table({"x": train}))
    return encode(encoder, pa.table({"x": train if new is None else new}))["x"].tolist()


def test_ids_are_sorted_values_then_the_unknown_one():
    assert ids_of([30, -5, 30, 7], [7, -5, 30, 31, None]) == [2, 1, 3, 4, 4]
    assert ids_of(["b", "a", "B"], ["B", "a", "b", "c", ""]) == [1, 2, 3, 4, 4]
    assert ids_of([True, False], [False, True, None]) == [1, 2, 3]


def test_rare_values_and_the_missing_one_have_no_id():
    assert ids_of([1, 1, 2, 0, 0], [0, 1, 2], missing=0, min_count=2) == [2, 1, 2]
    assert ids_of(["x", "x", "-", "-"], ["x", "-"], missing="-") == [1, 2]


EDGES = {
    "int64": (pa.int64(), [-(2**63), -(2**53) - 1, -(2**53), -1, 0, 2**24, 2**24 + 1, 2**63 - 1]),
    "uint64": (pa.uint64(), [0, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1]),
}


@pytest.mark.parametrize("kind", EDGES)
@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_large_and_negative_ids_have_a_row_each(kind, ending, tmp_path):
    dtype, values = EDGES[kind]
    file = sample_tables.write(
        pl.DataFrame(pa.table({"x": pa.array(values, dtype)})), tmp_path / ("x" + ending)
    )
    encoder = Encoder.fit(schema(x={}), file)
    expected = list(range(1, len(values) + 1))
    assert encode(encoder, file)["x"].tolist() == expected
    assert encode(encoder, [{"x": value} for value in values])["x"].tolist() == expected
    neighbours = [v + 1 for v in values if v + 1 not in values and v + 1 < 2**64]
    assert set(encode(encoder, [{"x": v} for v in neighbours])["x"].tolist()) == {len(values) + 1}


def test_a_signed_id_is_found_among_unsigned_ones():
    assert ids_of(pa.array([3, 2**64 - 1], pa.uint64()), pa.array([3, -1])) == [1, 3]
    assert ids_of(pa.array([3, -1]), pa.array([3, 2**64 - 1], pa.uint64())) == [2, 3]


@pytest.mark.parametrize("rows", [1, 31, 200, 3000])
def test_few_values_are_searched_and_many_hashed_alike(rows):
    train = list(range(0, 3000, 2))
    encoder = Encoder.fit(schema(x={}, y={}), pa.table({"x": train, "y": [f"v{i}" for i in train]}))
    probe = np.random.default_rng(0).permutation(np.arange(-3, 3003))[:rows].tolist()
    found = encode(encoder, [{"x": i, "y": f"v{i}"} for i in probe])
    ids = {value: number for number, value in enumerate(train, 1)}
    assert found["x"].tolist() == [ids.get(i, 1501) for i in probe]
    texts = {value: number for number, value in enumerate(sorted(f"v{i}" for i in train), 1)}
    assert found["y"].tolist() == [texts.get(f"v{i}", 1501) for i in probe]
    missing = encode(encoder, [{"x": None, "y": ""}] * rows)
    assert set(missing["x"].tolist()) == set(missing["y"].tolist()) == {1501}


def test_floats_that_are_whole_are_the_integers_that_pandas_made_them_of():
    assert ids_of([1, 5], [5.0, None, 1.0]) == [2, 3, 1]


@pytest.mark.parametrize("trained", [".csv", ".parquet"])
def test_whole_floats_have_the_same_ids_in_csv_and_parquet(trained, tmp_path):
    values = [10.0, 9.0, None, 9.0, -0.0]
    files = {
        ending: sample_tables.write(pl.DataFrame({"x": values}), tmp_path / f"t{ending}")
        for ending in (".csv", ".parquet")
    }
    (tmp_path / "t.csv").write_text('x\n10.0\n9\n""\n9.0\n-0.0\n')
    encoder = Encoder.fit(schema(x={}), files[trained])
    for file in files.values():
        assert encode(encoder, file)["x"].tolist() == [3, 2, 4, 2, 1]
    assert ids_of(["1.0", "1.5"], ["1", "1.0"]) == [3, 1]  # not all are whole: texts


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1.0, 2.5], "column 'x', row 2 is 2.5, no category; declare the column numeric"),
        ([1.0, 2.0**53], "row 2 is 9007199254740992 in a column of floats"),
        ([[1], [2]], "declare it multivalued or sequence"),
    ],
)
def test_what_is_no_category_is_refused(values, words):
    with pytest.raises(UserError, match=words):
        ids_of(values)


def test_a_declared_type_is_checked():
    assert ids_of(["10", "9"], dtype="str") == [1, 2]
    assert ids_of(["10", "9"]) == [2, 1]
    assert ids_of(["007", "7"]) == [1, 2]
    with pytest.raises(UserError, match="'a' is no int, which the schema says"):
        ids_of(["10", "a"], dtype="int")


LISTS = [["a", "b"], [], ["c"]]
KINDS = {
    "list<string not null>": pa.array(LISTS, pa.list_(pa.field("item", pa.string(), False))),
    "large lists": pa.array(LISTS, pa.large_list(pa.large_string())),
    "texts": pa.array(["a|b", "", "c"]),
    "large texts": pa.array(["a|b", None, "c"], pa.large_string()),
    "dictionary": pa.array(["a|b", "", "c"]).dictionary_encode(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_lists_of_any_type_are_read(kind, tmp_path):
    separator = "|" if "text" in kind or kind == "dictionary" else None
    column = {"kind": "multivalued", "max_length": 2, "separator": separator}
    pq.write_table(pa.table({"x": KINDS[kind]}), tmp_path / "x.parquet")
    encoder = Encoder.fit(schema(x=column), tmp_path / "x.parquet")
    assert encode(encoder, tmp_path / "x.parquet")["x"].tolist() == [[1, 2], [0, 0], [3, 0]]


def test_a_decimal_has_one_id_whatever_its_block_holds(tmp_path):
    values = pa.array(["1.00", "2.00", "1.00", "2.50"]).cast(pa.decimal128(5, 2))
    pq.write_table(pa.table({"x": values}), tmp_path / "t.parquet", row_group_size=2)
    encoder = Encoder.fit(schema(x={}), tmp_path / "t.parquet")
    assert encode(encoder, tmp_path / "t.parquet")["x"].tolist() == [1, 2, 1, 3]


def test_labels_may_be_booleans_or_their_texts():
    table = pl.DataFrame({"x": [1, 2], "label": [True, False]})
    for labels in ([True, False], ["True", "false"], ["1", "0.0"]):
        data = table.with_columns(label=pl.Series(labels))
        encoded = EncodedTable.read(data, Encoder.fit(schema(x={}), data))
        assert encoded.arrays["label"].tolist() == [1, 0]


def test_decimals_and_dictionaries_are_categories():
    decimals = pa.array([1, 20, 20]).cast(pa.decimal128(22, 2))
    assert ids_of(decimals, [20, 1, 3]) == [2, 1, 3]
    big = pa.array(["18446744073709551615", "3"]).cast(pa.decimal128(38, 0))
    assert ids_of(big, pa.array([2**64 - 1, 4], pa.uint64())) == [2, 3]
    fractions = pa.array(["1.50", "1.25"]).cast(pa.decimal128(5, 2))
    assert ids_of(fractions) == [2, 1]
    assert ids_of(pa.array(["b", "a", "b"]).dictionary_encode()) == [2, 1, 2]
    assert ids_of(pa.array([9, 8, None, 9]).dictionary_encode()) == [2, 1, 3, 2]


def test_a_set_keeps_its_first_values_and_a_sequence_its_last():
    data = pa.table({"x": [[1, 2, 3], [1], [None, 2]]})
    for kind, padding, expected in [
        ("multivalued", "post", [[1, 2], [1, 0], [2, 0]]),
        ("sequence", "post", [[2, 3], [1, 0], [2, 0]]),
        ("sequence", "pre", [[2, 3], [0, 1], [0, 2]]),
    ]:
        column = {"kind": kind, "max_length": 2, "padding": padding}
        encoder, report = Encoder.fit(schema(x=column), data), EncodingReport()
        assert encode(encoder, data, report)["x"].tolist() == expected
        assert report.cut == {"x": 1}
        assert "1 lists cut" in str(report)


def test_rows_of_empty_lists_and_empty_vocabularies_are_encoded():
    column = {"kind": "multivalued", "max_length": 2}
    encoder = Encoder.fit(schema(x=column), pa.table({"x": [[i] for i in range(50)]}))
    assert encode(encoder, [{"x": []}])["x"].tolist() == [[0, 0]]
    assert ids_of([1, 2, 3], min_count=2) == [1, 1, 1]
    assert ids_of([None, None]) == [1, 1]


def test_columns_that_share_a_vocabulary_have_one_of_both():
    columns = {
        "item": {},
        "seen": {"kind": "sequence", "max_length": 2, "share": "item"},
    }
    encoder = Encoder.fit(schema(**columns), pa.table({"item": [5, 7], "seen": [[9], [5]]}))
    assert [field.vocab_size for field in encoder.fields] == [5, 5]
    assert encode(encoder, pa.table({"item": [9, 7], "seen": [[7, 9], []]}))["seen"].tolist() == [
        [2, 3],
        [0, 0],
    ]


def test_quantiles_hold_equal_counts():
    data = pa.table({"x": list(range(100))})
    encoder = Encoder.fit(schema(x={"transform": "quantiles", "buckets": 4}), data)
    ids = encode(encoder, data)["x"]
    assert np.bincount(ids).tolist() == [0, 25, 25, 25, 25]
    assert encode(encoder, pa.table({"x": [-9.0, 1e9, None, np.nan]}))["x"].tolist() == [1, 4, 5, 5]
    assert encoder.fields[0].vocab_size == 6


def test_criteos_buckets_put_missing_and_zero_together():
    column = {"transform": "log_square", "missing": 0}
    assert ids_of([None, 0, 1, 3, 100], **column) == [3, 3, 1, 1, 2]


@pytest.mark.parametrize("bad", [None, np.nan, np.inf, -np.inf, 1e300])
def test_a_number_that_is_none_is_filled_or_an_error(bad):
    rows = pa.table({"x": [1.0, 2.0, bad]})
    filled = Encoder.fit(schema(x={"kind": "numeric", "missing": -1.0}), rows)
    report = EncodingReport()
    assert encode(filled, rows, report)["x"].tolist() == [1, 2, -1]
    assert report.filled == {"x": 1}
    strict = Encoder.fit(schema(x={"kind": "numeric"}), rows)
    with pytest.raises(
        UserError, match=r"the table: column 'x', row 3 is .*give the schema a rule"
    ):
        encode(strict, rows)


def test_unknown_values_in_every_column_at_once_are_counted():
    train = sample_tables.interactions()
    encoder, report = Encoder.fit(sample_tables.SCHEMA, train), EncodingReport()
    row = {"user": 1, "item": 999, "city": "?", "member": None, "price": 1, "age": None}
    found = encode(encoder, [row | {"genres": "x|y", "history": "1000"}], report)
    for field in encoder.fields:
        if field.kind == "categorical":
            assert field.vocab_size is not None
            assert found[field.name].tolist() == [field.vocab_size - 1]
    assert found["genres"].tolist() == [[5, 5, 0]]
    shares = report.unknown_shares()
    assert set(shares.values()) == {1.0}
    assert "user 100.00%" in str(report)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_files_frames_and_rows_are_encoded_alike(ending, tmp_path):
    train = sample_tables.interactions()
    encoder = Encoder.fit(sample_tables.SCHEMA, train)
    file = sample_tables.write(train, tmp_path / f"train{ending}")
    assert Encoder.fit(sample_tables.SCHEMA, file).digest() == encoder.digest()
    expected = encode(encoder, train)
    for other in (file, train.to_arrow(), train.to_dicts(), train.to_pandas()):
        found = encode(encoder, other)
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_the_encoder_file_brings_everything_back(tmp_path):
    train = sample_tables.interactions()
    encoder = Encoder.fit(sample_tables.SCHEMA, train)
    encoder.save(tmp_path / "encoder.parquet")
    loaded = Encoder.load(tmp_path)
    assert loaded.schema == encoder.schema
    assert loaded.fields == encoder.fields
    assert loaded.digest() == encoder.digest()
    for name, array in encode(encoder, train).items():
        np.testing.assert_array_equal(encode(loaded, train)[name], array)


def test_the_encoder_file_is_the_table_that_its_text_describes(tmp_path):
    train = pa.table({"x": ["b", "a", "b"]})
    Encoder.fit(schema(x={}), train).save(tmp_path / "e.parquet")
    assert pl.read_parquet(tmp_path / "e.parquet").rows() == [("x", 1, "a", 1), ("x", 2, "b", 2)]


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more"])
def test_a_file_that_is_no_encoder_is_refused(content, tmp_path):
    (tmp_path / "encoder.parquet").write_bytes(content)
    with pytest.raises(UserError, match="is no encoder file, or damaged"):
        Encoder.load(tmp_path)
    with pytest.raises(UserError, match="there is no encoder"):
        Encoder.load(tmp_path / "elsewhere")
    sample_tables.write(sample_tables.interactions(5), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="is no encoder file"):
        Encoder.load(tmp_path / "other.parquet")


def test_rows_held_out_give_no_ids():
    keep = np.array([True, False, True])
    encoder = Encoder.fit(schema(x={}), pa.table({"x": [1, 2, 3]}), keep)
    assert encode(encoder, pa.table({"x": [1, 2, 3]}))["x"].tolist() == [1, 3, 2]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["0", "1", "2"], "column 'label', row 3 is 2, not a label"),
        ([0, None, 1], "row 2 is empty or NaN, not a label"),
        (["0", "yes", "1"], "row 2 is 'yes', no number"),
    ],
)
def test_a_label_is_0_or_1(values, words):
    data = pa.table({"x": [1, 2, 3], "label": values})
    encoder = Encoder.fit(schema(x={}), data)
    with pytest.raises(UserError, match=words):
        EncodedTable.read(data, encoder)


def test_weights_are_read_and_checked():
    data = {"x": [1, 2], "label": [True, False], "w": [0.5, 2]}
    weighted = Schema.parse({"columns": {"x": {}}, "weight": "w"}, "test")
    encoder = Encoder.fit(weighted, pa.table(data))
    batch = EncodedTable.read(pa.table(data), encoder).batch([1, 0])
    assert batch["weight"].tolist() == [2, 0.5]
    assert batch["label"].tolist() == [0, 1]
    with pytest.raises(UserError, match="row 2 is -2, not a sample weight"):
        EncodedTable.read(pa.table(data | {"w": [1, -2]}), encoder)


DAMAGE = {
    "no metadata": lambda table: table.replace_schema_metadata({}),
    "no schema": lambda table: table.replace_schema_metadata({b"sixfold.encoder": b"{}"}),
    "nested": lambda table: table.replace_schema_metadata({b"sixfold.encoder": b"[" * 200_000}),
    "no counts": lambda table: table.drop_columns(["count"]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_encoder_file_is_an_error_of_one_line(damage, tmp_path):
    file = tmp_path / "encoder.parquet"
    Encoder.fit(schema(x={}), pa.table({"x": [1, 2]})).save(file)
    pq.write_table(DAMAGE[damage](pq.read_table(file)), file)
    with pytest.raises(UserError, match="is no encoder file, or damaged; copy it again"):
        Encoder.load(file)


def test_a_folder_whose_name_is_no_utf8_holds_tables_and_encoders(tmp_path):
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    table = pl.DataFrame({"user": ["a", "b", "a"], "label": [0, 1, 1]})
    with (folder / "t.parquet").open("wb") as file:
        table.write_parquet(file)
    encoder = Encoder.fit(Schema.parse({"columns": {"user": {}}}, "test"), folder / "t.parquet")
    encoder.save(folder / "encoder.parquet")
    assert Encoder.load(folder).digest() == encoder.digest()
    assert encoder.ids("user", ["b"]) != encoder.ids("user", ["a"])
