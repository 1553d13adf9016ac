"""Metrics of separated and enhanced speech, by their published definitions.

Every metric takes one item, shaped (time,), as a tensor or an array, and computes in float64
without an epsilon. Input without a defined score raises a UserError: unequal lengths, NaN, silence,
an unsupported sample rate.

SI-SDR: Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019. SDR: BSS Eval version 3
(Vincent et al., 2006). PESQ: ITU-T P.862 (nb), P.862.2 (wb). STOI: Taal et al., 2011; ESTOI: Jensen
and Taal, 2016. DNSMOS: Reddy et al., ICASSP 2022 (P.835) and 2021 (P.808).
"""

import itertools
import math
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor

from sixfold.core.config import UserError, unknown_name_error
from sixfold.core.data.tensors import as_tensor
from sixfold.speech.audio.arrays import LOUDEST, whole_rate

# Without shapes, because the errors of `validate` explain more than those of a type checker.
Signal = Tensor | np.ndarray

# The ITU's program overruns its memory beyond 50 utterances. One takes 0.2 s, and the pause to the
# next one as long, so this is safe for any signal.
PESQ_SECONDS = 20


def averages(
    scores: Mapping[str, Callable[[Tensor, Tensor], float]],
    estimates: Sequence[Tensor],
    references: Sequence[Tensor],
) -> dict[str, float | None]:
    """Average each metric over items; one that is not installed is None, with a printed reason.

    Raises:
        UserError: there are no items, or not as many of both; or a metric raises for one.
    """
    if len(estimates) != len(references) or not len(references):
        raise UserError(
            f"{len(estimates)} estimates cannot be scored by {len(references)} references"
        )
    found: dict[str, float | None] = {}
    for name, metric in scores.items():
        try:
            values = [metric(e, r) for e, r in zip(estimates, references, strict=True)]
            found[name] = sum(values) / len(values)
        except UserError as error:
            if "pip install" not in str(error):
                raise
            print(f"{name}: not measured: {error}")
            found[name] = None
    return found


def validate(estimate: Signal, reference: Signal) -> tuple[np.ndarray, np.ndarray]:
    """Convert both signals to float64, and raise if they cannot be compared.

    Raises:
        UserError: the signals are not both shaped (time,) with one length, hold NaN or infinity, or
            one of them is silent (constant).
    """
    signals = {"estimate": _float64(estimate), "reference": _float64(reference)}
    shapes = [signal.shape for signal in signals.values()]
    if shapes[0] != shapes[1] or len(shapes[0]) != 1:
        raise UserError(
            f"metrics compare two signals shaped (time,) of one length, got estimate {shapes[0]} "
            f"and reference {shapes[1]}; cut or pad one, and pass one item and channel at a time"
        )
    for name, signal in signals.items():
        _check_usable(name, signal)
    return signals["estimate"], signals["reference"]


def si_sdr(estimate: Signal, reference: Signal, *, zero_mean: bool = True) -> float:
    """Compute the scale-invariant signal-to-distortion ratio (SI-SDR), in decibels.

    With both means removed, t = (<e,r>/<r,r>) r and the score is 10 log10(|t|²/|e-t|²). Infinite
    for a scaled copy of the reference.

    Args:
        estimate: Output of the system.
        reference: Clean speech, aligned to the estimate.
        zero_mean: Whether to remove the means first; some published scores keep them.
    """
    e, r = validate(estimate, reference)
    if zero_mean:
        e, r = e - e.mean(), r - r.mean()
    target = (e @ r) / (r @ r) * r
    with np.errstate(divide="ignore"):  # an exact copy scores infinity, an orthogonal one minus it
        return float(10 * np.log10(np.float64(_energy(target)) / _energy(e - target)))


def sdr(estimate: Signal, reference: Signal) -> float:
    """Compute BSS Eval 3's signal-to-distortion ratio (SDR), in decibels.

    The projection on the reference, filtered by any 512 taps, counts as target, the rest as
    distortion. Infinite where nothing is left, as for a copy.
    """
    import fast_bss_eval

    e, r = validate(estimate, reference)
    with np.errstate(divide="ignore"):
        loss = fast_bss_eval.sdr_loss(e[None], r[None], filter_length=512, pairwise=True)
    return -float(np.asarray(loss).item())


def best_permutation(
    estimates: Sequence[Signal],
    references: Sequence[Signal],
    score: Callable[[Signal, Signal], float] = si_sdr,
) -> tuple[int, ...]:
    """Find the assignment of estimates to references with the highest mean score.

    Returns:
        For each estimate, the index of its reference.

    Raises:
        UserError: the numbers of estimates and references differ, or ``score`` raises for a pair.
    """
    count = len(references)
    if len(estimates) != count or count == 0:
        raise UserError(f"{len(estimates)} estimates cannot be assigned to {count} references")
    table = np.array([[score(e, r) for r in references] for e in estimates])
    orders = itertools.permutations(range(count))
    return max(orders, key=lambda order: table[range(count), order].sum())


