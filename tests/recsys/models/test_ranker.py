"""The doors: learn from a table, score one, stop and go on, weights and encoder together."""

import shutil
from typing import Any

import numpy as np
import polars as pl
import pytest
import sample_tables
import torch
from tiny_ranker import TinyRanker

from sixfold.core import UserError
from sixfold.recsys import LR, DualMLP
from sixfold.recsys.tables.encode import EncodingReport
from sixfold.recsys.tables.schema import Schema
from sixfold.recsys.tables.vocabulary import Vocabulary

ROUNDING = 1e-6  # of float32, which depends on where arrays lie in memory
QUICK = {"epochs": 6, "batch": 64, "learning_rate": 0.02, "threads": 1}


def trained(
    table, folder=None, *, schema=sample_tables.SCHEMA, settings=None, **options
) -> TinyRanker:
    return TinyRanker.from_schema(schema, **settings or {}).fit(
        table, folder=folder, **QUICK | options
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranker")
    sample_tables.write(sample_tables.interactions(1200), path / "train.parquet")
    sample_tables.write(sample_tables.interactions(400, seed=1), path / "valid.parquet")
    trained(path / "train.parquet", path / "run", valid=path / "valid.parquet")
    return path


def test_it_learns_and_scores_itself(folder):
    model = TinyRanker.from_pretrained(folder / "run")
    scored = model.score(folder / "valid.parquet")
    values = scored.labels["click"].values
    assert values["auc"] > 0.8
    assert 0.8 < values["calibration"] < 1.25
    assert values["groups"] + values["groups_left_out"] == 20
    text = str(scored)
    assert "click: auc" in text
    assert "click: gauc" in text


def test_a_run_folder_brings_the_same_model_back(folder, tmp_path):
    model = TinyRanker.from_pretrained(folder / "run")
    model.save(tmp_path / "copy")
    copy = TinyRanker.from_pretrained(tmp_path / "copy" / "model.safetensors")
    table = folder / "valid.parquet"
    np.testing.assert_allclose(
        model.predict(table)["click"], copy.predict(table)["click"], rtol=0, atol=ROUNDING
    )


def test_a_stream_of_rows_and_a_table_are_scored_alike(folder):
    model = TinyRanker.from_pretrained(folder / "run")
    table = pl.read_parquet(folder / "valid.parquet")
    expected = model.predict(folder / "valid.parquet")["click"]
    found = [row["click"] for row in model.score_rows(table.to_dicts()[:70])]
    np.testing.assert_allclose(found, expected[:70], rtol=0, atol=ROUNDING)
    assert model.score_rows(table.drop("click").to_dicts()[5:6])[0]["click"] == pytest.approx(
        expected[5], abs=1e-6
    )
    assert model.score_rows([]) == []


def test_tables_without_labels_and_with_other_columns_are_scored(folder):
    model = TinyRanker.from_pretrained(folder / "run")
    table = pl.read_parquet(folder / "valid.parquet")
    expected = model.predict(table)["click"]
    found = model.predict(table.drop("click").with_columns(more=pl.lit("x")))["click"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING)
    assert len(model.predict(table[:0])["click"]) == 0
    with pytest.raises(UserError, match="the table has no column 'price'"):
        model.predict(table.drop("price"))


def test_unknown_values_everywhere_have_a_score_and_are_reported(folder):
    model, report = TinyRanker.from_pretrained(folder / "run"), EncodingReport()
    row = {"user": 0, "item": 10**6, "city": "?", "member": "?", "price": float("nan")}
    found = model.predict([row | {"age": None, "genres": None, "history": "10 20"}], report)
    assert np.isfinite(found["click"]).all()
    assert report.unknown_shares()["user"] == 1


def test_a_csv_and_its_parquet_copy_train_the_same_model(folder, tmp_path):
    table = sample_tables.interactions(400)
    made = [
        trained(sample_tables.write(table, tmp_path / f"train{ending}", row_group=1000))
        for ending in (".csv", ".parquet")
    ]
    first, second = (model.predict(folder / "valid.parquet")["click"] for model in made)
    np.testing.assert_allclose(first, second, rtol=0, atol=ROUNDING)


def test_a_libfm_file_trains_the_model_of_its_table(tmp_path):
    table = sample_tables.interactions(300).select(
        label="click", user=pl.col("user") - 2**60, item=pl.col("item") + 50
    )
    lines = [f"{2 * label - 1} {user}:1 {item}:1" for label, user, item in table.rows()]
    (tmp_path / "t.libfm").write_text("\n".join(lines))
    values = {"columns": {"user": {}, "item": {}}, "text": {"names": ["label", "user", "item"]}}
    schema = Schema.parse(values, "test")
    first, second = (trained(data, schema=schema) for data in (tmp_path / "t.libfm", table))
    found = first.predict(tmp_path / "t.libfm")["label"]
    np.testing.assert_allclose(found, second.predict(table)["label"], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stopped_training_goes_on_with_the_same_numbers(stream, folder, tmp_path, monkeypatch):
    from sixfold.core.training.run import Run

    def fit(name):
        return trained(
            folder / "train.parquet", tmp_path / name, valid=folder / "valid.parquet", stream=stream
        )

    whole = fit("whole")
    log, seen = Run.log, []

    def stop(run, step, **scalars):
        log(run, step, **scalars)
        seen.append(step)
        if step >= 40:
            run._signal = 15

    monkeypatch.setattr(Run, "log", stop)
    with pytest.raises(SystemExit):
        fit("stopped")
    monkeypatch.undo()
    assert max(seen) == 40
    table = folder / "valid.parquet"
    found = fit("stopped").predict(table)["click"]
    np.testing.assert_allclose(found, whole.predict(table)["click"], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("stream", [False, True])
def test_an_epoch_may_end_with_a_single_row(stream):
    table = sample_tables.interactions(65)  # two batches of 32 and one row
    model = DualMLP.from_schema(sample_tables.SCHEMA, embedding_dim=2).fit(
        table, valid=table, epochs=1, batch=32, threads=1, stream=stream
    )
    assert np.isfinite(model.predict(table)["click"]).all()


def test_a_finished_run_is_loaded_and_not_trained_again(folder, capsys):
    before = (folder / "run" / "curve.csv").read_bytes()
    model = trained(folder / "train.parquet", folder / "run", valid=folder / "valid.parquet")
    assert (folder / "run" / "curve.csv").read_bytes() == before
    assert model.encoder is not None
    again = TinyRanker.from_pretrained(folder / "run")
    table = folder / "valid.parquet"
    np.testing.assert_allclose(
        model.predict(table)["click"], again.predict(table)["click"], rtol=0, atol=ROUNDING
    )


def test_a_part_of_the_rows_is_held_out(folder):
    model = trained(folder / "train.parquet", valid=0.3)
    assert model.encoder is not None
    users = model.encoder.rules["user"]
    assert isinstance(users, Vocabulary)
    seen = sum(users.counts.to_pylist())
    assert 700 < seen < 960


def test_predictions_are_corrected_for_the_negatives_left_out(folder):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, 6000)
    label = (rng.random(6000) < np.array([0.02, 0.05, 0.1, 0.2])[x]).astype(int)
    table = pl.DataFrame({"x": x, "label": label})
    schema = Schema.parse({"columns": {"x": {}}}, "test")
    options = {"schema": schema, "batch": 256, "settings": {"dropout": 0.0}}
    model = trained(table, negative_sampling=0.3, valid=table, **options)
    scores = model.score(table).labels["label"].values
    assert scores["calibration"] == pytest.approx(1, abs=0.15)
    plain = trained(table, valid=table, **options).score(table).labels["label"].values
    assert scores["logloss"] < plain["logloss"] + 0.01


def test_one_class_in_validation_lets_logloss_decide(folder, capsys, tmp_path):
    clicks = sample_tables.interactions(100, seed=2).with_columns(click=pl.lit(0))
    model = trained(folder / "train.parquet", tmp_path / "run", valid=clicks)
    assert "all 100 labels are 0, AUC is undefined; logloss decides" in capsys.readouterr().out
    scored = model.score(clicks).labels["click"]
    assert scored.undefined["auc"] == "all 100 labels are 0"
    assert np.isfinite(scored.values["logloss"])


def test_several_labels_have_a_score_each(folder):
    table = pl.read_parquet(folder / "train.parquet").with_columns(
        buy=(pl.col("click") * (pl.col("item") > 0)).cast(pl.Int64)
    )
    schema = sample_tables.SCHEMA.model_copy(update={"labels": ("click", "buy")})
    model = trained(table, schema=schema)
    assert set(model.predict(table)) == {"click", "buy"}
    assert all(s.values["auc"] > 0.7 for s in model.score(table).labels.values())
    with pytest.raises(UserError, match="one label, and the schema has 2"):
        trained(table, schema=schema, negative_sampling=0.5)


def test_pretrained_vectors_are_the_first_rows_and_stay_if_frozen(tmp_path):
    vectors = pl.DataFrame({"value": [1, 2, 77], "vector": np.eye(3, 8) + 1})
    vectors.write_parquet(tmp_path / "v.parquet")
    table = pl.DataFrame({"x": [1, 2, 3] * 30, "label": [0, 1, 0] * 30})
    (tmp_path / "s.yaml").write_text("columns:\n  x: {pretrained: v.parquet, frozen: true}\n")
    model = TinyRanker.from_schema(tmp_path / "s.yaml").fit(table, epochs=1, batch=32)
    assert model.encoder is not None
    rows = model.embedding.rows("x").detach().numpy()[model.encoder.ids("x", [1, 2])]
    np.testing.assert_array_equal(rows, (np.eye(3, 8) + 1)[:2].astype(np.float32))
    with pytest.raises(UserError, match="has vectors of 8 numbers; set embedding_dim, now 4"):
        TinyRanker.from_schema(tmp_path / "s.yaml", embedding_dim=4).fit(table)
    with pytest.raises(UserError, match="LR has no vectors; leave out pretrained of x"):
        LR.from_schema(tmp_path / "s.yaml").fit(table)
    vectors.with_columns(value=pl.lit(1)).write_parquet(tmp_path / "v.parquet")
    with pytest.raises(UserError, match=r"v.parquet has two vectors of 1; keep one"):
        TinyRanker.from_schema(tmp_path / "s.yaml").fit(table)
    vectors.with_columns(value=pl.Series([7, 8, 9])).write_parquet(tmp_path / "v.parquet")
    with pytest.raises(UserError, match="has no vector of a value of column 'x'"):
        TinyRanker.from_schema(tmp_path / "s.yaml").fit(table)


def test_an_encoder_of_other_weights_is_refused(folder, tmp_path):
    other = trained(sample_tables.interactions(300, seed=5), tmp_path / "other")
    shutil.copy(folder / "run" / "model.safetensors", tmp_path / "other")
    with pytest.raises(UserError, match=r"belongs to other weights than model.safetensors"):
        TinyRanker.from_pretrained(tmp_path / "other")
    other.encoder = None
    with pytest.raises(UserError, match="has no encoder of tables"):
        other.predict(folder / "valid.parquet")
    (tmp_path / "other" / "encoder.parquet").unlink()
    assert TinyRanker.from_pretrained(tmp_path / "other").encoder is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"embedding_l2": "l3(1)"}, "a regulariser is a number"),
        ({"settings": {"embedding": 3}}, "did you mean 'embedding_dim'"),
        (
            {"settings": {"labels": ["buy"]}},
            "labels are read from schema and table; leave them out",
        ),
        ({"settings": {"embedding_dim": 10**12}}, "out of memory"),
        ({"negative_sampling": 2.0}, "share of negatives"),
        ({"valid": 1.5}, "fraction between 0 and 1"),
        ({"valid": "none.parquet"}, "there is no file or folder none.parquet"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(UserError, match=words):
        trained(sample_tables.interactions(50), **options)


def test_a_mended_label_is_another_table(tmp_path):
    table = sample_tables.interactions(200)
    for data in (table, table.with_columns(click=1 - pl.col("click"))):
        file = sample_tables.write(data, tmp_path / "t.csv")  # of the same name and size
        trained(file, tmp_path / "run", epochs=1)
    assert (tmp_path / "run.old-1").is_dir()


def test_another_table_sets_the_run_aside(folder, tmp_path):
    for seed in (3, 4):
        trained(sample_tables.interactions(200, seed=seed), tmp_path / "run", epochs=1)
    assert (tmp_path / "run.old-1").is_dir()


def test_a_number_out_of_range_is_refused_instead_of_predicted_as_nan(folder):
    model = TinyRanker.from_pretrained(folder / "run")
    with torch.no_grad():
        next(iter(model.parameters())).fill_(float("inf"))
    with pytest.raises(UserError, match="predictions are not finite"):
        model.predict(folder / "valid.parquet")


def test_a_table_without_rows_has_no_scores(folder):
    model = TinyRanker.from_pretrained(folder / "run")
    with pytest.raises(UserError, match="no rows to score"):
        model.score(pl.read_parquet(folder / "valid.parquet").head(0))


def test_rows_may_be_a_frame_and_a_schema_no_dict(folder, unchecked):
    model = TinyRanker.from_pretrained(folder / "run")
    frame: Any = pl.read_parquet(folder / "valid.parquet").head(3)
    assert model.score_rows(frame) == model.score_rows(frame.to_dicts())
    schema: Any = {"columns": {}}
    with pytest.raises(UserError, match=r"path of its YAML file, got dict; .* Schema.parse"):
        TinyRanker.from_schema(schema)


def test_rows_map_names(folder, unchecked):
    rows: Any = [{1: 2}]
    with pytest.raises(UserError, match="1 is no name"):
        TinyRanker.from_pretrained(folder / "run").score_rows(rows)
