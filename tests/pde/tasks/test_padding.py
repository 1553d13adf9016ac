"""The experiment on padding from end to end, at the smallest size."""

import pytest
import torch
from finished_pipeline import finished_pipeline

from sixfold.core.pipeline.params import Pipeline
from sixfold.pde import SineNet
from sixfold.pde.data.plumes import Windows, read_trajectories
from sixfold.pde.tasks import padding

PARAMS = """
source: real
budget: 1.0
seeds: [0, 1]
tasks:
  padding:
    data: {grid: 32, train: 3, test: 2}
    defaults:
      system: sinenet
      model: {num_waves: 1, mult: 1.0, hidden_channels: 2, time_history: 2, grid: [32, 32]}
      train: {steps: 2, batch: 2, learning_rate: 1.0e-3, threads: 1, log_every: 1}
    systems:
      circular: {model: {padding: circular}}
      zeros: {}
      zeros_closed: {train: {boundary: closed}}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Pipeline:
    """A pipeline whose every stage ran."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(padding, "GENERATED", 2)  # enough to have a spread
        return finished_pipeline(tmp_path_factory.mktemp("repository"), "pde", PARAMS)


def test_the_smoke_moves_more_over_a_rollout_than_over_a_frame(done):
    results = done.task("padding").results()
    assert set(results) == {*padding.TASK.references, "circular", "zeros", "zeros_closed"}
    for boundary in ("periodic", "closed"):
        mean = results[f"persistence_{boundary}"]["mean"]
        assert 0 < mean["one_step"] < mean["rollout"]


def test_the_weights_know_the_units_of_their_flow(done):
    task = done.task("padding")
    for key, boundary in (("zeros", "periodic"), ("zeros_closed", "closed")):
        model = SineNet.from_pretrained(task.job(key, 0).weights)
        smoke = read_trajectories(task.prepared, boundary, "train")[:, :, 0]
        assert float(model.normalizer.mean[0, 0, 0]) == pytest.approx(float(smoke.mean()))


def test_the_report_shows_films_of_both_boundaries(done):
    folder = done.root / "reports" / "pde"
    for boundary in ("periodic", "closed"):
        assert (folder / f"padding-{boundary}-2.webp").is_file()
        assert (folder / f"padding-{boundary}-rollout.svg").is_file()


def test_windows_are_all_pieces_of_all_trajectories():
    trajectories = torch.arange(10.0).reshape(2, 5, 1, 1, 1)
    windows = Windows(trajectories, 2)
    batch = windows.batch(list(range(len(windows))))
    joined = torch.cat((batch["history"], batch["target"]), 1).flatten(1).tolist()
    assert joined == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [5, 6, 7], [6, 7, 8], [7, 8, 9]]
