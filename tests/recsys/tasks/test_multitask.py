"""The task of several tasks: what it prepares, one short training, its scores and its report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sixfold.core.pipeline.job import Job
from sixfold.recsys import SYSTEMS, DTRNConfig
from sixfold.recsys.models.dtrn import SYSTEM
from sixfold.recsys.tasks import multitask
from sixfold.recsys.tasks.splits import Training

PARAMS = Path(__file__).resolve().parents[3] / "pipelines" / "recsys" / "params.yaml"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("multitask") / "prepared"
    multitask.prepare(multitask.MultiTaskData(), "builtin", folder)
    return folder


@pytest.fixture(scope="module")
def job(prepared, tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp("run")
    train = Training(steps=45, batch=256, learning_rate=0.02, threads=1)
    sizes: dict[str, Any] = {"ffn": 8, "expert_hidden": (16,), "experts": 2, "dropout": 0.0}
    one = Job(
        system=SYSTEM,
        model=DTRNConfig(embedding_dim=4, max_length=20, **sizes),
        train=train,
        data=multitask.MultiTaskData(),
        seed=0,
        prepared=prepared,
        run=folder / "run",
        weights=folder / "seed-0.safetensors",
        identity="test",
    )
    multitask.train(one)
    return one


def test_a_seed_is_trained_on_the_prepared_sizes_and_scored(job):
    scores: dict[str, Any] = multitask.evaluate(job, None)
    facts = json.loads((job.prepared / "manifest.json").read_text())
    model: Any = job.trained()
    assert [f.model_dump(mode="json") for f in model.config.fields] == facts["fields"]
    assert model.config.labels == ("like", "love", "dislike")
    assert set(scores) == set(multitask.CLAIM.metrics)
    names = ("auc_like", "auc_love", "auc_dislike")
    assert scores["auc"] == pytest.approx(np.mean([scores[name] for name in names]))
    assert scores["auc"] > 0.55
    assert "valid_auc" in (job.run / "curve.csv").read_text().splitlines()[0]


def test_the_report_shows_what_each_task_sees(job, tmp_path):
    multitask.evaluate(job, tmp_path)
    views = json.loads((tmp_path / multitask.VIEWS).read_text())
    weights, likeness = multitask.view_tables(views)
    assert [row["field"] for row in weights.rows][-3:] == ["liked", "disliked", "rated"]
    assert weights.columns == ["field", "like", "love", "dislike"]
    assert likeness.columns == ["behaviour", "like, love", "like, dislike", "love, dislike"]
    assert all(-1 <= float(row["like, love"]) <= 1 for row in likeness.rows)
    assert not multitask.view_tables({"weights": {}, "likeness": {}})


def test_popularity_is_a_share_of_the_training_rows(prepared):
    scores = multitask.score_popularity(prepared, None)
    assert set(scores) == set(multitask.CLAIM.metrics)
    auc = scores["auc"]
    assert auc is not None
    assert auc > 0.5


def test_the_entries_are_those_of_the_claim_and_the_control_is_of_equal_size():
    task = yaml.safe_load(PARAMS.read_text())["tasks"]["multitask"]
    entries = task["systems"]
    known = {name for pair in multitask.CLAIM.comparisons for name in (pair.system, pair.baseline)}
    assert known <= set(entries)
    assert set(entries) <= set(multitask.CLAIM.labels)
    systems, sizes = {system.name: system for system in SYSTEMS}, []
    for key in multitask.CENTRAL:
        system = systems[entries[key].get("system", task["defaults"]["system"])]
        values = task["defaults"]["model"] | entries[key].get("model", {})
        model = system.build(system.config.parse(values, key))
        sizes.append(sum(p.numel() for p in model.parameters()))
    assert abs(sizes[0] - sizes[1]) < 0.005 * sizes[0]
