"""The experiment on waves from end to end, at the smallest size."""

import pytest
import torch
from finished_pipeline import finished_pipeline

from sixfold.core.pipeline.params import Pipeline
from sixfold.core.pipeline.report import Outcome
from sixfold.pde.data.textures import REACH, FreshTextures, TextureData, draw_shifts
from sixfold.pde.fields.advection import advect, shift
from sixfold.pde.fields.frames import FramesConfig, Normalizer
from sixfold.pde.tasks import advection
from sixfold.pde.tasks.advection import displacement_curves

PARAMS = """
source: real
budget: 1.0
seeds: [0, 1]
tasks:
  advection:
    data: {grid: 16, cutoff: 5.0, test_samples: 3}
    defaults:
      system: sinenet
      model:
        {input_channels: 1, output_channels: 1, time_history: 1, grid: [16, 16], hidden_channels: 2,
         mult: 1.0, padding: circular, repeat_wrap: true}
      train: {steps: 2, batch: 2, learning_rate: 1.0e-3, threads: 1, log_every: 1, shift: [5, 3]}
    systems:
      waves1_near: {model: {num_waves: 1}, train: {shift: [1, 0]}}
      waves1_far: {model: {num_waves: 1}}
      waves2_far: {model: {num_waves: 2}}
      waves1_random: {model: {num_waves: 1, input_channels: 3}, train: {shift: random}}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Pipeline:
    """A pipeline whose every stage ran."""
    return finished_pipeline(tmp_path_factory.mktemp("repository"), "pde", PARAMS)


def test_what_stands_still_is_wrong_by_the_square_root_of_two(done):
    """Two independent textures of equal size are that far apart, and so are far shifts of one."""
    mean = done.task("advection").results()["persistence"]["mean"]
    assert mean["error"] == pytest.approx(2**0.5, abs=0.2)


def test_a_network_that_is_given_a_random_shift_is_scored_too(done):
    seeds = done.task("advection").results()["waves1_random"]["seeds"]
    assert all(row["error"] > 0 and row["rollout"] > 0 for row in seeds.values())


def test_a_forecast_by_the_given_shift_has_no_error():
    data = TextureData(grid=16, cutoff=5.0)
    shifts = draw_shifts(4, 0)
    trajectories = advect(data.draw(4, 0), shifts, 3)

    class Moves(torch.nn.Module):
        """Move the texture by the distance that its even channels say."""

        config = FramesConfig(output_channels=1)
        normalizer = Normalizer(config)

        def forward(self, frames):
            return shift(frames[:, :, :1], REACH * frames[:, :, None, 1:, 0, 0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(advection, "read_shifts", lambda samples: shifts)
        scores = advection.score_random(Moves(), trajectories)
    assert scores == {"error": pytest.approx(0, abs=1e-5), "rollout": pytest.approx(0, abs=1e-5)}


def test_random_shifts_reach_as_far_as_said_and_differ_from_sample_to_sample():
    shifts = draw_shifts(500, 1)
    assert shifts.abs().max() <= REACH
    assert shifts.min() < -0.9 * REACH
    assert shifts.max() > 0.9 * REACH
    assert len(shifts.unique()) == shifts.numel()


def test_the_report_draws_the_error_over_the_displacement(done):
    task = done.task("advection")
    curves = displacement_curves(Outcome(task, task.results()))
    assert [at for at, _ in curves["one wave"]] == [[1.0, 34**0.5]] * 2
    assert [at for at, _ in curves["two waves"]] == [[34**0.5]] * 2
    folder = done.root / "reports" / "pde"
    assert (folder / "advection-displacement.svg").is_file()
    assert (folder / "advection-texture-3.png").is_file()


@pytest.mark.parametrize("by", [(5, -3), "random"])
def test_fresh_textures_do_not_depend_on_how_a_batch_is_cut(by):
    dataset = FreshTextures(TextureData(grid=16, cutoff=5.0), by, batch=6)
    whole = dataset.at(range(6, 12), 5)
    parts = [dataset.at(range(6, 8), 5), dataset.at(range(8, 12), 5)]
    for name, value in whole.items():
        assert torch.equal(torch.cat([part[name] for part in parts]), value)


def test_fresh_textures_move_by_the_shift_and_never_come_again():
    dataset = FreshTextures(TextureData(grid=16, cutoff=5.0), (5, -3), batch=6)
    whole = dataset.at(range(6, 12), 5)
    moved = whole["history"].roll((5, -3), (-2, -1))
    torch.testing.assert_close(whole["target"], moved, rtol=0, atol=1e-5)
    assert not torch.equal(dataset.at(range(6), 5)["history"], whole["history"])
