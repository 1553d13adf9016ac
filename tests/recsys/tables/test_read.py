"""Reading files of every format, piece by piece, and what is wrong with them."""

import gzip

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import sample_tables

from sixfold.core import UserError
from sixfold.recsys.tables import text
from sixfold.recsys.tables.read import open_source
from sixfold.recsys.tables.schema import TextFormat
from sixfold.recsys.tables.values import to_floats


def read(data, columns, format=None) -> list[tuple]:
    source = open_source(data, format)
    return [
        row
        for block in source.blocks(columns)
        for row in zip(*(block.column(c).to_pylist() for c in columns), strict=True)
    ]


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
@pytest.mark.parametrize("end", ["", "\n", "\r\n\r\n"])
def test_csv_is_cut_between_lines_only(size, end, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "BLOCK_BYTES", size)
    rows = [
        ("1", 'he said "no"'),
        ("2", "two\nlines, a comma"),
        ("3", ""),
        ("44", "NA"),
        ("5", "x"),
    ]
    frame = pl.DataFrame(rows, schema=["a", "b"], orient="row")
    file = tmp_path / "t.csv"
    file.write_text("\ufeff" + frame.write_csv().rstrip("\n") + end)
    assert len(open_source(file)) == 5
    assert read(file, ["b", "a"]) == [(b, a) for a, b in rows]
    numbers = [piece.first_row for piece in open_source(file).pieces]
    assert numbers == sorted(set(numbers))


def test_names_and_separator_come_from_the_schema(tmp_path):
    file = tmp_path / "t.txt"
    file.write_text("0\t5\n1\t6\n")
    assert read(file, ["x"], TextFormat(separator="\t", names=("label", "x"))) == [("5",), ("6",)]


def test_a_folder_is_one_table(tmp_path):
    table = sample_tables.interactions(50)
    for number in range(3):
        sample_tables.write(
            table[number * 20 : number * 20 + 20], tmp_path / f"part-{number}.parquet", 7
        )
    assert read(tmp_path, ["user", "city"]) == table.select("user", "city").rows()


LIBFM = "1 5:1 9:1\n-1 7:1 12:1\n"


def test_libfm_has_a_column_an_entry_or_one_of_lists(tmp_path):
    file = tmp_path / "t.libfm"
    file.write_text(LIBFM)
    names = TextFormat(names=("label", "user", "item"))
    assert read(file, ["label", "item"], names) == [("1", 9), ("0", 12)]
    assert read(file, ["label", "features"]) == [("1", [5, 9]), ("0", [7, 12])]
    file.write_text("1 0:5:1 1:9:1\n")
    assert read(file, ["features"]) == [([5, 9],)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1 5:1 9:1\n0 5:1\n", "row 2 has 1 entries, but text.names has 2"),
        ("1 5:1 9:0.5\n", "row 1: '9:0.5' is not index:1"),
    ],
)
def test_what_libfm_cannot_say_is_an_error(content, words, tmp_path):
    (tmp_path / "t.libfm").write_text(content)
    with pytest.raises(UserError, match=words):
        read(tmp_path / "t.libfm", ["label"], TextFormat(names=("label", "user", "item")))


def truncated(path):
    sample_tables.write(sample_tables.interactions(50), path)
    path.write_bytes(path.read_bytes()[:-100])


def damaged(path):
    sample_tables.write(sample_tables.interactions(500), path)
    content = path.read_bytes()
    path.write_bytes(content[:50] + bytes(1000) + content[1050:])


