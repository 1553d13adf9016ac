"""The cell-free experiment from end to end, at the smallest size."""

import pytest
import torch
from finished_pipeline import finished_pipeline

from sixfold.core.pipeline.params import Pipeline
from sixfold.wireless import CellFreeICGNN, CellFreeICGNNConfig
from sixfold.wireless.data.power_allocation import SIZES, TRAINED, UNSEEN, FreshLayouts, PowerData
from sixfold.wireless.tasks.power_allocation import (
    REFERENCES,
    fairness_loss,
    sum_loss,
    wrapped_lines,
)

PARAMS = """
source: real
budget: 1.0
seeds: [0, 1]
tasks:
  power_allocation:
    data: {test_layouts: 2, gradient_steps: 20, points: [6, 8], users: [2, 3], each: [1, 3]}
    systems:
      icgnn:
        system: icgnn_cell_free
        model: {width: 8, layers: 1}
        train: {steps: 3, batch: 2, learning_rate: 1.0e-3, threads: 1, log_every: 1}
      icgnn_fair:
        system: icgnn_cell_free
        model: {width: 8, layers: 1}
        train: {steps: 3, batch: 2, learning_rate: 1.0e-3, threads: 1, objective: fairness}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Pipeline:
    """A pipeline whose every stage ran."""
    return finished_pipeline(tmp_path_factory.mktemp("repository"), "wireless", PARAMS)


def test_no_rule_and_no_network_is_above_the_reference(done):
    results = done.task("power_allocation").results()
    assert set(results) == {*REFERENCES, "icgnn", "icgnn_fair"}
    for size in SIZES:
        means = {key: result["mean"][size.key] for key, result in results.items()}
        assert all(0 < value < 100.01 for value in means.values()), (size, means)


def test_the_report_sets_the_network_beside_the_best_rule(done):
    text = (done.root / "reports" / "wireless.md").read_text()
    for words in ("independent design after the abstract", "best rule", "not trained"):
        assert words in text


def test_the_report_draws_a_layout_and_the_users_rates(done):
    folder = done.root / "reports" / "wireless"
    for name in ("map", *(f"rates-{size.key}" for size in (TRAINED[-1], UNSEEN[-1]))):
        assert "<path" in (folder / f"power_allocation-{name}.svg").read_text()


def test_a_line_goes_the_shorter_way_around_the_square():
    inside = torch.tensor([[100.0, 500.0], [400.0, 600.0]])
    ((start, end),) = wrapped_lines(*inside)
    assert torch.equal(torch.stack([start, end]), inside)
    (a, b), (c, d) = wrapped_lines(torch.tensor([950.0, 10.0]), torch.tensor([50.0, 990.0]))
    assert [x.tolist() for x in (a, b)] == [[950, 10], [1050, -10]]
    assert [x.tolist() for x in (c, d)] == [[-50, 1010], [50, 990]]


def test_fresh_layouts_do_not_depend_on_how_a_batch_is_cut():
    dataset = FreshLayouts(PowerData(points=(6, 8), users=(2, 3)), batch=8)
    whole = dataset.at(range(16, 24), 5)
    parts = [dataset.at(range(16, 18), 5), dataset.at(range(18, 24), 5)]
    for name, expected in whole.items():
        assert torch.equal(torch.cat([part[name] for part in parts]), expected)


@pytest.mark.parametrize("loss", [sum_loss, fairness_loss])
def test_a_few_steps_of_training_lower_the_loss(loss):
    dataset = FreshLayouts(PowerData(points=(10, 12), users=(4, 6)), batch=16)
    torch.manual_seed(0)
    model = CellFreeICGNN(CellFreeICGNNConfig(width=16, layers=2))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)

    def test_loss() -> float:
        with torch.no_grad():
            return float(loss(model, dataset.at(range(16), 9))["negative_rate"])

    before = test_loss()
    for number in range(40):
        value = loss(model, dataset.at(range(16 * number, 16 * number + 16), 1))
        optimizer.zero_grad()
        value["negative_rate"].backward()
        optimizer.step()
    assert test_loss() < before - 0.02
