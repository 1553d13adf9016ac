"""The command line: train on a table, score tables, score the scores."""

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import sample_tables
import tiny_ranker
from cyclopts import App

from sixfold.core import UserError
from sixfold.recsys import own_data
from sixfold.recsys.scoring import score
from sixfold.recsys.tables.fitting import TableFit

QUICK = TableFit(epochs=2, batch=64, learning_rate=0.02, threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("own")
    sample_tables.SCHEMA.write(path / "schema.yaml")
    data = sample_tables.write(sample_tables.interactions(600), path / "train.parquet")
    sample_tables.write(sample_tables.interactions(300, seed=1), path / "new" / "a.parquet")
    sample_tables.write(
        sample_tables.interactions(30, seed=2).drop("click"), path / "new" / "b.csv"
    )
    train = own_data.train_command(tiny_ranker.SYSTEM)
    train(data=data, out=path / "run", valid="0.2", set=["embedding_dim=4"], options=QUICK)
    return path


def run(*paths, **options):
    own_data.run_command(tiny_ranker.SYSTEM)(*map(Path, paths), **options)


def test_a_table_is_scored_in_its_order_with_its_keys(folder, tmp_path, capsys):
    source = folder / "new" / "a.parquet"
    for ending in ("parquet", "csv"):
        out = tmp_path / f"scores.{ending}"
        run(source, out, weights=folder / "run", keys=["user", "city"])
        found = (
            pl.read_parquet(out)
            if ending == "parquet"
            else pl.read_csv(out).with_columns(pl.col("city").fill_null(""))
        )
        given = pl.read_parquet(source)
        assert found.columns == ["user", "city", "click_score"]
        assert found["user"].to_list() == given["user"].to_list()
        assert found["city"].to_list() == given["city"].to_list()
        model = tiny_ranker.TinyRanker.from_pretrained(folder / "run")
        np.testing.assert_allclose(found["click_score"], model.predict(given)["click"], atol=1e-6)
    assert "scores.csv: 300 rows" in capsys.readouterr().out


def test_tables_without_labels_are_scored_a_folder_at_once(folder, tmp_path):
    run(folder / "new", tmp_path / "out", weights=folder / "run")
    assert pl.read_parquet(tmp_path / "out" / "a.parquet").shape == (300, 1)
    assert pl.read_csv(tmp_path / "out" / "b.csv").shape == (30, 1)


def test_the_share_of_unknown_values_is_printed(folder, tmp_path, capsys):
    table = sample_tables.interactions(50).with_columns(user=pl.lit(1), city=pl.lit("?"))
    run(sample_tables.write(table, tmp_path / "t.csv"), tmp_path / "s.csv", weights=folder / "run")
    printed = capsys.readouterr().out
    assert "unknown or missing: user 100.00%, city 100.00%" in printed


def test_what_cannot_be_scored_is_said(folder, tmp_path):
    source = folder / "new" / "a.parquet"
    with pytest.raises(UserError, match="has no column 'usr'; did you mean 'user'"):
        run(source, tmp_path / "s.csv", weights=folder / "run", keys=["usr"])
    with pytest.raises(UserError, match=r"should end in .parquet or .csv"):
        run(source, tmp_path / "s.txt", weights=folder / "run")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "model.safetensors").write_bytes(
        (folder / "run" / "model.safetensors").read_bytes()
    )
    with pytest.raises(UserError, match=r"has no encoder.parquet"):
        run(source, tmp_path / "s.csv", weights=tmp_path / "bare")
    assert not (tmp_path / "s.csv").exists()


def test_a_schema_is_guessed_where_there_is_none(tmp_path, capsys):
    data = sample_tables.write(sample_tables.interactions(200), tmp_path / "train.csv")
    train = own_data.train_command(tiny_ranker.SYSTEM)
    train(data=data, out=tmp_path / "run", options=QUICK)
    assert (tmp_path / "schema.yaml").is_file()
    assert "a first guess of what the columns mean" in capsys.readouterr().out


def test_the_scores_of_scores(folder, tmp_path, capsys):
    source, out = folder / "new" / "a.parquet", tmp_path / "s.parquet"
    run(source, out, weights=folder / "run")
    found = score(source, out, label="click", group="user")
    assert found.values["auc"] > 0.7
    assert "gauc" in capsys.readouterr().out
    with pytest.raises(UserError, match="has 600 rows and"):
        score(folder / "train.parquet", out, label="click")
    with pytest.raises(UserError, match="has no column 'label'"):
        score(source, out)
    with pytest.raises(UserError, match=r"row 1 is .*, not a label"):
        score(source, out, label="age", column="click_score")


def test_a_system_is_found_by_the_function_that_its_record_names(monkeypatch):
    module = type(sys)("recsys")
    module.SYSTEMS = (tiny_ranker.SYSTEM,)  # type: ignore[attr-defined]
    monkeypatch.setattr(own_data, "domain", lambda name: module)
    assert callable(own_data.train_tiny)  # type: ignore[attr-defined]
    assert own_data.run_tiny.__doc__.startswith("Score the rows")  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="did you mean 'tiny'"):
        own_data.run_tinyx  # type: ignore[attr-defined] # noqa: B018


def test_the_options_of_the_command_are_those_of_the_training(folder, tmp_path, capsys):
    app = App(name="train", result_action="return_value")
    app.default(own_data.train_command(tiny_ranker.SYSTEM))
    given = ["--data", folder / "train.parquet", "--out", tmp_path / "run", "--epochs", 1]
    given += ["--batch", 64, "--negative-sampling", 0.9, "--embedding-l2", "l1(0.001)"]
    given += ["--net-l2", 0.01]
    model = app([*map(str, given), "--threads", "1", "--set", "embedding_dim=4"])
    assert model.config.embedding_dim == 4
    assert model.encoder.kept_negatives == 0.9
