"""Channel estimation: AdaFortiTran, FortiTran and a linear map, by their distance to the bound."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Complex
from torch import Tensor

from sixfold.core.pipeline.claim import (
    Claim,
    Comparison,
    Curve,
    Metric,
    Scores,
    parameter_counts,
)
from sixfold.core.pipeline.figures import curve_figure
from sixfold.core.pipeline.page import Figure, Section
from sixfold.core.pipeline.report import Outcome
from sixfold.core.pipeline.task import Task
from sixfold.wireless.data.channel_estimation import (
    MAX_DOPPLERS_HZ,
    POINTS,
    ChannelData,
    Point,
    gaps_db,
    known_statistics,
    levels_db,
    prepare,
    read_settings,
    read_slots,
)
from sixfold.wireless.data.slots import SlotsConfig
from sixfold.wireless.iq import estimators
from sixfold.wireless.iq.ofdm import noise_variance
from sixfold.wireless.models.adafortitran import FORTITRAN, LINEAR, SYSTEM
from sixfold.wireless.tasks.slots import (
    SWEEPS,
    Training,
    evaluate,
    gap_table,
    magnitude_rows,
    score,
    train_seed,
)

FADING = "independent"
SHOWN = ("linear_relative", "fortitran_relative", "adafortitran_relative", "ls", "lmmse_known")

Pilots = Complex[Tensor, "slot pilot_subcarrier pilot_symbol"]
Grids = Complex[Tensor, "slot subcarrier symbol"]
Estimate = Callable[[Point, Pilots], Grids]


def interpolate(config: SlotsConfig, prepared: Path) -> Estimate:
    """Return bilinear interpolation of the least-squares estimates."""
    del prepared
    return lambda point, pilots: estimators.bilinear(pilots, config.pilots, config.grid)


def known(config: SlotsConfig, prepared: Path) -> Estimate:
    """Return LMMSE that knows each point's statistics, which reaches the bound."""
    del prepared
    return lambda point, pilots: known_statistics(config, point)(pilots)


def averaged(config: SlotsConfig, prepared: Path) -> Estimate:
    """Return LMMSE with the covariances of slots of all conditions."""
    del config
    start = read_slots(prepared, FADING, "start")
    channels, pilots = (torch.view_as_complex(start[name]) for name in ("target", "pilots"))
    estimator = estimators.averaged_lmmse(channels, pilots, noise_variance=0.0)
    return lambda point, pilots: estimator(pilots)


def robust(config: SlotsConfig, prepared: Path) -> Estimate:
    """Return LMMSE that knows the SNR and presumes little else."""
    del prepared
    statistics = estimators.robust_statistics(config.grid, MAX_DOPPLERS_HZ[-1])

    def estimate(point: Point, pilots: Pilots) -> Grids:
        noise = noise_variance(point.snr_db, config.grid, config.pilots)
        return estimators.lmmse(statistics, config.pilots, noise)(pilots)

    return estimate


def score_estimator(
    make: Callable[[SlotsConfig, Path], Estimate], prepared: Path, samples: Path | None
) -> Scores:
    """Score an estimator without training.

    Args:
        make: Function that makes it from the settings and the prepared folder.
        prepared: Prepared folder.
        samples: Folder for the report's |H|.
    """
    test = read_slots(prepared, FADING, "test")
    estimate = make(read_settings(prepared).slots(FADING), prepared)
    pilots = torch.view_as_complex(test["pilots"])
    found = [estimate(point, one) for point, one in zip(POINTS, pilots, strict=True)]
    return score(torch.stack(found), test, "bound", samples)


def score_bound(kind: str, prepared: Path, samples: Path | None) -> Scores:
    """Score a bound, and give its level for each group of points in dB, as ``level_...``."""
    del samples
    test = read_slots(prepared, FADING, "test")
    bound = test[kind].flatten()
    levels = {f"level_{name}": level for name, level in levels_db(bound).items()}
    return {**gaps_db(bound, test, "bound"), **levels}


