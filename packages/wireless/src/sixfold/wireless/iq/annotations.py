"""From SigMF annotations to the bins that are occupied in blocks of a recording: labels."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from sixfold.core import UserError
from sixfold.wireless.iq.recordings import Capture, Recording

SLACK = 1e-6  # bins: edges that were written as decimal numbers are not exact
FIELDS = ("core:sample_start", "core:freq_lower_edge", "core:freq_upper_edge")


class Spans(NamedTuple):
    """Rectangles in time and frequency.

    Args:
        first: Absolute index of the first sample.
        end: Absolute index after the last sample.
        lower_hz: Lower edge.
        upper_hz: Upper edge.
    """

    first: Int[np.ndarray, " span"]
    end: Int[np.ndarray, " span"]
    lower_hz: Float[np.ndarray, " span"]
    upper_hz: Float[np.ndarray, " span"]


def spans_of(recording: Recording, annotations: Sequence[Mapping[str, Any]]) -> Spans:
    """Return the annotations that say both where they are and at which frequencies.

    One without frequency edges says nothing of bins and is left out; one without a number of
    samples lasts to the end of its capture.

    Raises:
        UserError: the edges are the wrong way round.
    """
    rows = []
    for number, entry in enumerate(annotations):
        if not entry.keys() >= set(FIELDS):
            continue
        values = [entry[name] for name in FIELDS]
        if "core:sample_count" in entry:
            values.append(entry["core:sample_count"])
        first, lower, upper = values[:3]
        if lower >= upper:
            raise UserError(
                f"{recording.data}: annotation {number} goes from {lower:g} to {upper:g} Hz; its "
                "lower edge should be below its upper one"
            )
        end = first + values[3] if len(values) == 4 else _end_of_capture(recording, first)
        rows.append((first, end, lower, upper))
    table = np.array(rows, np.float64).reshape(-1, 4).T  # exact up to 2^53 samples
    return Spans(table[0].astype(np.int64), table[1].astype(np.int64), table[2], table[3])


def _end_of_capture(recording: Recording, first: int | float) -> int:
    ends = [capture.first + capture.count for capture in recording.captures]
    return next((end for end in ends if end > first), ends[-1])


def block_masks(
    spans: Spans, recording: Recording, capture: Capture, firsts: Sequence[int], bins: int
) -> Bool[np.ndarray, "block bin"]:
    """Return the occupied bins of blocks: those of spans that last for half of the block or more.

    Args:
        spans: Occupied rectangles.
        recording: Recording of the blocks.
        capture: Capture of the blocks.
        firsts: Absolute index of the first sample of each block.
        bins: Number of samples of a block, and of its bins.
    """
    per_hz = bins / recording.sample_rate_hz
    zero = capture.center_hz - recording.sample_rate_hz / 2
    low = np.floor((spans.lower_hz - zero) * per_hz + SLACK).clip(0, bins).astype(int)
    end = np.ceil((spans.upper_hz - zero) * per_hz - SLACK).clip(0, bins).astype(int)
    masks = np.zeros((len(firsts), bins), bool)
    for mask, first in zip(masks, firsts, strict=True):
        lasting = np.minimum(spans.end, first + bins) - np.maximum(spans.first, first)
        for i in np.flatnonzero(2 * lasting >= bins):
            mask[low[i] : end[i]] = True
    return masks
