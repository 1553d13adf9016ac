"""Process a long recording in windows, and join them so that speakers do not swap.

A separator returns its speakers in no particular order, which may change from window to window. The
released code concatenates windows as they come, so voices swap at the seams. Here the outputs of a
window are ordered by their correlation with the previous window's in the overlap of the two, and
crossfaded there.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.speech.audio.network import check_eval_mode
from sixfold.speech.losses import pit

WINDOW_S, OVERLAP_S = 8.0, 2.0


@torch.no_grad()
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
    overlap = round(overlap_s * sample_rate)
    size, samples = round(window_s * sample_rate), mixture.shape[-1]
    if size <= 2 * overlap:
        raise UserError(
            f"window_s is the seconds of a window, above {2 * overlap_s}; got {window_s}"
        )
    count = max(1, -(-(samples - overlap) // (size - overlap)))
    # Equal windows: the model would separate a short last one badly.
    step = max(1, -(-(samples - overlap) // count))
    joined = None
    for first in range(0, count * step, step):
        window = model(mixture[None, ..., first : first + step + overlap])[0]
        joined = window if joined is None else join(joined, window, min(overlap, len(window[0])))
    assert joined is not None
    return joined


def join(
    before: Float[Tensor, "speaker _time"], window: Float[Tensor, "speaker _more"], overlap: int
) -> Float[Tensor, "speaker _whole"]:
    """Append a window that overlaps the last ``overlap`` samples, with its speakers reordered."""
    tail, head = before[:, -overlap:], window[:, :overlap]
    _, order = pit(head[None], tail[None], correlation)
    window = window[order[0]]
    rise = (torch.arange(overlap).to(tail) + 1) / (overlap + 1)
    blend = rise * window[:, :overlap] + (1 - rise) * tail
    return torch.cat([before[:, :-overlap], blend, window[:, overlap:]], 1)


def correlation(
    a: Float[Tensor, "*#batch time"], b: Float[Tensor, "*#batch time"]
) -> Float[Tensor, "*_batch"]:
    """Compute the covariance along time: not divided by energies, so that loud parts count more."""
    a, b = (x - x.mean(-1, keepdim=True) for x in (a, b))
    return (a * b).sum(-1)