BAD = {
    "there is no file or folder": ("none.csv", lambda path: None),
    "is empty$": ("t.csv", lambda path: path.write_text("\n\n")),
    "is empty: it has columns and no rows": ("t.csv", lambda path: path.write_text("a,b\n")),
    "t.parquet is empty: it has columns": (
        "t.parquet", lambda path: pl.DataFrame({"a": []}).write_parquet(path),
    ),
    "is cut short: its end is missing": ("t.parquet", truncated),
    "is damaged": ("t.parquet", damaged),
    "is no csv file by its content, but parquet; rename it": (
        "t.csv", lambda path: pl.DataFrame({"a": [1]}).write_parquet(path),
    ),
    "is no parquet file by its content, but text": ("t.parquet", lambda p: p.write_text("a\n1\n")),
    "but a gzip archive; unpack it": (
        "t.csv", lambda path: path.write_bytes(gzip.compress(b"a\n1\n")),
    ),
    "files end in .parquet.*; unpack it": ("t.csv.gz", lambda path: path.write_text("a")),
    "files end in .parquet.*; rename it": ("t.xlsx", lambda path: path.write_text("a")),
    "has the column a more than once": ("t.csv", lambda path: path.write_text("a,b,a\n1,2,3\n")),
    "row 2: quotes are opened and not closed": (
        "t.csv", lambda path: path.write_text('a,b\n1,2\n3,"4\n5,6\n'),
    ),
    "row 1: quotes are opened and not closed": (
        "t.csv", lambda path: path.write_text('a,b\n"1,2\n'),
    ),
    "row 3: quotes are opened and not closed": (
        "t.csv", lambda path: path.write_text('a,b\n1,2\n3,4\n"5,6\n'),
    ),
    "the header is no line; end lines by LF or CRLF": (
        "t.csv", lambda path: path.write_bytes(b"a,b\r1,2\r"),
    ),
    "row 2 has 3 cells instead of 2": ("t.csv", lambda path: path.write_text("a,b\n1,2\n1,2,3\n")),
    "has no column 'a'; did you mean 'aa'": ("t.csv", lambda path: path.write_text("aa,b\n1,2\n")),
}  # fmt: skip


def read_all(path):
    source = open_source(path)
    source.check(["a"] if "user" not in source.columns else ["user"])
    list(source.blocks(source.columns))


