"""Process a long recording in windows, and join them so that speakers do not swap.

A separator returns its speakers in no particular order, which may change from window to window. The
released code concatenates windows as they come, so voices swap at the seams. Here the outputs of a
window are ordered by their correlation with the previous window's in the overlap of the two, and
crossfaded there.
"""

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.speech.audio.network import check_eval_mode
from sixfold.speech.losses import pit

WINDOW_S, OVERLAP_S = 8.0, 2.0


def separate_windows(
    model: Callable[[Tensor], Tensor],
    mixture: Tensor,
    sample_rate: int,
    window_s: float,
    overlap_s: float = OVERLAP_S,
) -> Float[Tensor, "speaker time"]:
    """Separate a recording window by window, and join the windows of each speaker.

    Args:
        model: Separator that maps (1, ..., time) to (1, speaker, time), in any order of speakers.
        mixture: Recording shaped (..., time).
        sample_rate: Sample rate in Hz.
        window_s: Length of a window in seconds, more than twice the overlap.
        overlap_s: Length of the crossfade in seconds.

    Raises:
        UserError: the window is too short, or the model is a network in training mode.
    """
    check_eval_mode(model)
    blocks = process_windows(
        lambda window: model(window[None])[0],
        [mixture],
        mixture.shape[-1],
        sample_rate,
        window_s,
        overlap_s,
    )
    return torch.cat(list(blocks), 1)


def process_windows(
    process: Callable[[Tensor], Tensor],
    blocks: Iterable[Tensor],
    samples: int,
    sample_rate: int,
    window_s: float,
    overlap_s: float = OVERLAP_S,
    *,
    ordered: bool = False,
) -> Iterator[Float[Tensor, "output time"]]:
    """Process a stream in overlapping windows of equal length, and crossfade the results.

    Args:
        process: Function that maps a window (..., time) to (output, time).
        blocks: Consecutive blocks of the recording, shaped (..., time).
        samples: Length of the recording.
        sample_rate: Sample rate in Hz.
        window_s: Greatest length of a window in seconds, more than twice the overlap. A recording
            of at most this length is one window.
        overlap_s: Length of the crossfade in seconds.
        ordered: Whether the outputs of all windows are in one order; else they are brought to the
            order of the first.

    Yields:
        Results, as long as the recording in total.

    Raises:
        UserError: the window is too short, or not finite.
    """
    overlap = round(overlap_s * sample_rate)
    if not math.isfinite(window_s) or round(window_s * sample_rate) <= 2 * overlap:
        raise UserError(
            f"window_s is the seconds of a window, above {2 * overlap_s}; got {window_s}"
        )
    size = round(window_s * sample_rate)
    count = max(1, -(-(samples - overlap) // (size - overlap)))
    # Equal windows: the model would separate a short last one badly.
    step = max(1, -(-(samples - overlap) // count))
    tail = None
    for window in cut(blocks, step, overlap):
        with torch.no_grad():
            found = process(window)
        if tail is not None:
            found = crossfade(tail, found if ordered else reorder(tail, found))
        keep = max(0, found.shape[1] - overlap)
        yield found[:, :keep]
        tail = found[:, keep:]
    if tail is not None:
        yield tail


def cut(blocks: Iterable[Tensor], step: int, overlap: int) -> Iterator[Tensor]:
    """Cut a stream (..., time) every ``step`` samples into windows that overlap the next one."""
    held, first = None, True
    for block in blocks:
        held = block if held is None else torch.cat([held, block], -1)
        while held.shape[-1] >= step + overlap:
            yield held[..., : step + overlap]
            held, first = held[..., step:], False
    if held is not None and (first or held.shape[-1] > overlap):
        yield held


def reorder(
    tail: Float[Tensor, "speaker _overlap"], window: Float[Tensor, "speaker _time"]
) -> Float[Tensor, "speaker _time"]:
    """Put the speakers of a window in the order that they have in the tail of the one before."""
    head = window[:, : tail.shape[1]]
    _, order = pit(head[None], tail[None], correlation)
    return window[order[0]]


def crossfade(
    tail: Float[Tensor, "speaker _overlap"], window: Float[Tensor, "speaker _time"]
) -> Float[Tensor, "speaker _time"]:
    """Fade from the tail of the window before to the beginning of a window."""
    overlap = tail.shape[1]
    rise = (torch.arange(overlap).to(tail) + 1) / (overlap + 1)
    blend = rise * window[:, :overlap] + (1 - rise) * tail
    return torch.cat([blend, window[:, overlap:]], 1)


def correlation(
    a: Float[Tensor, "*#batch time"], b: Float[Tensor, "*#batch time"]
) -> Float[Tensor, "*_batch"]:
    """Compute the covariance along time: not divided by energies, so that loud parts count more."""
    a, b = (x - x.mean(-1, keepdim=True) for x in (a, b))
    return (a * b).sum(-1)
