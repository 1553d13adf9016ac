"""From probabilities of bins to decisions and intervals, and how good they are.

An interval is a maximal run of occupied bins as (first, last), both inclusive. Its length is
last - first, one less than its number of bins, as in the evaluation of CMuSeNet.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.config import unknown_name_error
from sixfold.core.data.tensors import check_one_shape

RECALLED_AT = (0.5, 0.7, 0.9)
RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "or": lambda real, imag: real | imag,
    "and": lambda real, imag: real & imag,
    "real": lambda real, imag: real,
    "real_dilated": lambda real, imag: dilate(real),
}


def decide(
    probabilities: Float[Tensor, "batch 2 bin"], rule: str, threshold: float = 0.5
) -> Bool[Tensor, "batch bin"]:
    """Decide which bins are occupied.

    Args:
        probabilities: Probabilities from the real and from the imaginary part.
        rule: ``or``, ``and`` of both parts, ``real`` part alone, or ``real_dilated``: the real
            part, then one bin more on both sides.
        threshold: Probability above which a part speaks for a signal.

    Raises:
        UserError: there is no such rule.
    """
    if rule not in RULES:
        raise UserError(unknown_name_error("a decision", "rule", rule, RULES))
    real, imag = (probabilities > threshold).unbind(1)
    return RULES[rule](real, imag)


def dilate(occupied: Bool[Tensor, "batch bin"], distance: int = 1) -> Bool[Tensor, "batch bin"]:
    """Mark the bins up to ``distance`` away from an occupied one, too."""
    pooled = torch.nn.functional.max_pool1d(occupied.float(), 2 * distance + 1, 1, distance)
    return pooled > 0


def intervals(occupied: Shaped[np.ndarray, " bin"]) -> Int[np.ndarray, "interval 2"]:
    """Return the intervals of one mask, lowest first."""
    padded = np.concatenate([[0], np.asarray(occupied) != 0, [0]]).astype(np.int8)
    steps = np.diff(padded)
    return np.stack([np.flatnonzero(steps == 1), np.flatnonzero(steps == -1) - 1], 1)


def interval_iou(
    a: Int[np.ndarray, "first 2"], b: Int[np.ndarray, "second 2"]
) -> Float[np.ndarray, "first second"]:
    """Return intersection over hull of all pairs of intervals; 0 where the hull has no length."""
    start = np.maximum(a[:, None, 0], b[None, :, 0])
    end = np.minimum(a[:, None, 1], b[None, :, 1])
    hull = np.maximum(a[:, None, 1], b[None, :, 1]) - np.minimum(a[:, None, 0], b[None, :, 0])
    return np.maximum(0, end - start) / np.where(hull > 0, hull, 1)


def match_intervals(
    true: Int[np.ndarray, "first 2"], found: Int[np.ndarray, "second 2"]
) -> tuple[Int[np.ndarray, "2 pair"], Float[np.ndarray, " first"]]:
    """Pair true and found intervals one to one, so that the sum of their overlaps is largest.

    Returns:
        Indices of the pairs (true, found), and the overlap of each true interval: 0 where it has
        no partner.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import

    overlaps = interval_iou(true, found)
    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    matched = np.zeros(len(true))
    matched[rows] = overlaps[rows, columns]
    return np.stack([rows, columns]), matched


@dataclass(frozen=True)
class SegmentationScores:
    """How well occupied bins and intervals were found.

    Args:
        pixel_accuracy: Fraction of the bins that are decided rightly.
        mean_iou: Mean overlap of the true intervals with their partners; NaN if there are none.
        recall: Fraction of the true intervals whose overlap reaches 0.5, 0.7, 0.9.
    """

    pixel_accuracy: float
    mean_iou: float
    recall: dict[float, float]


def segmentation_scores(
    decided: Shaped[Tensor, "batch bin"],
    mask: Shaped[Tensor, "batch bin"],
    *,
    official: bool = False,
) -> SegmentationScores:
    """Score decisions against masks.

    Args:
        decided: Bins that are decided to be occupied.
        mask: Bins that are.
        official: Whether blocks without any found interval are left out of overlap and recall, as
            in the authors' evaluation; by default all their true intervals are misses.
    """
    tally = SegmentationTally(official)
    tally.add(decided, mask)
    return tally.scores()


class SegmentationTally:
    """`segmentation_scores` of more blocks than fit into memory, batch after batch."""

    def __init__(self, official: bool = False) -> None:
        self.official = official
        self.right = self.bins = 0
        self.overlaps: list[np.ndarray] = []

    def add(self, decided: Shaped[Tensor, "batch bin"], mask: Shaped[Tensor, "batch bin"]) -> None:
        """Count some blocks; the arguments are those of `segmentation_scores`."""
        found, true = (np.asarray((value != 0).cpu()) for value in (decided, mask))
        self.right += int((found == true).sum())
        self.bins += true.size
        for one, other in zip(true, found, strict=True):
            expected, given = intervals(one), intervals(other)
            if len(expected) and not (self.official and not len(given)):
                self.overlaps.append(match_intervals(expected, given)[1])

    def scores(self) -> SegmentationScores:
        """Return the scores of all blocks."""
        every = np.concatenate(self.overlaps) if self.overlaps else np.full(1, np.nan)
        recall = {
            at: float(np.where(np.isnan(every), np.nan, every >= at).mean()) for at in RECALLED_AT
        }
        return SegmentationScores(self.right / self.bins, float(every.mean()), recall)


def complex_plane_iou(
    occupied: Shaped[Tensor, "batch bin"],
    mask: Shaped[Tensor, "batch bin"],
    *,
    official_nan: bool = False,
) -> Float[Tensor, ""]:
    """Return the mean over blocks of intersection over union of bins, in float64.

    Args:
        occupied: Decisions by the rule ``or``.
        mask: Occupied bins.
        official_nan: Whether a block without any occupied bin in either gives NaN, as in the
            authors' code; by default it is right, 1.
    """
    check_one_shape("occupied and mask", occupied, mask)
    both = (occupied.bool() & mask.bool()).sum(1).double()
    union = (occupied.bool() | mask.bool()).sum(1).double()
    ratio = both / union
    return (ratio if official_nan else torch.where(union == 0, 1.0, ratio)).mean()
