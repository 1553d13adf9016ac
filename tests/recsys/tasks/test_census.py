"""The Census-Income task: one label and both, and the tasks of whole sets that owners give."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from sixfold.core.pipeline.job import Job
from sixfold.recsys import SYSTEMS
from sixfold.recsys.tasks import census
from sixfold.recsys.tasks.splits import Training, read_manifest

ROOT = Path(__file__).resolve().parents[3]
PAPER = ROOT / "pipelines" / "recsys-paper" / "params.yaml"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("census") / "prepared"
    census.prepare(census.CensusData(), "builtin", folder)
    return folder


def job(prepared, folder, name: str, **settings: Any) -> Job:
    system = next(system for system in SYSTEMS if system.name == name)
    return Job(
        system=system,
        model=system.config.parse(settings, name),
        train=Training(steps=60, batch=256, learning_rate=0.02, threads=1),
        data=census.CensusData(),
        seed=0,
        prepared=prepared,
        run=folder / "run",
        weights=folder / "seed-0.safetensors",
        identity="test",
    )


@pytest.mark.parametrize(
    ("name", "labels", "sizes"),
    [
        ("dnn", ("income",), {"mlp": {"hidden": (32,)}}),
        ("dtrn", ("income", "never_married"), {"embedding_dim": 4, "expert_hidden": (16,)}),
    ],
)
def test_a_model_learns_the_labels_of_its_settings(prepared, tmp_path, name, labels, sizes):
    one = job(prepared, tmp_path, name, labels=labels, **sizes)
    census.train(one)
    scores: dict[str, Any] = census.evaluate(one, None)
    assert set(scores) == set(census.CLAIM.metrics)
    assert scores["auc_income"] > 0.65
    assert (scores["auc_never_married"] is None) == (labels == ("income",))
    if scores["auc_never_married"] is not None:
        assert scores["auc_never_married"] > 0.65


def test_the_official_test_rows_are_not_trained_on(prepared):
    assert read_manifest(prepared)["rows"] == {"train": 3600, "valid": 400, "test": 2000}


@pytest.mark.parametrize("key", ["census", "frappe_x1", "movielens_tags"])
def test_the_entries_are_those_of_the_claim(key):
    entries = yaml.safe_load(PAPER.read_text())["tasks"][key]["systems"]
    claim = importlib.import_module(f"sixfold.recsys.tasks.{key}").TASK.claim
    named = {name for pair in claim.comparisons for name in (pair.system, pair.baseline)}
    assert named <= set(entries) <= set(claim.labels)
