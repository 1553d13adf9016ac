"""The experiments on slots from end to end, at the smallest size."""

import pytest
import torch
from finished_pipeline import finished_pipeline

from sixfold.core.pipeline.params import Pipeline
from sixfold.wireless import AdaFortiTran, AdaFortiTranConfig
from sixfold.wireless.data.channel_estimation import (
    GROUPS,
    MAX_DOPPLERS_HZ,
    ChannelData,
    FreshSlots,
    read_slots,
)
from sixfold.wireless.data.slots import SyntheticSlots
from sixfold.wireless.models.adafortitran.training import Slots, start_linear
from sixfold.wireless.tasks.slots import over_bound_db

GRID = "subcarriers: 12, pilot_subcarriers: 4"
SIZES = f"{GRID}, patch: [3, 7], layers: 1, width: 8, dropout: 0"
PARAMS = f"""
source: real
budget: 1.0
seeds: [0, 1]
tasks:
  channel_estimation:
    data: {{subcarriers: 12, start_slots: 100, test_slots: 24}}
    defaults:
      train: {{steps: 2, batch: 4, learning_rate: 1.0e-4, threads: 1, log_every: 1}}
    systems:
      linear_mse: {{system: linear, model: {{{GRID}}}}}
      adafortitran_relative:
        {{system: adafortitran, model: {{{SIZES}}}, train: {{loss: relative}}}}
  frozen_fading:
    data: {{subcarriers: 12, start_slots: 100, test_slots: 2, trained: test}}
    defaults:
      model: {{{SIZES}}}
      train: {{steps: 2, batch: 4, learning_rate: 1.0e-4, threads: 1, fading: frozen_240}}
    systems:
      adafortitran: {{system: adafortitran}}
      adafortitran_independent: {{system: adafortitran, train: {{fading: independent}}}}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Pipeline:
    """A pipeline whose every stage ran."""
    return finished_pipeline(tmp_path_factory.mktemp("repository"), "wireless", PARAMS)


def test_no_row_of_independent_fading_is_below_the_bound(done):
    """The error of sampling is that of LMMSE with known statistics, which reaches the bound."""
    means = {key: row["mean"] for key, row in done.task("channel_estimation").results().items()}
    assert means["bound"]["gap"] == 0 < means["bound_parts"]["gap"] < 2
    assert abs(means["lmmse_known"]["gap"]) < 0.3
    for key, mean in means.items():
        assert mean["gap"] > -0.3, key
    assert means["lmmse_averaged"]["gap_slow"] > 3, "no fixed estimator is good for all conditions"


def test_the_gap_is_the_mean_of_its_groups(done):
    mean = done.task("channel_estimation").results()["ls"]["mean"]
    for axis in ("snr", "spread", "doppler"):
        parts = [mean[f"gap_{name}"] for name in GROUPS if name.startswith(axis)]
        assert sum(parts) / len(parts) == pytest.approx(mean["gap"], abs=1e-4)


def test_the_report_shows_both_bounds_and_the_frozen_fading(done):
    text = (done.root / "reports" / "wireless.md").read_text()
    for words in (
        "bound of separate parts",
        "delay spread, ns",
        "At 800 and 1000 Hz",
        "6 of 6 reproduced",
    ):
        assert words in text
    page = (done.root / "reports" / "wireless" / "index.html").read_text()
    assert "|H| at 10 dB, 300 ns, 100 Hz" in page


def test_test_slots_of_frozen_fading_share_one_channel_at_a_point(done):
    folder = done.task("frozen_fading").prepared
    frozen, independent = (
        read_slots(folder, fading, "test")["target"] for fading in ("frozen_240", "independent")
    )
    assert torch.equal(frozen[:, 0], frozen[:, 1])
    assert not torch.equal(independent[:, 0], independent[:, 1])
    trained = read_slots(folder, "frozen_240", "start")
    known = {tuple(one.flatten()[:4].tolist()) for one in frozen[:, 0]}
    assert {tuple(one.flatten()[:4].tolist()) for one in trained["target"]} == known


def test_fresh_slots_do_not_depend_on_how_a_batch_is_cut():
    dataset = FreshSlots(ChannelData(subcarriers=12).slots("independent"))
    whole, parts = dataset.at(range(8), 5), [dataset.at(range(3), 5), dataset.at(range(3, 8), 5)]
    for name, value in whole.items():
        assert torch.equal(torch.cat([part[name] for part in parts]), value)
    assert not torch.equal(dataset.at(range(8), 6)["pilots"], whole["pilots"])


def test_conditions_of_the_test_alone_are_trained_where_that_is_asked_for():
    config = ChannelData(subcarriers=12, trained="test").slots("frozen_240")
    assert config.max_doppler_hz == MAX_DOPPLERS_HZ
    assert len(ChannelData().slots("frozen_240").max_doppler_hz) == 20


def test_the_start_for_the_relative_loss_has_less_of_it():
    config = ChannelData(subcarriers=12).slots("independent")
    batch = SyntheticSlots(config, 400, seed=0).batch(range(400))
    sizes = {"subcarriers": 12, "pilot_subcarriers": 4, "patch": (3, 7), "layers": 1, "width": 8}
    found = []
    for weights in (None, 1 / batch["bound"]):
        model = AdaFortiTran(AdaFortiTranConfig.parse(sizes, "sizes")).eval()
        start_linear(model, Slots(batch), weights)
        found.append(over_bound_db(model, batch))
    assert found[1] < found[0] - 3
