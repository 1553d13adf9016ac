"""Scores of two folders of recordings: ``sixfold score speech clean/ enhanced/``."""

import csv
import io
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from sixfold.core import UserError
from sixfold.core.config import unknown_name_error
from sixfold.core.data.atomic import write_atomic
from sixfold.core.many_files import check_table
from sixfold.core.progress import progress
from sixfold.speech import metrics as functions
from sixfold.speech.audio.files import read_audio
from sixfold.speech.audio.resampling import resample
from sixfold.speech.data.layouts import matched_files

Metric = Callable[[Tensor, Tensor, int], float | dict[str, float]]
PESQ_RATES = {8000: "nb", 16_000: "wb"}


def _pesq(estimate: Tensor, reference: Tensor, sample_rate: int) -> float:
    if sample_rate in PESQ_RATES:
        band: Any = PESQ_RATES[sample_rate]
        return functions.pesq(estimate, reference, sample_rate, band)
    estimate, reference = (resample(x, sample_rate, 16_000) for x in (estimate, reference))
    return functions.pesq(estimate, reference, 16_000)


def _dnsmos(estimate: Tensor, reference: Tensor, sample_rate: int) -> dict[str, float]:
    del reference
    at_16k = resample(estimate, sample_rate, 16_000).clamp(-1, 1)
    return {f"dnsmos_{k}": v for k, v in functions.dnsmos(at_16k, 16_000).items()}


METRICS: Mapping[str, Metric] = {
    "si_sdr": lambda estimate, reference, _: functions.si_sdr(estimate, reference),
    "sdr": lambda estimate, reference, _: functions.sdr(estimate, reference),
    "pesq": _pesq,
    "stoi": functions.stoi,
    "estoi": partial(functions.stoi, extended=True),
    "dnsmos": _dnsmos,
}


def score(
    reference: Path,
    estimate: Path,
    *,
    metrics: Sequence[str] = tuple(METRICS),
    out: Path | None = None,
) -> dict[str, float]:
    """Score recordings against clean references of the same names, file by file and on average.

    SI-SDR and SDR in dB, PESQ (narrow band at 8 kHz, else wide band at 16 kHz), STOI, ESTOI, and
    DNSMOS, which needs no reference. Every channel counts as a recording of its own. Recordings
    that have no score (silence, another length) are named and left out, and the exit status is 1.

    Args:
        reference: Clean recording, or folder of them.
        estimate: Recording to score, or folder with the same names.
        metrics: Which of si_sdr, sdr, pesq, stoi, estoi, dnsmos; by default all that are installed.
        out: File for the scores of each recording, as CSV; by default they are printed.

    Returns:
        The averages.

    Raises:
        UserError: the names do not match, ``out`` cannot be written, a metric is unknown, or
            no recording has a score.
        SystemExit: with status 1 at the end, if recordings were left out.
    """
    for name in metrics:
        if name not in METRICS:
            raise UserError(unknown_name_error("sixfold score speech", "metric", name, METRICS))
    pairs = matched_files(Path(reference), Path(estimate))
    check_table(out, [file for pair in pairs.values() for file in pair])
    chosen = _installed(metrics)
    rows, left_out = [], 0
    with progress("scoring", len(pairs)) as advance:
        for name, (clean, made) in pairs.items():
            try:
                rows += _score_file(name, clean, made, chosen)
            except UserError as error:
                left_out += 1
                print(f"left out: {name}: {error}", file=sys.stderr)
            advance(1)
    if not rows:
        raise UserError("no recording has a score")
    if out is None:
        print(_to_csv(rows), end="")
    else:
        write_atomic(out, _to_csv(rows))
    averages = _averages(rows)
    print(f"mean over {len(rows)} recordings:")
    for name, value in averages.items():
        print(f"  {name} {value:.4g}")
    if left_out:
        print(f"{left_out} of {len(pairs)} were left out, see above", file=sys.stderr)
        raise SystemExit(1)
    return averages


def _installed(metrics: Sequence[str]) -> dict[str, Metric]:
    """Leave out metrics whose package is missing, and say which and how to get it."""
    packages = {"pesq": "pesq", "dnsmos": "speechmos"}
    chosen = {name: METRICS[name] for name in metrics}
    for name, package in packages.items():
        if name in chosen and find_spec(package) is None:
            del chosen[name]
            print(f"{name}: not measured: pip install 'sixfold-speech[{name}]'", file=sys.stderr)
    if not chosen:
        raise UserError("none of these metrics is installed")
    return chosen


def _score_file(
    name: str, clean: Path, made: Path, metrics: Mapping[str, Metric]
) -> list[dict[str, Any]]:
    """Return a row for each channel of a recording."""
    (reference, rate), (estimate, own_rate) = read_audio(clean), read_audio(made)
    if (rate, reference.shape) != (own_rate, estimate.shape):
        raise UserError(
            f"the reference is {tuple(reference.shape)} at {rate} Hz, the estimate "
            f"{tuple(estimate.shape)} at {own_rate} Hz (channels, samples); bring them to one"
        )
    rows = []
    for channel in range(len(reference)):
        row: dict[str, Any] = {"file": name if len(reference) == 1 else f"{name}:{channel + 1}"}
        for metric, function in metrics.items():
            value = function(estimate[channel], reference[channel], rate)
            row |= value if isinstance(value, dict) else {metric: value}
        rows.append(row)
    return rows


def _averages(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {name: statistics.fmean(r[name] for r in rows) for name in rows[0] if name != "file"}


def _to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: v if isinstance(v, str) else f"{v:.6g}" for k, v in row.items()})
    return text.getvalue()
