"""The precoding experiment from end to end, at the smallest size."""

import pytest
import torch
from finished_pipeline import finished_pipeline

from sixfold.core.pipeline.params import Pipeline
from sixfold.wireless import ICGNN, ICGNNConfig
from sixfold.wireless.data.precoding import POINTS, FreshChannels, PrecodingData
from sixfold.wireless.tasks.precoding import loss

PARAMS = """
source: real
budget: 1.0
seeds: [0, 1]
tasks:
  precoding:
    data: {test_channels: 3, wmmse_iterations: 30, wmmse_starts: 2}
    systems:
      icgnn:
        system: icgnn
        model: {width: 8, layers: 1}
        train: {steps: 3, batch: 4, learning_rate: 1.0e-3, threads: 1, log_every: 1}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Pipeline:
    """A pipeline whose every stage ran."""
    return finished_pipeline(tmp_path_factory.mktemp("repository"), "wireless", PARAMS)


def test_the_scores_are_shares_of_wmmse(done):
    results = done.task("precoding").results()
    for point in POINTS:
        means = {key: result["mean"][point.key] for key, result in results.items()}
        assert means["capacity"] >= means["wmmse_starts"] >= 100 - 1e-6, point
        assert 0 < means["mrt"] <= means["capacity"]
        assert 0 < means["icgnn"] <= means["capacity"]
    (row,) = done.task("precoding").measurements()
    assert row["verdict"] == "reproduced"


def test_fewer_steps_are_reported_where_they_are_fewer_than_users(done):
    means = done.task("precoding").results()["icgnn"]["mean"]
    assert "k16_m16_20db_t8" in means
    assert "k8_m8_10db_t8" not in means


def test_the_report_sets_the_network_beside_the_closed_forms(done):
    text = (done.root / "reports" / "wireless.md").read_text()
    for words in ("independent design after the abstract", "best closed form", "T = 2", "not tra"):
        assert words in text


def test_fresh_channels_do_not_depend_on_how_a_batch_is_cut():
    dataset = FreshChannels(PrecodingData(), batch=8)
    whole = dataset.at(range(16, 24), 5)
    parts = [dataset.at(range(16, 18), 5), dataset.at(range(18, 24), 5)]
    for name in ("channel", "noise"):
        assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])
    assert {int(part["steps"]) for part in parts} == {int(whole["steps"])}
    assert not torch.equal(dataset.at(range(16, 24), 6)["noise"], whole["noise"])


def test_the_sizes_of_batches_are_those_asked_for():
    data = PrecodingData(users=(2, 3), antennas=5, square=0.5, few_steps=0.0)
    dataset = FreshChannels(data, batch=2)
    found = [dataset.at(range(2 * i, 2 * i + 2), 0) for i in range(60)]
    sizes = {tuple(batch["channel"].shape[1:]) for batch in found}
    assert {users for users, _ in sizes} == {2, 3}
    assert all(users <= antennas <= 5 for users, antennas in sizes)
    square = sum(b["channel"].shape[1] == b["channel"].shape[2] for b in found)
    few = [int(b["steps"]) < b["channel"].shape[1] for b in found]
    assert not any(few), "few_steps is 0 here"
    assert 25 <= square <= 55  # a half of the batches, and some of the others


def test_some_batches_are_solved_by_fewer_steps_than_users():
    dataset = FreshChannels(PrecodingData(users=(6, 6), few_steps=0.5), batch=1)
    steps = [int(dataset.at([i], 0)["steps"]) for i in range(60)]
    assert {2, 3, 4, 5, 6} == set(steps)
    assert 25 <= steps.count(6) <= 50


def test_the_loss_of_an_untrained_network_is_minus_one():
    batch = FreshChannels(PrecodingData(users=(4, 4)), batch=6).at(range(6), 1)
    batch["steps"] = torch.tensor(4)
    model = ICGNN(ICGNNConfig(width=8, layers=1))
    value = float(loss(model, batch)["negative_relative_rate"].detach())
    assert value == pytest.approx(-1.0, abs=1e-3)
