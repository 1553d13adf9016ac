"""The experiment on spectrum sensing from end to end, at the smallest size."""

import pytest
import torch
from finished_pipeline import finished_pipeline

from sixfold.core.pipeline.params import Pipeline
from sixfold.wireless import CMuSeNet, CMuSeNetConfig
from sixfold.wireless.data.fresh_scenes import FreshScenes, SensingData, draw_batch
from sixfold.wireless.models.cmusenet import complex_focal_loss
from sixfold.wireless.tasks.spectrum_sensing import accuracy, masked_loss

PARAMS = """
source: real
budget: 1.0
seeds: [0, 1]
tasks:
  spectrum_sensing:
    data: {test_scenes: 12}
    defaults:
      train: {steps: 2, batch: 4, learning_rate: 1.0e-3, threads: 1, log_every: 1, eval_every: 1}
    systems:
      cmusenet_bce:
        system: cmusenet
        model: {bins: 1024, width: 2, layers: [1, 1]}
        train: {loss: cv_bce}
      rvnn_magnitude: {system: rvnn, model: {bins: 1024, width: 3, layers: [1, 1]}}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Pipeline:
    """A pipeline whose every stage ran."""
    return finished_pipeline(tmp_path_factory.mktemp("repository"), "wireless", PARAMS)


def test_detectors_without_weights_find_signals_where_nothing_finds_none(done):
    means = {key: row["mean"] for key, row in done.task("spectrum_sensing").results().items()}
    assert means["nothing"]["recall_70"] == 0 < 70 < means["nothing"]["accuracy"]
    assert means["nothing"]["accuracy"] < means["energy"]["accuracy"]
    assert means["energy_snapped"]["recall_90"] > means["energy"]["recall_90"]
    assert means["energy"]["recall_70"] > 30


def test_scores_over_all_snrs_are_those_of_each(done):
    mean = done.task("spectrum_sensing").results()["energy"]["mean"]
    each = [mean[f"accuracy_{snr_db}"] for snr_db in (-10, -5, 0, 5, 10)]
    assert sum(each) / 5 == pytest.approx(mean["accuracy"], abs=1e-3)


def test_the_report_shows_detectors_over_snr_and_waterfalls(done):
    text = (done.root / "reports" / "wireless.md").read_text()
    for words in ("energy detector, legal widths", "by SNR", "not reached", "1 of 1 reproduced"):
        assert words in text
    assert (done.root / "reports/wireless/spectrum_sensing-waterfall-1-6.png").is_file()


def test_fresh_scenes_do_not_depend_on_how_a_batch_is_cut():
    dataset = FreshScenes(SensingData(), batch=6)
    whole = dataset.at(range(6, 12), 5)
    parts = [dataset.at(range(6, 8), 5), dataset.at(range(8, 12), 5)]
    for name, value in whole.items():
        assert torch.equal(torch.cat([part[name] for part in parts]), value)
    assert not torch.equal(dataset.at(range(6), 5)["mask"], whole["mask"])


@pytest.mark.slow
def test_the_complex_network_overfits_64_blocks():
    """The place of a signal survives the average over the folded spectrum."""
    torch.manual_seed(0)
    blocks = draw_batch(SensingData(), 64, seed=0)
    model = CMuSeNet(CMuSeNetConfig(bins=1024, width=8, layers=(1, 1, 1, 1)))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        masked_loss(complex_focal_loss, model, blocks).backward()
        optimizer.step()
        optimizer.zero_grad()
    empty = 100 * float((blocks["mask"] == 0).double().mean())
    assert empty < 95, "else accuracy would say nothing"
    assert accuracy(model.train(), blocks) > 98.5
