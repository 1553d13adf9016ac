"""The speech pipeline from end to end, at the smallest size there is, on the built-in source."""

import re
from pathlib import Path

import pytest

from sixfold.core import stages
from sixfold.core.config import UserError
from sixfold.core.pipeline import INPUT, Pipeline
from sixfold.speech import recipe, report

PARAMS = """
data: {source: builtin, test_clips: 2, test_seconds: 1.0}
budget: 1.0
seeds: [0, 1]
systems:
  frcrn:
    system: frcrn
    model: {channels: 2, reduction: 2, unets: 1}
    train: {steps: 2, batch: 1, learning_rate: 1.0e-3, threads: 1, log_every: 1}
  frcrn_no_recurrence:
    system: frcrn
    model: {channels: 2, reduction: 2, unets: 1, frequency_recurrence: false}
    train: {steps: 2, batch: 1, learning_rate: 1.0e-3, threads: 1, log_every: 1}
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
        patch.setattr(
            recipe,
            "METRICS",
            dict(list(recipe.METRICS.items())[:1])
            | dict.fromkeys(list(recipe.METRICS)[1:], unavailable),
        )
        pipeline = Pipeline.find("speech")
        stages.prepare(pipeline)
        for name in pipeline.params.systems:
            stages.train(pipeline, name)
        for name in (INPUT, *pipeline.params.systems):
            stages.evaluate(pipeline, name)
        report.write_report(pipeline)
    return pipeline


def unavailable(estimate, clean) -> float:
    raise UserError("this metric is not installed; try: pip install it")


def test_the_report_says_that_the_source_is_built_in(done):
    assert done.source() == "builtin"
    text = (done.root / "reports" / "speech.md").read_text()
    page = (done.root / "reports" / "speech" / "index.html").read_text()
    for words in ("Built-in source", "arXiv:2206.07293", "noisy input", "not measured"):
        assert words in text
        assert words in page


def test_the_page_plays_what_it_shows(done):
    folder = done.root / "reports" / "speech"
    page = (folder / "index.html").read_text()
    sounds = re.findall(r'<audio[^>]*src="([^"]+)"', page)
    assert len(sounds) == 2 * 4  # two clips: input, two systems, clean
    for name in sounds + re.findall(r'<img[^>]*src="([^"]+)"', page):
        assert (folder / name).is_file(), name


def test_a_metric_that_is_not_installed_is_not_measured(done):
    scores = done.results()["frcrn"]
    assert isinstance(scores["mean"]["si_sdr"], float)
    assert scores["mean"]["pesq_wb"] is None


def test_training_and_test_share_nothing(done):
    import json

    manifest = json.loads((done.prepared / "manifest.json").read_text())
    for kind in ("speech", "noise"):
        assert not set(manifest["train"][kind]) & set(manifest["test"][kind])


def test_the_verdict_follows_the_numbers():
    def results(*gains: float) -> dict:
        model = {str(i): {"si_sdr": 10 + gain} for i, gain in enumerate(gains)}
        baseline = {str(i): {"si_sdr": 10.0} for i in range(len(gains))}
        return {"frcrn": {"seeds": model}, "frcrn_no_recurrence": {"seeds": baseline}}

    assert report.shown(results(1.0, 1.1, 0.9)).startswith("The claim shows")
    assert "on the contrary" in report.shown(results(-1.0, -1.1, -0.9))
    assert "no clear difference" in report.shown(results(1.0, -1.1, 0.2))
    assert "proves nothing" in report.shown(results(1.0))
    assert "not trained" in report.shown({"frcrn": {"seeds": {}}})


def test_equal_time_is_read_when_the_faster_one_is_done():
    steps = [1.0, 2.0, 3.0, 4.0]
    curves = {"frcrn": [(steps, [1.0, 2.0, 3.0, 4.0])], "other": [(steps, [0.0, 0.0, 0.0, 9.0])]}
    slow, fast = report.equal_rows(curves, {"frcrn": 2.0, "other": 1.0})
    assert slow["at equal time, dB"] == "2.00"  # after 4 s: 2 steps
    assert fast["at equal time, dB"] == "9.00"
    untimed = report.equal_rows(curves, {"frcrn": 2.0})
    assert all("at equal time, dB" not in row for row in untimed)


def test_nothing_prepared_is_an_error_that_says_so(done, tmp_path: Path):
    empty = Pipeline("speech", tmp_path / "pipelines" / "speech", done.params)
    with pytest.raises(UserError, match="sixfold prepare speech"):
        stages.train(empty, "frcrn")
    with pytest.raises(UserError, match="sixfold evaluate speech/input"):
        report.write_report(empty)
