"""The super-resolution experiment from end to end, at the smallest size, on generated pictures."""

import json

import numpy as np
import pytest
import torch
from tiny_networks import tiny_cfsr

from sixfold.core.pipeline import stages
from sixfold.core.pipeline.claim import Scores, measured
from sixfold.core.pipeline.params import Pipeline
from sixfold.core.pipeline.report import write_report
from sixfold.core.weights.convert import save_pretrained
from sixfold.vision import imresize, psnr_y
from sixfold.vision.data.super_resolution import Patches, SuperResolutionData, read_benchmark
from sixfold.vision.metrics import to_bytes
from sixfold.vision.tasks import super_resolution
from sixfold.vision.tasks.super_resolution import initial_model, score_bicubic, score_published

PARAMS = """
source: builtin
budget: 1.0
seeds: [0]
tasks:
  super_resolution:
    data: {patch: 8}
    defaults:
      train: {steps: 2, batch: 1, learning_rate: 1.0e-3, threads: 1, log_every: 1}
    systems:
      cropped_3:
        system: cfsr
        model: {upscale: 2, dw_size: 3, depths: [1], embed_dim: 8, edge_branches: false}
        train: {start: CFSR_x2.pth}
      scratch: {system: cfsr, model: {upscale: 2, depths: [1], embed_dim: 4, dw_size: 3}}
      scratch_plain: {system: edsr, model: {features: 4, blocks: 1}}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Pipeline:
    """A pipeline whose every stage ran."""
    root = tmp_path_factory.mktemp("repository")
    folder = root / "pipelines" / "vision"
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(PARAMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(super_resolution, "giga_macs", lambda _: 1.0)
        pipeline = Pipeline.find("vision")
        (task,) = pipeline.tasks.values()
        stages.prepare(task)
        stages.train(task, workers=1)
        stages.evaluate(task, workers=1)
        write_report(pipeline)
    return pipeline


def test_the_report_says_what_was_not_measured(done):
    text = (done.root / "reports" / "vision.md").read_text()
    for words in ("Synthetic data", "arXiv:2401.05633", "not measured", "EDSR of equal size"):
        assert words in text
    results = done.task("super_resolution").results()
    assert results["scratch"]["mean"]["set5_x2_psnr"] > 5
    assert results["published"]["mean"] == {}
    rows = done.task("super_resolution").measurements()
    verdicts = {row["name"]: row["verdict"] for row in rows}
    assert verdicts["CFSR, released: Set5 x2, PSNR"] == "not measured"
    assert verdicts["cfsr, x2, merged: parameters"] == "reproduced"


def test_bicubic_is_scored_as_its_definition(done):
    prepared = done.task("super_resolution").prepared
    pairs = read_benchmark(prepared, "Set5", 2)
    expected = [psnr_y(to_bytes(imresize(low / 255, 2)), high, 2) for low, high in pairs]
    found = score_bicubic(prepared, None)
    assert found["set5_x2_psnr"] == pytest.approx(np.mean(expected))
    assert read_benchmark(prepared, "Set14", 4) == []


def test_low_resolution_is_imresize_and_patches_fit_together(done):
    prepared = done.task("super_resolution").prepared
    data = Patches.prepared(prepared, SuperResolutionData(patch=8))
    low, high = data.pairs[0]
    assert np.array_equal(imresize(high.numpy(), 0.5), low.numpy())
    patch = data.sample(1, torch.Generator().manual_seed(0))
    assert patch["low"].shape == (3, 8, 8)
    assert patch["high"].shape == (3, 16, 16)
    down = patch["high"].unfold(1, 2, 2).unfold(2, 2, 2).mean((3, 4))
    assert (down - patch["low"]).abs().mean() < 0.03


def test_a_network_starts_from_published_weights_where_there_are_any(done, tmp_path):
    job = done.task("super_resolution").job("cropped_3", 0)
    published = tiny_cfsr(dw_size=5, depths=(1,), edge_branches=False, layer_scale=1e-6)
    fresh = initial_model(job).state_dict()
    weights = job.prepared / "CFSR_x2.pth"
    torch.save({"params": published.state_dict()}, weights)
    try:
        started = initial_model(job)
        assert started.config == job.model
        cropped = published.cropped(3).state_dict()
        state = started.state_dict()
        assert all(torch.equal(state[k], v) for k, v in cropped.items())
        assert not torch.equal(state["conv_first.weight"], fresh["conv_first.weight"])
        assert "set5_x2_psnr" in score_published(job.prepared, None)
    finally:
        weights.unlink()


def test_crops_and_kernels_are_written_for_the_report(tmp_path, monkeypatch):
    from sixfold.vision.tasks import enlarged_pictures

    random = np.random.default_rng(0)
    low = random.integers(0, 256, (60, 110, 3), np.uint8)
    high = random.integers(0, 256, (240, 440, 3), np.uint8)
    monkeypatch.setattr(enlarged_pictures, "read_benchmark", lambda *_: [(low, high)] * 5)
    enlarged_pictures.write_crops(tmp_path, tmp_path, lambda x: x.repeat(4, 0).repeat(4, 1),
                                  with_truth=True)  # fmt: skip
    names = sorted(file.name for file in tmp_path.glob("*.png"))
    assert names == [f"{n}-{k}.png" for n in ("Set14-4", "Set5-2") for k in ("high", "low", "made")]
    enlarged_pictures.write_kernels(tmp_path, tiny_cfsr())
    assert np.load(tmp_path / "kernels.npy").shape == (2, 5, 5)


def test_the_figures_are_those_of_the_specification():
    scores: dict[str, Scores] = {
        "published": {"set5_x2_psnr": 38.0695, "set14_x4_psnr": 28.735},
        "zeroed_7": {"set5_x4_psnr": 32.0154},
    }
    rows = {r["name"]: r["verdict"] for r in measured(super_resolution.MEASUREMENTS, scores)}
    assert rows["CFSR, released: Set5 x2, PSNR"] == "reproduced"
    assert rows["CFSR, released: Set14 x4, PSNR"] == "reproduced"
    assert rows["released x4, zero beyond 7x7: Set5 x4, PSNR"] == "reproduced"
    assert rows["PAN, released: Set5 x4, PSNR"] == "not measured"
    assert rows["IMDN: GMAC for 1280 x 720 pixels, x4"] == "reproduced"


def test_trained_weights_carry_their_settings(done, tmp_path):
    job = done.task("super_resolution").job("scratch", 0)
    model = job.trained()
    save_pretrained(tmp_path / "w.safetensors", model, job.system.name, job.model)
    assert (tmp_path / "w.safetensors").read_bytes() == job.weights.read_bytes()
    manifest = json.loads((job.prepared / "manifest.json").read_text())
    assert manifest["weights"] is False
