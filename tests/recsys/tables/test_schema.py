"""The schema: what it refuses, its file, and the first one that is guessed."""

import polars as pl
import pytest
import sample_tables

from sixfold.core import UserError
from sixfold.recsys.tables.encoder import Encoder
from sixfold.recsys.tables.infer import infer_schema
from sixfold.recsys.tables.read import open_source
from sixfold.recsys.tables.schema import Column, Schema, as_schema


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ({"kind": "sequence"}, "a sequence column needs max_length"),
        ({"separator": "|"}, "belong to kind multivalued or sequence"),
        ({"kind": "numeric", "min_count": 2}, "a numeric column has no min_count"),
        ({"kind": "numeric", "missing": "x"}, "missing should be a number"),
        ({"transform": "quantiles"}, "quantiles and buckets"),
        ({"buckets": 3}, "quantiles and buckets"),
        ({"transform": "quantiles", "buckets": 10**9}, r"columns\.x\.buckets: .* less than"),
        ({"frozen": True}, "give their file"),
        ({"share": "y"}, "has no column 'y'"),
        ({"kind": "multivalued", "max_length": 2, "transform": "hour"}, "columns of one value"),
        ({"kinds": "numeric"}, "did you mean 'kind'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(column, words):
    with pytest.raises(UserError, match=words):
        Schema.parse({"columns": {"x": column}}, "s.yaml")


def test_a_label_is_no_input():
    for columns in ({"label": {}}, {"x": {"source": "label"}}):
        with pytest.raises(UserError, match="label is a label or weight"):
            Schema.parse({"columns": columns}, "s.yaml")


@pytest.mark.parametrize("role", ["weight", "group"])
def test_a_label_is_neither_weight_nor_group(role):
    with pytest.raises(UserError, match="a label, label, cannot be the weight or group too"):
        Schema.parse({"columns": {"x": {}}, role: "label"}, "s.yaml")


def test_lists_padded_beyond_memory_are_refused():
    schema = Schema(columns={"x": Column(kind="multivalued", max_length=10**12)})
    frame = pl.DataFrame({"x": [["a"], ["b"]], "label": [0, 1]})
    encoder = Encoder.fit(schema, frame)
    with pytest.raises(UserError, match=r"takes 8e\+12 bytes, .* make max_length smaller"):
        encoder.encode(next(open_source(frame).blocks(["x"])))


def test_an_input_is_not_taken_for_sample_weights():
    with pytest.raises(UserError, match=r"call the column otherwise, e.g. columns: \{body_weight"):
        Schema.parse({"columns": {"weight": {}}}, "s.yaml")
    schema = infer_schema(pl.DataFrame({"weight": [60.5, 70.2], "label": [0, 1]}))
    assert schema.columns["weight_"].source == "weight"
    assert schema.weight is None


def test_a_schema_is_written_and_read(tmp_path):
    sample_tables.SCHEMA.write(tmp_path / "s.yaml")
    assert as_schema(tmp_path / "s.yaml") == sample_tables.SCHEMA


def test_vectors_are_looked_for_beside_the_schema(tmp_path):
    (tmp_path / "s.yaml").write_text("columns:\n  x: {pretrained: v.parquet, frozen: true}\n")
    assert Schema.read(tmp_path / "s.yaml").columns["x"].pretrained == tmp_path / "v.parquet"


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_first_schema_is_guessed(ending, tmp_path, capsys):
    table = sample_tables.interactions(200).with_columns(id=pl.format("row{}", pl.int_range(200)))
    file = sample_tables.write(table, tmp_path / f"train{ending}", row_group=500)
    schema = infer_schema(file, tmp_path / "s.yaml")
    assert Schema.read(tmp_path / "s.yaml") == schema
    kinds = {name: column.kind for name, column in schema.columns.items()}
    assert kinds == {
        "user": "categorical",
        "item": "categorical",
        "city": "categorical",
        "member": "categorical",
        "price": "numeric",
        "age": "categorical",
        "genres": "multivalued",
        "history": "multivalued",
    }
    assert schema.columns["genres"].separator == "|"
    assert (schema.labels, schema.group) == (("click",), "user")
    assert "left out, no categories or another value in every row: id" in capsys.readouterr().out


def test_a_table_without_a_usual_label_asks_for_one():
    with pytest.raises(
        UserError, match=r"no column is called label.*say labels=\[...\] of x, bought"
    ):
        infer_schema(pl.DataFrame({"x": [1], "bought": [1]}))
    assert infer_schema(pl.DataFrame({"x": [1], "bought": [1]}), labels=["bought"]).labels == (
        "bought",
    )


def test_numbers_with_gaps_have_a_rule():
    schema = infer_schema(pl.DataFrame({"x": [1.5, None], "y": [0.5, 0.1], "label": [0, 1]}))
    assert schema.columns["x"].missing == 0.0
    assert schema.columns["y"].missing is None


def test_types_without_categories_are_left_out_of_a_guess(capsys):
    frame = pl.DataFrame(
        {
            "label": [0, 1],
            "struct": [{"a": 1}, {"a": 2}],
            "bytes": [b"a", b"b"],
            "vector": [[0.5, 1.0], [0.1, 2.0]],
            "pair": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int64, 2)),
            "kind": pl.Series(["a", "b"], dtype=pl.Categorical),
        }
    )
    columns = infer_schema(frame).columns
    assert list(columns) == ["pair", "kind"]
    assert columns["pair"] == Column(kind="multivalued", max_length=2)
    assert "in every row: struct, bytes, vector" in capsys.readouterr().out


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_the_character_between_cells_is_guessed(separator, tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("user,click\n7,0\n8,1\n".replace(",", separator))
    schema = infer_schema(file, tmp_path / "schema.yaml")
    assert schema.text.separator == separator
    assert list(Schema.read(tmp_path / "schema.yaml").columns) == ["user"]