def sections(outcome: Outcome) -> Iterator[Section]:
    """Show the error over each condition with both bounds, its gaps, and |H|."""
    title, results = outcome.claim.title, outcome.results
    text = (
        "Mean square error in dB, averaged over the other conditions, so that the distance of two "
        "lines is the gap. The upper bound is of estimators that take real and imaginary part "
        "each on its own, as these networks do."
    )
    figures = [sweep_figure(outcome, over) for over in SWEEPS]
    tables = [gap_table(outcome, over) for over in SWEEPS]
    yield Section(f"{title}: over the conditions", text, tables=tables, figures=figures)
    rows = magnitude_rows(outcome, FADING, [key for key in SHOWN if key in results])
    yield Section(f"{title}: |H|", "Subcarriers down, symbols across.", pictures=rows)


def sweep_figure(outcome: Outcome, over: str) -> Figure:
    """Draw the error of some rows over one condition, with both bounds."""
    name, values = SWEEPS[over]
    bound = outcome.results["bound"]["mean"]
    curves = {}
    for key in ("bound", "bound_parts", *SHOWN):
        if key in outcome.results:
            curves[outcome.claim.label(key)] = [
                (values, [bound[f"level_{name}_{x:g}"] + one[f"gap_{name}_{x:g}"] for x in values])
                for one in outcome.results[key]["seeds"].values()
            ]
    return curve_figure(f"{outcome.run.key}-{name}", "mean square error, dB", curves, over=over)


def _gap(words: str) -> Metric:
    return Metric(f"gap to the bound{words}, dB", better="lower")


PAIRS = [("fortitran", "linear"), ("adafortitran", "linear"), ("adafortitran", "fortitran")]
COMPARED = ("gap", "gap_slow_10db")
CLAIM = Claim(
    title="AdaFortiTran: channel estimation",
    text="The paper (arXiv:2505.09076) claims up to 6 dB less error than the state of the art over "
    "200 to 1000 Hz, 0 to 25 dB and 50 to 300 ns, for a transformer that is told SNR, delay spread "
    "and Doppler. Here each slot has a fading of its own, on 24 x 14 elements with 8 x 2 pilots, "
    "so that no estimator passes LMMSE with known statistics, the bound, and every error counts in "
    "dB over it. Each is trained on the published mean square error, of which fast channels are "
    "nearly all, and on each slot's error over its bound (the relative loss); all start at the "
    "linear map that is best for their loss.",
    metrics={
        "gap": _gap(""),
        "gap_slow": _gap(" to 200 Hz"),
        "gap_slow_10db": _gap(" to 200 Hz and from 10 dB"),
        "gap_middle": _gap(" at 400 and 600 Hz"),
        "gap_fast": _gap(" at 800 and 1000 Hz"),
        "mse": Metric("mean square error, dB", better="lower"),
    },
    comparisons=[
        Comparison(f"{system}_{loss}", f"{baseline}_{loss}", metric)
        for loss in ("relative", "mse")
        for system, baseline in PAIRS
        for metric in COMPARED
    ],
    labels={
        "bound": "bound: LMMSE, known statistics",
        "bound_parts": "bound of separate parts",
        "lmmse_known": "LMMSE, known statistics",
        "lmmse_averaged": "LMMSE, averaged statistics",
        "lmmse_robust": "LMMSE, robust statistics",
        "ls": "LS and bilinear interpolation",
        **{
            f"{key}_{loss}": f"{name} ({words})"
            for key, name in (
                ("linear", "Linear"),
                ("fortitran", "FortiTran"),
                ("adafortitran", "AdaFortiTran"),
            )
            for loss, words in (("mse", "MSE"), ("relative", "relative loss"))
        },
    },
    curve=Curve("over_bound_db", "validation error over the bound, dB"),
    caption="Test slots of independent fading",
)

TASK = Task(
    claim=CLAIM,
    data=ChannelData,
    datasets=lambda data: [],
    prepare=partial(prepare, ("independent",)),
    synthetic="simulated TDL-A channels",
    train=train_seed,
    evaluate=partial(evaluate, "bound"),
    references={
        "bound": partial(score_bound, "bound"),
        "bound_parts": partial(score_bound, "part_bound"),
        "lmmse_known": partial(score_estimator, known),
        "lmmse_averaged": partial(score_estimator, averaged),
        "lmmse_robust": partial(score_estimator, robust),
        "ls": partial(score_estimator, interpolate),
    },
    measurements=parameter_counts(SYSTEM, FORTITRAN, LINEAR),
    settings=Training,
    sections=sections,
)
