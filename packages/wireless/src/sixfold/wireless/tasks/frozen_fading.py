"""Frozen fading: what a network gains from slots that share 240 channels, against independent ones.

The official generator makes a new channel object for each sample and never seeds it, so that the
fading is a function of delay spread and Doppler: a network that is told both can look it up.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from sixfold.core.pipeline.claim import (
    Claim,
    Comparison,
    Curve,
    Metric,
    Scores,
    p_text,
    paired_test,
)
from sixfold.core.pipeline.page import Section, Table, mean_std
from sixfold.core.pipeline.report import Outcome
from sixfold.core.pipeline.task import Task
from sixfold.wireless.data.channel_estimation import ChannelData, gaps_db, prepare, read_slots
from sixfold.wireless.data.slots import Fading
from sixfold.wireless.tasks.slots import SWEEPS, Training, evaluate, gap_table, train_seed

FADINGS = ("frozen_240", "independent")
DECIDING = "gap_fast"  # where pilots say least, so that memory gains most


def score_bound(fading: Fading, prepared: Path, samples: Path | None) -> Scores:
    """Score the bound: on frozen fading, how lucky the few channels of the test are."""
    del samples
    test = read_slots(prepared, fading, "test")
    return {**gaps_db(test["bound"].flatten(), test, "known")}


def sections(outcome: Outcome) -> Iterator[Section]:
    """Show whether each network is below LMMSE, and by how much over each condition."""
    rows = []
    for key in outcome.run.entries:
        below = [-scores[DECIDING] for scores in outcome.results[key]["seeds"].values()]
        verdict = "one seed"
        if len(below) > 1:
            found, p, _ = paired_test(below)
            verdict = f"{found}, {p_text(p)}"
        name = outcome.claim.label(key)
        rows.append({"system": name, "below LMMSE, dB": mean_std(below), "test": verdict})
    text = (
        "On independent fading no estimator has less error than LMMSE with known statistics. On "
        "frozen fading this binds none that has seen the channel before: errors below it measure "
        "memory, not estimation. The bound is the mean over all channels; the test has 21 frozen "
        "ones, some of them weak, so each error counts over that of LMMSE on the same slots."
    )
    below = Table("At 800 and 1000 Hz; two-sided t-test over seeds", list(rows[0]), rows)
    tables = [below, *(gap_table(outcome, over) for over in SWEEPS)]
    yield Section(f"{outcome.claim.title}: against independent fading", text, tables=tables)


def _gap(words: str) -> Metric:
    return Metric(f"error over LMMSE{words}, dB", better="lower")


CLAIM = Claim(
    title="AdaFortiTran: frozen against independent fading",
    text="The generator of the paper's data (arXiv:2505.09076) never seeds its channel, so that "
    "100,000 training slots would hold 240 different channels, and the test slots the same ones. "
    "That would explain published errors that are below what any estimator reaches on independent "
    "fading. If so, a network that is told delay spread and Doppler should go below LMMSE with "
    "known statistics, and further than one that is not. Both are trained here on such slots, "
    "beside the same network on independent ones, each tested on other slots of its own kind at "
    "the same points.",
    metrics={
        DECIDING: _gap(" at 800 and 1000 Hz"),
        "gap_middle": _gap(" at 400 and 600 Hz"),
        "gap_slow": _gap(" to 200 Hz"),
        "gap": _gap(""),
        "mse": Metric("mean square error, dB", better="lower"),
    },
    comparisons=[
        Comparison("adafortitran", "fortitran"),
        Comparison("adafortitran", "adafortitran_independent"),
    ],
    labels={
        "adafortitran": "AdaFortiTran, frozen",
        "fortitran": "FortiTran, frozen",
        "adafortitran_independent": "AdaFortiTran, independent",
        "bound_frozen": "bound of independent fading, frozen",
        "bound_independent": "bound of independent fading, independent",
    },
    curve=Curve("over_bound_db", "validation error over the bound, dB"),
    caption="Test slots of the fading that was trained on",
)

TASK = Task(
    claim=CLAIM,
    data=ChannelData,
    datasets=lambda data: [],
    prepare=partial(prepare, FADINGS),
    synthetic="simulated TDL-A channels",
    train=train_seed,
    evaluate=partial(evaluate, "known"),
    references={
        "bound_frozen": partial(score_bound, "frozen_240"),
        "bound_independent": partial(score_bound, "independent"),
    },
    settings=Training,
    sections=sections,
)
