"""The stream: every row once an epoch, in an order of the seed alone, from any position on."""

import numpy as np
import polars as pl
import pytest
import sample_tables
import torch

from sixfold.core import UserError
from sixfold.recsys.tables.encoder import Encoder
from sixfold.recsys.tables.memory import EncodedTable
from sixfold.recsys.tables.read import open_source
from sixfold.recsys.tables.schema import Schema
from sixfold.recsys.tables.selection import hold_out, sample_negatives
from sixfold.recsys.tables.stream import TableStream

ROWS = 500


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"x": np.arange(ROWS), "label": (rng.random(ROWS) < 0.2) * 1})
    return sample_tables.write(frame, tmp_path_factory.mktemp("stream") / "t.parquet", row_group=64)


@pytest.fixture(scope="module")
def encoder(file):
    return Encoder.fit(Schema.parse({"columns": {"x": {}}}, "test"), file)


def order(stream: TableStream, seed: int, batch: int = 37) -> list[int]:
    found = []
    for first in range(0, len(stream), batch):
        found += stream.at(range(first, min(first + batch, len(stream))), seed)["x"].tolist()
    return found


@pytest.mark.parametrize("window", [1, 100, 10_000])
def test_an_epoch_has_every_row_once(window, file, encoder):
    stream = TableStream(file, encoder, window=window)
    found = order(stream, 5)
    assert sorted(found) == list(range(1, ROWS + 1))
    assert found == order(TableStream(file, encoder, window=window), 5)
    assert found != order(stream, 6)


def test_a_stream_begins_anywhere_and_processes_share_it(file, encoder):
    whole = order(TableStream(file, encoder, window=100), 3)
    stream = TableStream(file, encoder, window=100)
    for first in (417, 64, 0, 499):
        assert stream.at([first], 3)["x"].tolist() == whole[first : first + 1]
    odd = stream.at(range(1, ROWS, 2), 3)["x"].tolist()
    assert odd == whole[1::2]


def test_rows_are_mixed_beyond_their_row_group(file, encoder):
    found = np.array(order(TableStream(file, encoder, window=10_000), 0))
    assert abs(np.corrcoef(found, np.arange(ROWS))[0, 1]) < 0.15
    assert len(set(found[:64] // 64)) == 8


def test_a_batch_is_what_the_table_in_memory_gives(file, encoder):
    stream, table = TableStream(file, encoder), EncodedTable.read(file, encoder)
    batch = stream.at(range(20), 1)
    expected = table.batch((batch["x"] - 1).tolist())
    assert set(batch) == set(expected) == {"x", "label"}
    for name, tensor in expected.items():
        assert batch[name].dtype == tensor.dtype
        assert torch.equal(batch[name], tensor)


def test_the_batches_of_a_table_are_its_rows_in_order(file, encoder):
    table = EncodedTable.read(file, encoder, targets=False)
    found = torch.cat([batch["x"] for batch in table.batches(33)])
    assert found.tolist() == list(range(1, ROWS + 1))


def test_only_the_rows_kept_are_streamed(file, encoder):
    keep = np.zeros(ROWS, bool)
    keep[[3, 70, 499]] = True
    stream = TableStream(file, encoder, keep)
    assert len(stream) == 3
    assert sorted(order(stream, 0)) == [4, 71, 500]
    assert EncodedTable.read(file, encoder, keep).arrays["x"].tolist() == [4, 71, 500]
    with pytest.raises(UserError, match="no row is left"):
        TableStream(file, encoder, np.zeros(ROWS, bool))


def test_an_error_in_a_selection_names_the_row_of_the_file(tmp_path):
    pl.DataFrame({"x": [1.0, None, 2.0, None]}).write_parquet(tmp_path / "t.parquet")
    schema = Schema.parse({"columns": {"x": {"kind": "numeric"}}}, "test")
    encoder = Encoder.fit(schema, tmp_path / "t.parquet")
    with pytest.raises(UserError, match="row 4 is empty"):
        EncodedTable.read(
            tmp_path / "t.parquet", encoder, np.array([True, False, True, True]), targets=False
        )


def test_positives_and_a_share_of_the_negatives_are_kept(file, encoder):
    labels = EncodedTable.read(file, encoder).arrays["label"]
    source = open_source(file)
    keep = sample_negatives(source, encoder.schema, 0.25, seed=0)
    assert keep[labels == 1].all()
    assert 0.15 < keep[labels == 0].mean() < 0.35
    assert (keep == sample_negatives(source, encoder.schema, 0.25, seed=0)).all()
    two = Schema.parse({"columns": {"x": {}}, "labels": ["label", "y"]}, "test")
    with pytest.raises(UserError, match="one label, and the schema has 2"):
        sample_negatives(source, two, 0.25, seed=0)
    with pytest.raises(UserError, match="negative_sampling is the share"):
        sample_negatives(source, encoder.schema, 1.5, seed=0)


def test_rows_are_held_out_by_chance():
    held = hold_out(1000, 0.2, seed=1)
    assert 150 < held.sum() < 250
    for fraction, words in ((1.0, "between 0 and 1"), (1e-9, "too few")):
        with pytest.raises(UserError, match=words):
            hold_out(10, fraction, seed=1)
