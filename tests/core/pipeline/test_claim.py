"""Verdicts follow the numbers: measurements by tolerance, races by a paired t-test over seeds."""

from typing import Any

import pytest

from sixfold.core.pipeline.claim import (
    Claim,
    Comparison,
    Measurement,
    Metric,
    judge,
    judge_all,
    measured,
    paired_test,
)

CLAIM = Claim(
    title="Claim",
    text="The system is better.",
    metrics={"score": Metric("SI-SDR, dB"), "error": Metric("error", better="lower")},
    comparisons=[Comparison("system", "baseline")],
    labels={"system": "Ours"},
)


def results(*gains: float, metric: str = "score", sign: int = 1) -> dict:
    ours = {str(i): {metric: 10 + sign * gain} for i, gain in enumerate(gains)}
    theirs = {str(i): {metric: 10.0} for i in range(len(gains))}
    pairs = {"system": ours, "baseline": theirs}
    return {k: {"seeds": seeds, "mean": {metric: 0.0}} for k, seeds in pairs.items()}


def verdict(*gains: float) -> str:
    return judge(CLAIM, CLAIM.comparisons[0], results(*gains)).text


def test_the_verdict_follows_the_numbers():
    assert verdict(1.0, 1.1, 0.9) == (
        "Shows: Ours over baseline, +1.00 dB SI-SDR "
        "(95 % interval +0.75 to +1.25, p = 0.003, 3 seeds)."
    )
    assert "p < 0.001" in verdict(1.0, 1.001, 0.999)
    assert verdict(-1.0, -1.1, -0.9).startswith("Shows the opposite: Ours")
    assert verdict(1.0, -1.1, 0.2).startswith("Not decided at this budget: Ours")
    assert verdict(1.0) == "Not tested (one seed): Ours over baseline, +1.00 dB SI-SDR."
    assert "Ours not trained" in judge(CLAIM, CLAIM.comparisons[0], {"baseline": {}}).text


def test_seeds_that_one_system_lacks_do_not_count():
    found = results(1.0, 1.1, 0.9, 5.0)
    del found["baseline"]["seeds"]["3"]
    assert "3 seeds" in judge(CLAIM, CLAIM.comparisons[0], found).text


def test_lower_may_be_better():
    found = results(1.0, 1.1, 0.9, metric="error", sign=-1)
    assert judge(CLAIM, Comparison("system", "baseline", "error"), found).outcome == "shows"


def test_the_test_is_the_paired_t_test():
    stats: Any = pytest.importorskip("scipy.stats")
    gains = [0.3, -0.1, 0.8, 0.4]
    outcome, p, (low, high) = paired_test(gains)
    expected = stats.ttest_1samp(gains, 0.0)
    interval = expected.confidence_interval(0.95)
    assert p == pytest.approx(expected.pvalue)
    assert (low, high) == pytest.approx((interval.low, interval.high))
    assert stats.ttest_rel([10 + g for g in gains], [10.0] * 4).pvalue == pytest.approx(p)
    assert outcome == "not decided at this budget"


def test_a_margin_asks_whether_the_system_is_not_worse():
    gains = [-0.1, 0.05, -0.2, 0.1]
    assert paired_test(gains)[0] == "not decided at this budget"
    assert paired_test(gains, margin=1.0)[0] == "shows"
    assert paired_test([-3.1, -2.9, -3.0], margin=1.0)[0] == "shows the opposite"
    found = results(*gains)
    found_verdict = judge(CLAIM, Comparison("system", "baseline", margin=1.0), found)
    assert found_verdict.outcome == "not worse by 1 dB"
    assert "p is of a difference of -1 dB" in found_verdict.text


def test_a_score_that_was_not_measured_is_not_tested():
    found = results(1.0, 1.1)
    found["system"]["seeds"]["0"]["score"] = None
    assert "SI-SDR, dB not measured" in judge(CLAIM, CLAIM.comparisons[0], found).text


def test_every_metric_may_decide_for_itself():
    claim = Claim("t", "x", CLAIM.metrics, [Comparison("system", "baseline", every=True)])
    found = results(1.0, 1.1, 0.9)
    assert [v.metric for v in judge_all(claim, found)] == ["SI-SDR, dB"]


def test_a_comparison_of_no_metric_is_refused_before_any_training():
    with pytest.raises(ValueError, match="valeu"):
        Claim("t", "x", CLAIM.metrics, [Comparison("system", "baseline", "valeu")])


def test_a_figure_that_needs_trainings_is_measured_at_the_published_settings_only():
    one = Measurement("accuracy", 1.0, lambda means: 1.0, trained=True)
    assert measured([one], {}, at_full_size=False)[0]["verdict"] == "not measured"
    assert measured([one], {}, at_full_size=True)[0]["verdict"] == "reproduced"


def test_gains_without_spread_are_certain():
    assert paired_test([1.0, 1.0])[:2] == ("shows", 0.0)
    assert paired_test([0.0, 0.0])[:2] == ("not decided at this budget", 1.0)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (21.6, "reproduced"),
        (21.2, "reproduced"),
        (21.1, "not reproduced"),
        (None, "not measured"),
        (float("nan"), "not measured"),
    ],
)
def test_a_measurement_is_judged_by_its_tolerance(value, said):
    one = Measurement("outputs", 21.7, lambda means: value, tolerance=0.5)
    (row,) = measured([one], {})
    assert row["verdict"] == said
    assert row["measured"] == (None if said == "not measured" else value)


def test_an_interval_below_the_papers_gain_is_no_clear_difference():
    """A wide interval, which holds zero and the paper's gain, decides nothing."""
    found = results(-0.1, 0.1, 0.05)
    for claimed, said in ((0.2, "not decided at this budget"), (2.0, "no clear difference")):
        comparison = Comparison("system", "baseline", claimed=claimed)
        verdict = judge(CLAIM, comparison, found)
        assert verdict.outcome == said
        assert ("where the paper has +2.00" in verdict.text) == (claimed == 2.0)
