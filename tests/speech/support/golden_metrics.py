"""Compare `sixfold.speech.metrics` with one golden case: a folder of signals and their scores.

Imported by test_golden.py. ``expected.json`` names items and their scores;
``io.safetensors`` holds the signals, in two layouts:

- separation: ``<item>/mix``, ``<item>/source<n>``, ``<item>/source<n>hat``; lists of scores are in
  the order of the sources, each with the estimate that the best permutation gives it;
- enhancement: ``<set>/target`` and ``<set>/<system>``, scored as the item ``<set>_<system>``.

A key may end in its sample rate (``stoi_8k``); without one it is 16 kHz.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from sixfold.core import UserError
from sixfold.speech.metrics import best_permutation, estoi, pesq, sdr, si_sdr, stoi

# From the case's README: SI-SDR 1e-3 dB, SDR 1e-2 dB, PESQ 2e-3, STOI 1e-4.
TOLERANCES = {"si_sdr": 1e-3, "sdr": 1e-2, "pesq": 2e-3, "stoi": 1e-4}

# name of the score: (the tolerance's name, the score of (estimate, reference, sample rate))
PAIRWISE = {
    "si_sdr_zero_mean": ("si_sdr", lambda e, r, _: si_sdr(e, r)),
    "si_sdr_raw": ("si_sdr", lambda e, r, _: si_sdr(e, r, zero_mean=False)),
    "sdr_bsseval_v3": ("sdr", lambda e, r, _: sdr(e, r)),
    "pesq_wb": ("pesq", lambda e, r, rate: pesq(e, r, rate, "wb")),
    "pesq_nb": ("pesq", lambda e, r, rate: pesq(e, r, rate, "nb")),
    "stoi": ("stoi", stoi),
    "estoi": ("stoi", estoi),
}


def check_metrics_case(folder: Path) -> tuple[list[str], list[str]]:
    """Recompute every expected score; list the checked ones, and those of missing packages.

    Raises:
        AssertionError: a score differs, or a key, an item or a tensor is unknown; the message lists
            all of them.
    """
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "io.safetensors")
    checked, skipped, faults, used = [], [], [], set()
    for item, scores in expected.items():
        names, compute = _reader(item, tensors)
        if not names:
            faults.append(f"{item}: no tensors for it among {sorted(tensors)}")
            continue
        used |= names
        for key, value in scores.items():
            try:
                fault = _compare(compute, key, value)
            except UserError as error:
                if "pip install" not in str(error):
                    raise
                skipped.append(f"{item}.{key}")
            else:
                (faults if fault else checked).append(f"{item}.{key}{fault}")
    faults += [f"tensor {name} belongs to no item" for name in sorted(set(tensors) - used)]
    assert checked or faults, f"{folder} expects nothing"
    assert not faults, f"{folder}:\n" + "\n".join(faults)
    return checked, skipped


def _compare(compute, key: str, value) -> str:
    """Return the fault of one score; empty if it is right."""
    try:
        tolerance, ours = compute(key)
    except KeyError:
        return ": a score that this test does not know"
    ours, theirs = np.asarray(ours, dtype=float), np.asarray(value, dtype=float)
    if ours.shape != theirs.shape:
        return f": shape {theirs.shape} expected, got {ours.shape}"
    error = np.abs(ours - theirs).max()
    limit = TOLERANCES[tolerance]
    return "" if error <= limit else f": {theirs} expected, got {ours}, tolerance {limit}"


def _reader(item: str, tensors: Mapping[str, Tensor]):
    """Return the names of an item's tensors, and the function that computes one of its scores."""
    if f"{item}/mix" in tensors:
        sources = sorted(
            (name for name in tensors if re.fullmatch(re.escape(item) + r"/source\d+", name)),
            key=lambda name: int(name.rpartition("source")[2]),
        )
        estimates = [f"{name}hat" for name in sources]
        separation = Separation(
            tensors[f"{item}/mix"],
            [tensors[name] for name in sources],
            [tensors[name] for name in estimates],
        )
        return {f"{item}/mix", *sources, *estimates}, separation.score
    for cut in (place.start() for place in re.finditer("_", item)):
        system, target = f"{item[:cut]}/{item[cut + 1 :]}", f"{item[:cut]}/target"
        if system in tensors and target in tensors:
            return {system, target}, Enhancement(tensors[system], tensors[target]).score
    return set(), None


def _metric(key: str):
    """Split a key into tolerance, score and sample rate; KeyError if it is not known."""
    match = re.fullmatch(r"(.*?)(?:_(\d+)k)?", key)
    assert match is not None
    tolerance, score = PAIRWISE[match[1]]
    return tolerance, score, int(match[2] or 16) * 1000


class Enhancement:
    """One estimate and its target."""

    def __init__(self, estimate: Tensor, target: Tensor) -> None:
        self.estimate, self.target = estimate, target

    def score(self, key: str):
        tolerance, metric, rate = _metric(key)
        return tolerance, metric(self.estimate, self.target, rate)


class Separation:
    """A mixture, its sources and their estimates, paired by the best mean SI-SDR."""

    def __init__(self, mix: Tensor, sources: list[Tensor], estimates: list[Tensor]) -> None:
        self.mix, self.sources, self.estimates = mix, sources, estimates
        order = best_permutation(estimates, sources)
        self.paired = [estimates[order.index(n)] for n in range(len(sources))]

    def score(self, key: str):
        if key == "si_sdr_zero_mean_est_x_ref":
            return "si_sdr", [[si_sdr(e, r) for r in self.sources] for e in self.estimates]
        if key == "best_si_sdr":
            return "si_sdr", np.mean(self._each(si_sdr))
        if key == "si_sdri":
            return "si_sdr", np.mean(self._gain(si_sdr))
        if key == "sdri":
            return "sdr", self._gain(sdr)
        tolerance, metric, rate = _metric(key)
        return tolerance, self._each(lambda e, r: metric(e, r, rate))

    def _each(self, score) -> list[float]:
        return [score(e, r) for e, r in zip(self.paired, self.sources, strict=True)]

    def _gain(self, score) -> np.ndarray:
        before = [score(self.mix, r) for r in self.sources]
        return np.subtract(self._each(score), before)