def pesq(
    estimate: Signal, reference: Signal, sample_rate: int, band: Literal["wb", "nb"] = "wb"
) -> float:
    """Compute PESQ, a predicted mean opinion score (about 1 to 4.64), with the ITU's program.

    A signal of more than `PESQ_SECONDS` is scored in equal parts, and the score is the mean of the
    parts that hold speech.

    Args:
        estimate: Output of the system.
        reference: Clean speech, aligned to the estimate.
        sample_rate: Sample rate in Hz: 16000, or 8000 for the narrow band.
        band: Frequency band: "wb" of P.862.2 (50 to 7000 Hz) or "nb" of P.862 (telephone).
    """
    rates = {"wb": (16000,), "nb": (8000, 16000)}
    if band not in rates:
        raise UserError(unknown_name_error("PESQ", "band", band, rates))
    sample_rate = _check_rate(f"PESQ {band}", sample_rate, rates[band])
    try:
        import pesq as itu
    except ImportError:
        raise UserError(
            "PESQ needs the package pesq, which compiles C: pip install 'sixfold-speech[pesq]'"
        ) from None
    e, r = validate(estimate, reference)
    count, scores, reason = math.ceil(len(r) / (PESQ_SECONDS * sample_rate)), [], ""
    for e_part, r_part in zip(np.array_split(e, count), np.array_split(r, count), strict=True):
        try:
            scores.append(float(itu.pesq(sample_rate, r_part, e_part, band)))
        except (itu.NoUtterancesError, itu.BufferTooShortError) as error:
            reason = _text(error)
        except ValueError:  # it divides by the estimate's level
            raise UserError(
                "PESQ has no score: the estimate is silent for seconds in which the reference is "
                "not; leave such items out and say how many"
            ) from None
    if not scores:
        raise UserError(
            f"PESQ cannot score {len(r)} samples at {sample_rate} Hz: {reason}; "
            "give it at least a quarter of a second that holds speech"
        )
    return statistics.fmean(scores)


def stoi(estimate: Signal, reference: Signal, sample_rate: int, *, extended: bool = False) -> float:
    """Compute STOI, the short-time objective intelligibility (about 0 to 1).

    Args:
        estimate: Output of the system.
        reference: Clean speech, aligned to the estimate.
        sample_rate: Sample rate in Hz, at least 8000; both signals are resampled to 10 kHz.
        extended: Whether to compute ESTOI, which also holds for modulated maskers.
    """
    import pystoi

    if (sample_rate := whole_rate(sample_rate)) < 8000:
        raise UserError(f"STOI judges bands up to 4.3 kHz: {sample_rate} Hz is below its 8000 Hz")
    e, r = validate(estimate, reference)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(pystoi.stoi(r, e, sample_rate, extended=extended))
        except (RuntimeWarning, ValueError) as error:
            raise UserError(
                f"STOI cannot score {len(r)} samples at {sample_rate} Hz: {error}; "
                "give it at least 0.4 seconds that hold speech"
            ) from None


def estoi(estimate: Signal, reference: Signal, sample_rate: int) -> float:
    """Compute ESTOI, the extended form of `stoi` for modulated maskers."""
    return stoi(estimate, reference, sample_rate, extended=True)


def dnsmos(estimate: Signal, sample_rate: int) -> dict[str, float]:
    """Compute DNSMOS: opinion scores (1 to 5) without a reference, by Microsoft's networks.

    Returns:
        ``sig`` (speech), ``bak`` (background) and ``ovrl`` (overall) of P.835, and ``p808``.

    Raises:
        UserError: the extra is not installed, the rate is not 16 kHz, or samples exceed ±1.
    """
    sample_rate = _check_rate("DNSMOS", sample_rate, (16000,))
    try:
        from speechmos import dnsmos as networks
    except ImportError as error:
        raise UserError(
            f"DNSMOS needs {error.name}: pip install 'sixfold-speech[dnsmos]'"
        ) from None
    signal = _float64(estimate)
    if signal.ndim != 1:
        raise UserError(f"DNSMOS scores one signal shaped (time,), got {signal.shape}")
    _check_usable("estimate", signal)
    if (peak := np.abs(signal).max()) > 1:
        raise UserError(f"DNSMOS takes samples within ±1, got a peak of {peak:.3g}; scale it down")
    scores: Any = networks.run(signal, sr=sample_rate)
    return {name: float(scores[f"{name}_mos"]) for name in ("sig", "bak", "ovrl", "p808")}


def _float64(signal: Signal) -> np.ndarray:
    values = as_tensor(signal, "a signal")
    if values.is_complex():
        raise UserError("a signal holds complex numbers; give samples")
    return values.detach().cpu().double().numpy()


def _check_usable(name: str, signal: np.ndarray) -> None:
    if signal.size == 0:
        raise UserError(f"the {name} has no samples")
    if bad := int(np.count_nonzero(~np.isfinite(signal))):
        raise UserError(f"the {name} holds {bad} samples of {signal.size} that are NaN or infinite")
    if (peak := np.abs(signal).max()) > LOUDEST:
        raise UserError(f"the {name} has a peak of {peak:.3g}, and full scale is ±1; scale it down")
    if signal.min() == signal.max():
        raise UserError(
            f"the {name} is silent (all {signal.size} samples are {signal[0]:g}): it has no score; "
            "leave such items out and say how many"
        )


def _check_rate(metric: str, sample_rate: int, allowed: Sequence[int]) -> int:
    if (rate := whole_rate(sample_rate)) not in allowed:
        rates = " or ".join(map(str, allowed))
        raise UserError(
            f"{metric} is defined at {rates} Hz, got {rate} Hz; resample both signals first"
        )
    return rate


def _energy(signal: np.ndarray) -> float:
    return float(signal @ signal)


def _text(error: Exception) -> str:
    reason = error.args[0] if error.args else error
    return reason.decode() if isinstance(reason, bytes) else str(reason)
