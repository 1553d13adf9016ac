"""What the experiments on slots share: training from the linear start, scores, |H| to show."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Complex, Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from sixfold.core.pipeline.claim import Scores
from sixfold.core.pipeline.figures import picture_row
from sixfold.core.pipeline.job import Job
from sixfold.core.pipeline.page import Row, Table, mean_std
from sixfold.core.pipeline.report import Outcome
from sixfold.core.training.fit import FitConfig, derive_seed
from sixfold.wireless.data.channel_estimation import (
    DELAY_SPREADS_S,
    MAX_DOPPLERS_HZ,
    POINTS,
    SNRS_DB,
    ChannelData,
    FreshSlots,
    Level,
    Point,
    gaps_db,
    point_errors,
    read_slots,
)
from sixfold.wireless.data.slots import Fading, SyntheticSlots
from sixfold.wireless.models.adafortitran.training import (
    Slots,
    mse_loss,
    relative_loss,
    squared_error,
    start_linear,
)
from sixfold.wireless.tasks.training import train_on

VALID_SLOTS = 256
# Test points whose first slot the report shows: a slow channel and a fast one.
EXAMPLES = (Point(10.0, 3e-7, 100.0), Point(10.0, 3e-7, 1000.0))
MAGNITUDES = "magnitudes.safetensors"
# Conditions over which errors are drawn: label, beginning of the group's name, value in its unit.
SWEEPS = {
    "maximum Doppler, Hz": ("doppler", MAX_DOPPLERS_HZ),
    "SNR, dB": ("snr", SNRS_DB),
    "delay spread, ns": ("spread", tuple(x * 1e9 for x in DELAY_SPREADS_S)),
}
LOSSES = {"mse": mse_loss, "relative": relative_loss}


class Training(FitConfig):
    """The ``train:`` block.

    Args:
        loss: Published mean square error, or the mean of each slot's error over its bound.
        fading: Kind of fading of the slots that are trained on and tested on.
    """

    loss: Literal["mse", "relative"] = "mse"
    fading: Fading = "independent"


def train_seed(job: Job[ChannelData]) -> None:
    """Train one seed from the best linear map for its loss, on slots that never come again."""
    config, drawn_from = job.train, job.data.slots(job.train.fading)
    start = read_slots(job.prepared, config.fading, "start")
    weights = 1 / start["bound"] if config.loss == "relative" else None
    seed = derive_seed(job.seed, "valid")
    valid = SyntheticSlots(drawn_from, VALID_SLOTS, seed).batch(range(VALID_SLOTS))
    train_on(
        FreshSlots(drawn_from),
        LOSSES[config.loss],
        job,
        start=lambda model: start_linear(model, Slots(start), weights),
        evaluate=lambda model: {"over_bound_db": over_bound_db(model, valid)},
    )


def over_bound_db(model: Any, batch: dict[str, Tensor]) -> float:
    """Return the mean of each slot's error over its bound, in dB."""
    ratio = 2 * squared_error(model, batch).detach().double() / batch["bound"]
    return float(10 * ratio.mean().log10())


def evaluate(against: Level, job: Job[ChannelData], samples: Path | None) -> Scores:
    """Score a trained network on test slots of the fading that it was trained on.

    Args:
        against: Error that it is compared with; see `gaps_db`.
        job: Seed of an entry.
        samples: Folder for the report's |H|.
    """
    test = read_slots(job.prepared, job.train.fading, "test")
    return score(estimate(job.trained(), test), test, against, samples)


def estimate(
    model: Any, test: Mapping[str, Tensor]
) -> Complex[Tensor, "point slot subcarrier symbol"]:
    """Run a network over the test slots, a point at a time."""
    found = []
    for pilots, conditions in zip(test["pilots"], test["conditions"], strict=True):
        found.append(model(pilots, *([conditions] if model.adaptive else [])))
    return torch.view_as_complex(torch.stack(found).contiguous())


def score(
    found: Complex[Tensor, "point slot subcarrier symbol"],
    test: Mapping[str, Tensor],
    against: Level,
    samples: Path | None,
) -> Scores:
    """Score estimates; see `gaps_db`. Leave |H| of the examples for the report."""
    if samples is not None:
        save_file({example_key(p): magnitude(found, p) for p in EXAMPLES}, samples / MAGNITUDES)
    errors = point_errors(found, torch.view_as_complex(test["target"]))
    return {**gaps_db(errors, test, against)}


def magnitude(
    channels: Complex[Tensor, "point slot subcarrier symbol"], point: Point
) -> Float[Tensor, "subcarrier symbol"]:
    """Return |H| of the first slot of a point."""
    return channels[POINTS.index(point), 0].abs().contiguous()


def example_key(point: Point) -> str:
    """Return the name of a point in words, as the report shows it."""
    spread_ns = point.delay_spread_s * 1e9
    return f"{point.snr_db:g} dB, {spread_ns:g} ns, {point.max_doppler_hz:g} Hz"


def magnitude_rows(outcome: Outcome, fading: Fading, keys: list[str]) -> list[Row]:
    """Show |H| of the examples, true and as rows of the results estimate it."""
    true = torch.view_as_complex(read_slots(outcome.run.prepared, fading, "test")["target"])
    shown = [key for key in keys if (outcome.samples(key) / MAGNITUDES).is_file()]
    rows = []
    for number, point in enumerate(EXAMPLES):
        panels = {"true": magnitude(true, point).numpy()}
        for key in shown:
            found = load_file(outcome.samples(key) / MAGNITUDES)[example_key(point)]
            panels[outcome.claim.label(key)] = found.numpy()
        name = f"{outcome.run.key}-{number}"
        rows.append(picture_row(name, f"|H| at {example_key(point)}", panels, colour_map="viridis"))
    return rows


def gap_table(outcome: Outcome, over: str) -> Table:
    """Show the gap of every row at each value of one condition."""
    name, values = SWEEPS[over]
    rows = []
    for key, result in outcome.results.items():
        row = {"system": outcome.claim.label(key)}
        for value in values:
            found = [one[f"gap_{name}_{value:g}"] for one in result["seeds"].values()]
            row[f"{value:g}"] = mean_std(found)
        rows.append(row)
    return Table(f"Gap in dB over {over}", list(rows[0]), rows)