@pytest.mark.parametrize("words", BAD)
def test_a_bad_file_is_named_in_one_line(words, tmp_path):
    name, make = BAD[words]
    make(tmp_path / name)
    with pytest.raises(UserError, match=words) as caught:
        read_all(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no file"):
        open_source(tmp_path)
    sample_tables.write(sample_tables.interactions(5), tmp_path / "a.csv")
    sample_tables.write(sample_tables.interactions(5), tmp_path / "b.parquet")
    with pytest.raises(UserError, match="files of several formats"):
        open_source(tmp_path)
    (tmp_path / "b.parquet").unlink()
    sample_tables.write(sample_tables.interactions(5).drop("price"), tmp_path / "c.csv")
    with pytest.raises(UserError, match=r"c.csv and .*a.csv differ in their columns: price"):
        open_source(tmp_path)


@pytest.mark.parametrize("data", [[], [1, 2], 5, {}, np.zeros((2, 2)), pl.LazyFrame()])
def test_what_is_no_table_is_refused(data):
    with pytest.raises(UserError, match=r"a table is|rows should be mappings"):
        open_source(data)


def test_empty_parts_of_a_folder_are_passed_over(tmp_path):
    for ending in (".parquet", ".csv"):
        folder = tmp_path / ending
        for name, values in {"a": [], "b": [1, 2], "c": []}.items():
            frame = pl.DataFrame({"x": values}, schema={"x": pl.Int64})
            sample_tables.write(frame, folder / f"{name}{ending}")
        assert [str(x) for (x,) in read(folder, ["x"])] == ["1", "2"]
        (folder / f"b{ending}").unlink()
        with pytest.raises(UserError, match="is empty: it has columns and no rows"):
            open_source(folder)


def test_a_dict_of_arrays_is_a_table():
    columns = {"a": np.array([2, 3]), "b": ["x", None], "c": np.array([[1, 2], [3, 4]])}
    assert read(columns, ["a", "b", "c"]) == [(2, "x", [1, 2]), (3, None, [3, 4])]
    with pytest.raises(UserError, match="differ in their numbers of rows: a 1, b 2"):
        open_source({"a": [1], "b": [1, 2]})
    with pytest.raises(UserError, match="column 'a' is no array or list of values, but int"):
        open_source({"a": 1})
    assert read({"a": np.array([1j])}, ["a"]) == [("1j",)]


def test_categoricals_of_polars_are_texts_also_where_numbers_are_wanted():
    frame = pl.DataFrame({"c": pl.Series(["1.5", "x"], dtype=pl.Categorical)})
    block = next(open_source(frame).blocks(["c"]))
    with pytest.raises(UserError, match="row 2 is 'x', no number"):
        to_floats(block.column("c"), block, "c")
    texts = pl.DataFrame({"t": pl.Series([["a", "b"]], dtype=pl.Array(pl.String, 2))})
    assert read(texts, ["t"]) == [(["a", "b"],)]


def test_a_frame_that_arrow_cannot_take_is_an_error_of_one_line():
    pd = pytest.importorskip("pandas")
    mixed = pd.DataFrame({"x": [1, "a"]})
    with pytest.raises(UserError, match=r"cannot be read: .*column x.*; give each column one type"):
        open_source(mixed)
    with pytest.raises(UserError, match="cannot be read: Duplicate column names"):
        open_source(pd.DataFrame([[1, 2]], columns=["x", "x"]))


def test_rows_may_lack_columns_and_mix_types():
    assert read([{"a": 1}, {"a": 2, "b": "x"}], ["a", "b"]) == [(1, None), (2, "x")]
    assert read([{"a": 1}, {"a": "x"}], ["a"]) == [("1",), ("x",)]
    assert read([{"a": 2**64 - 1}], ["a"]) == [(2**64 - 1,)]


def test_a_column_of_two_types_in_two_files_is_one_of_texts(tmp_path):
    from sixfold.recsys.tables.encoder import Encoder
    from sixfold.recsys.tables.schema import Schema

    pl.DataFrame({"x": [1, 2]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"x": ["3", "1"]}).write_parquet(tmp_path / "b.parquet")
    encoder = Encoder.fit(Schema.parse({"columns": {"x": {}}}, "test"), tmp_path)
    assert encoder.ids("x", [1, "2", 3, 4]) == [1, 2, 3, 4]


def test_frames_are_cut_into_pieces():
    source = open_source(pa.table({"x": [*range(1 << 18), 7]}))
    assert [piece.chunk.rows for piece in source.pieces] == [1 << 18, 1]


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_a_quote_within_a_cell_is_a_letter(size, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "BLOCK_BYTES", size)
    file = tmp_path / "t.csv"
    file.write_text('a,b\n1,27" screen\n2,5"\n3"",x\n"4\n""4""",y\n5,"z"\n')
    rows = [("1", '27" screen'), ("2", '5"'), ('3""', "x"), ('4\n"4"', "y"), ("5", "z")]
    assert read(file, ["a", "b"]) == rows
    source = open_source(file)
    found = [block.table.num_rows for block in source.blocks(["a"])]
    assert [piece.chunk.rows for piece in source.pieces] == found


def test_a_header_may_hold_line_ends_and_follow_empty_lines(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text('\ufeff\n\r\n"a\nb", c\n1,2\n')
    assert read(file, ["a\nb", "c"]) == [("1", "2")]


def test_marks_and_blank_lines_are_no_rows_of_libsvm(tmp_path):
    file = tmp_path / "t.libsvm"
    file.write_text("\ufeff1 5:1\n  \n0 6:1\n \n")
    assert len(open_source(file)) == 2
    assert read(file, ["label", "features"]) == [("1", [5]), ("0", [6])]


def test_a_row_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"user,label\n" + b"a,1\n" * 3 + b"caf\xe9,0\nb,1\n")
    source = open_source(tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"a\.csv, row 4: the text is not UTF-8: b'caf"):
        source.read(0, ["user"])
