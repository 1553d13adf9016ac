"""The speech pipeline from end to end, at the smallest size there is, on the built-in source."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sixfold.core.config import UserError
from sixfold.core.pipeline import stages
from sixfold.core.pipeline.params import Pipeline
from sixfold.speech.tasks import enhancement, learning, multichannel, report
from sixfold.speech.tasks.claims import CLAIMS

PARAMS = """
data:
  source: builtin
  enhancement: {test_clips: 2, test_seconds: 1.0}
  separation: {test_clips: 1, test_seconds: 1.0}
  multichannel: {test_clips: 1, test_seconds: 1.0, rooms: 2}
budget: 1.0
seeds: [0, 1]
systems:
  frcrn:
    task: enhancement
    system: frcrn
    model: {channels: 2, reduction: 2, unets: 1}
    train: {steps: 2, batch: 1, learning_rate: 1.0e-3, threads: 1, log_every: 1}
  frcrn_no_recurrence:
    task: enhancement
    system: frcrn
    model: {channels: 2, reduction: 2, unets: 1, frequency_recurrence: false}
    train: {steps: 2, batch: 1, learning_rate: 1.0e-3, log_every: 1}
  mossformer:
    task: separation
    system: mossformer
    model: {channels: 8, blocks: 1, group: 64, key_channels: 8, kernel_size: 32}
    train: {steps: 2, batch: 1, learning_rate: 1.0e-3, log_every: 1}
  deftan2:
    task: multichannel
    system: deftan2
    model: {channels: 4, blocks: 1, heads: 1, head_channels: 4, hidden: 4}
    train: {steps: 2, batch: 1, learning_rate: 1.0e-3, log_every: 1}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Pipeline:
    """A pipeline whose every stage ran."""
    root = tmp_path_factory.mktemp("repository")
    folder = root / "pipelines" / "speech"
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(PARAMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for module in (enhancement, multichannel):
            slow = dict.fromkeys(list(module.METRICS)[1:], unavailable)
            patch.setattr(module, "METRICS", dict(list(module.METRICS.items())[:1]) | slow)
        pipeline = Pipeline.find("speech")
        stages.prepare(pipeline)
        stages.train(pipeline, [*pipeline.params.systems])
        for task in pipeline.recipe.TASKS:
            stages.evaluate(pipeline, pipeline.of_task(task))
        report.write_report(pipeline)
    return pipeline


def unavailable(estimate, clean) -> float:
    raise UserError("this metric is not installed; try: pip install it")


def test_the_report_says_that_the_source_is_built_in(done):
    assert done.source() == "builtin"
    text = (done.root / "reports" / "speech.md").read_text()
    page = (done.root / "reports" / "speech" / "index.html").read_text()
    papers = ("arXiv:2206.07293", "arXiv:2312.11825", "arXiv:2308.15777")
    for words in ("Built-in source", *papers, "noisy input", "delay-and-sum", "not measured"):
        assert words in text
        assert words in page


def test_the_page_plays_what_it_shows(done):
    folder = done.root / "reports" / "speech"
    page = (folder / "index.html").read_text()
    sounds = re.findall(r'<audio[^>]*src="([^"]+)"', page)
    enhanced = 2 * 4  # two clips: input, two systems, clean
    separated = 3 * 2 + 2  # mixture, mask and a system, for two speakers each, both clean
    array = 3 + 1  # microphone, delay-and-sum, a system, clean
    assert len(sounds) == enhanced + separated + array
    for name in sounds + re.findall(r'<img[^>]*src="([^"]+)"', page):
        assert (folder / name).is_file(), name


def test_a_metric_that_is_not_installed_is_not_measured(done):
    scores = done.results("enhancement")["frcrn"]
    assert isinstance(scores["mean"]["si_sdr"], float)
    assert scores["mean"]["pesq_wb"] is None


def test_published_outputs_need_the_real_recordings(done):
    assert done.results("separation")["published"]["mean"]["si_sdri"] is None
    assert done.results("multichannel")["deftan2_published"]["mean"]["si_sdr_published"] is None


def test_seeds_side_by_side_or_in_turn_leave_the_same_bytes(done, tmp_path: Path):
    left = [*done.folder.glob("weights/frcrn/*"), done.folder / "curves" / "frcrn.csv"]
    before = {path: path.read_bytes() for path in left}
    assert len(before) == 3
    (done.folder / "runs" / "frcrn").rename(tmp_path / "runs")
    code = (  # in a process that ran no backward pass, two at once on any machine
        "from sixfold.core import stages; from sixfold.core.pipeline.params import Pipeline;"
        "stages.train(Pipeline.find('speech'), ['frcrn'], 2)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=done.root, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "frcrn, seed 1: " in ran.stdout
    assert {path: path.read_bytes() for path in before} == before


def test_training_and_test_share_nothing(done):
    manifest = json.loads((done.prepared / "enhancement" / "manifest.json").read_text())
    for kind in ("speech", "noise"):
        assert not set(manifest["train"][kind]) & set(manifest["test"][kind])


def test_the_verdict_follows_the_numbers():
    claim, pair = CLAIMS["enhancement"], ("frcrn", "frcrn_no_recurrence")

    def verdict(*gains: float) -> str:
        model = {str(i): {"si_sdr": 10 + gain} for i, gain in enumerate(gains)}
        baseline = {str(i): {"si_sdr": 10.0} for i in range(len(gains))}
        results = dict(zip(pair, ({"seeds": model}, {"seeds": baseline}), strict=True))
        return report.shown(results, claim, pair)

    assert verdict(1.0, 1.1, 0.9).startswith("The claim shows at this budget. FRCRN over")
    assert "+1.00 dB SI-SDR at equal steps (standard error 0.06, 3 seeds)" in verdict(1.0, 1.1, 0.9)
    assert "on the contrary" in verdict(-1.0, -1.1, -0.9)
    assert "no clear difference" in verdict(1.0, -1.1, 0.2)
    assert "proves nothing" in verdict(1.0)
    assert "not trained" in report.shown({"frcrn": {"seeds": {}}}, claim, pair)


def test_equal_time_is_read_when_the_faster_one_is_done():
    steps = [1.0, 2.0, 3.0, 4.0]
    curves = {"frcrn": [(steps, [1.0, 2.0, 3.0, 4.0])], "other": [(steps, [0.0, 0.0, 0.0, 9.0])]}
    slow, fast = learning.equal_rows(curves, {"frcrn": 2.0, "other": 1.0}, "level")
    assert slow["equal time"] == "2.00"  # after 4 s: 2 steps
    assert fast["equal time"] == "9.00"
    untimed = learning.equal_rows(curves, {"frcrn": 2.0}, "level")
    assert all("equal time" not in row for row in untimed)


def test_nothing_prepared_is_an_error_that_says_so(done, tmp_path: Path):
    empty = Pipeline("speech", tmp_path / "pipelines" / "speech", done.params)
    with pytest.raises(UserError, match="sixfold prepare speech"):
        stages.train(empty, ["frcrn_no_recurrence"])
    with pytest.raises(UserError, match="sixfold prepare speech"):
        report.write_report(empty)
