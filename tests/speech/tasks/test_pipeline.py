"""The speech pipeline from end to end, at the smallest size there is, on synthetic data."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sixfold.core.config import UserError
from sixfold.core.pipeline import stages
from sixfold.core.pipeline.params import Pipeline
from sixfold.core.pipeline.report import write_report
from sixfold.speech.tasks import enhancement, listening, multichannel, separation

PARAMS = """
source: builtin
budget: 1.0
seeds: [0, 1]
tasks:
  enhancement:
    data: {test_clips: 2, test_seconds: 1.0}
    defaults:
      system: frcrn
      train: {steps: 2, batch: 1, learning_rate: 1.0e-3, threads: 1, log_every: 1}
    systems:
      frcrn: {model: {channels: 2, reduction: 2, unets: 1}}
      frcrn_no_recurrence:
        model: {channels: 2, reduction: 2, unets: 1, frequency_recurrence: false}
        train: {threads: null}
  separation:
    data: {test_clips: 1, test_seconds: 1.0}
    systems:
      mossformer:
        system: mossformer
        model: {channels: 8, blocks: 1, group: 64, key_channels: 8, kernel_size: 32}
        train: {steps: 2, batch: 1, learning_rate: 1.0e-3, log_every: 1}
  multichannel:
    data: {test_clips: 1, test_seconds: 1.0, rooms: 2}
    systems:
      deftan2:
        system: deftan2
        model: {channels: 4, blocks: 1, heads: 1, head_channels: 4, hidden: 4}
        train: {steps: 2, batch: 1, learning_rate: 1.0e-3, log_every: 1}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Pipeline:
    """A pipeline whose every stage ran."""
    for package in ("espeakng_loader", "pyroomacoustics"):  # synthetic data are made by them
        pytest.importorskip(package)
    root = tmp_path_factory.mktemp("repository")
    folder = root / "pipelines" / "speech"
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(PARAMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for module in (enhancement, multichannel):
            slow = dict.fromkeys(list(module.METRICS)[1:], unavailable)
            patch.setattr(module, "METRICS", dict(list(module.METRICS.items())[:1]) | slow)
        for module in (enhancement, separation, multichannel):
            patch.setattr(module, "giga_macs", lambda *_, **__: 1.0)
        pipeline = Pipeline.find("speech")
        for task in pipeline.tasks.values():
            stages.prepare(task)
            stages.train(task)
            stages.evaluate(task)
        write_report(pipeline)
    return pipeline


def unavailable(estimate, clean) -> float:
    raise UserError("this metric is not installed; try: pip install it")


def test_the_report_says_that_the_data_are_synthetic(done):
    assert done.task("enhancement").source == "builtin"
    text = (done.root / "reports" / "speech.md").read_text()
    page = (done.root / "reports" / "speech" / "index.html").read_text()
    papers = ("arXiv:2206.07293", "arXiv:2312.11825", "arXiv:2308.15777")
    for words in ("Synthetic data", *papers, "noisy input", "delay-and-sum", "not measured"):
        assert words in text
        assert words in page


def test_the_page_plays_what_it_shows(done):
    folder = done.root / "reports" / "speech"
    page = (folder / "index.html").read_text()
    sounds = re.findall(r'<audio[^>]*src="([^"]+)"', page)
    enhanced = 2 * 4  # two clips: input, two systems, clean
    separated = 2 * 4  # two speakers: mixture, mask, a system, clean
    array = 3 + 1  # microphone, delay-and-sum, a system, clean
    assert len(sounds) == enhanced + separated + array
    for name in sounds + re.findall(r'<img[^>]*src="([^"]+)"', page):
        assert (folder / name).is_file(), name


def test_a_metric_that_is_not_installed_is_not_measured(done):
    scores = done.task("enhancement").results()["frcrn"]
    assert isinstance(scores["mean"]["si_sdr"], float)
    assert scores["mean"]["pesq_wb"] is None


def test_published_outputs_need_the_real_recordings(done):
    assert done.task("separation").results()["published"]["mean"]["si_sdri"] is None
    assert (
        done.task("multichannel").results()["deftan2_published"]["mean"]["si_sdr_published"] is None
    )


def test_seeds_in_parallel_or_in_turn_leave_the_same_bytes(done, tmp_path: Path):
    folder = done.folder
    left = [
        *folder.glob("weights/enhancement/frcrn/*.safetensors"),
        folder / "curves/enhancement/frcrn.csv",
    ]
    before = {path: path.read_bytes() for path in left}
    assert len(before) == 3
    (folder / "runs" / "enhancement" / "frcrn").rename(tmp_path / "runs")
    code = (  # in a process that ran no backward pass, two at once on any machine
        "from sixfold.core.pipeline import stages\n"
        "from sixfold.core.pipeline.params import Pipeline\n"
        "stages.train(Pipeline.find('speech').task('enhancement'), ['frcrn'], 2)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=done.root, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "frcrn, seed 1: " in ran.stdout
    assert {path: path.read_bytes() for path in before} == before


def test_training_and_test_share_nothing(done):
    manifest = json.loads((done.data_folder / "enhancement" / "manifest.json").read_text())
    for kind in ("speech", "noise"):
        assert not set(manifest["train"][kind]) & set(manifest["test"][kind])


def test_a_clip_is_described_in_words():
    noisy = {
        "speaker": "fr",
        "recording": "fr/pls-hold.wav",
        "start_s": 0.27,
        "snr_db": 2.54,
        "noise": "noise/ch08_sm001.wav",
        "noise_start_s": 6.4,
    }
    assert listening.describe(noisy) == (
        "Speaker fr (recording pls-hold, from 0.3 s) in noise (recording ch08_sm001, from 6.4 s), "
        "at a signal-to-noise ratio of 2.5 dB."
    )
    crops = {s: {"recording": f"{s}/hello.wav", "start_s": 0.0} for s in ("en", "ru")}
    assert listening.describe(crops | {"ratio_db": -1.84}) == (
        "Speaker en (recording hello, from 0.0 s) mixed with speaker ru (recording hello, from "
        "0.0 s), at a level of +1.8 dB relative to the first."
    )


def test_every_clip_of_the_page_is_described(done):
    page = (done.root / "reports" / "speech" / "index.html").read_text()
    assert page.count("signal-to-noise ratio of") == 2 + 1
    assert page.count("mixed with speaker") == 2
    assert "{" not in page.partition("<main>")[2]


def test_nothing_prepared_is_an_error_that_says_so(done, tmp_path: Path):
    empty = Pipeline("speech", tmp_path / "pipelines" / "speech", done.params)
    with pytest.raises(UserError, match="sixfold prepare speech"):
        stages.train(empty.task("enhancement"))
    with pytest.raises(UserError, match="sixfold evaluate speech/enhancement"):
        write_report(empty)
