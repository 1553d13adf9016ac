"""The experiment on waves on a flow from end to end, at the smallest size."""

import pytest
import torch
from finished_pipeline import finished_pipeline

from sixfold.core import UserError
from sixfold.core.pipeline.params import Pipeline
from sixfold.core.pipeline.report import Outcome
from sixfold.pde.data.plumes import read_trajectories
from sixfold.pde.tasks import published, waves_on_flow
from sixfold.pde.tasks.waves_on_flow import (
    deciding_budgets,
    errors_over_budget,
    split_trajectories,
    validate,
)

PARAMS = """
source: real
budget: 1.0
seeds: [0]
tasks:
  waves_on_flow:
    data: {grid: 32, train: 4, test: 1}
    defaults:
      system: sinenet
      model: {mult: 1.0, hidden_channels: 2, time_history: 2, grid: [32, 32]}
      train:
        {steps: 2, batch: 2, learning_rate: 1.0e-3, threads: 1, ema: 0.99, eval_ema: true,
         log_every: 1, eval_every: 1}
    systems:
      waves1_periodic: {model: {num_waves: 1}}
      waves4_periodic: {model: {num_waves: 2}}
      waves1_long_periodic: {model: {num_waves: 1}, train: {steps: 4, eval_every: 2}}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Pipeline:
    """A pipeline whose every stage ran; the published sizes, which take a while, are of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "products", lambda *_: {"Global": {"convolution": 1.0}})
        return finished_pipeline(tmp_path_factory.mktemp("repository"), "pde", PARAMS)


def test_one_wave_is_read_off_at_equal_steps_and_at_equal_time(done):
    task = done.task("waves_on_flow")
    rows = errors_over_budget(Outcome(task, task.results()), "periodic", "one_step")
    assert [step for step, _ in rows] == [1, 2]
    for _, errors in rows:
        assert set(errors) == {"one_wave", "four_waves", "equal_time"}
        assert all(len(seeds) == 1 for seeds in errors.values())
    # A longer training at a constant rate begins as the shorter one does.
    assert rows[1][1]["one_wave"] == rows[0][1]["equal_time"] != rows[1][1]["equal_time"]
    assert errors_over_budget(Outcome(task, task.results()), "closed", "one_step") == []


def test_the_validation_at_the_end_is_that_of_the_weights_that_are_kept(done):
    task = done.task("waves_on_flow")
    rows = errors_over_budget(Outcome(task, task.results()), "periodic", "rollout")
    _, others = split_trajectories(read_trajectories(task.prepared, "periodic", "train"))
    with torch.no_grad():
        kept = validate(others, task.job("waves4_periodic", 0).trained())
    assert rows[-1][1]["four_waves"][0] == pytest.approx(kept["rollout"], rel=1e-5)


def test_what_validates_is_not_learned():
    trajectories = torch.arange(9.0)[:, None]
    learned, others = split_trajectories(trajectories)
    assert torch.equal(torch.cat((learned, others)), trajectories)
    assert len(others) == 2
    with pytest.raises(UserError, match="train is 3, of which one in 4 validates"):
        split_trajectories(trajectories[:3])


@pytest.mark.parametrize(
    ("four", "words"),
    [
        ([0.9, 0.7, 0.5], "stay ahead from 200 steps"),
        ([0.7, 0.9, 0.5], "stay ahead from 300 steps"),
        ([0.7, 0.7, 0.9], "not reached in 300 steps"),
    ],
)
def test_the_deciding_budget_is_the_first_after_which_four_waves_never_fall_back(four, words):
    rows = [
        (step, {"one_wave": [0.8, 0.8], "four_waves": [value, value]})
        for step, value in zip((100, 200, 300), four, strict=True)
    ]
    (text,) = deciding_budgets(rows, "error")
    assert text.startswith("Error, at equal steps: ")
    assert words in text


def test_the_report_has_budgets_films_and_published_sizes(done):
    text = (done.root / "reports" / "pde.md").read_text()
    for words in ("Validation scaled L2 of rollouts", "published sizes", "144,263,683"):
        assert words in text
    folder = done.root / "reports" / "pde"
    assert (folder / "waves_on_flow-periodic-2.webp").is_file()
    assert waves_on_flow.CLAIM.label("waves1_long_periodic") in text
