"""Find signals in a recording of any length: block by block, merged to annotations."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.progress import progress
from sixfold.wireless.iq.occupancy import intervals, match_intervals
from sixfold.wireless.iq.recordings import Capture, Recording

BATCH = 16  # blocks at once: bounds the memory
SAME_SIGNAL = 0.5  # overlap of the intervals of two blocks that belong to one signal
EXTENSION = {"name": "sixfold", "version": "1.0.0", "optional": True}


class Verdict(NamedTuple):
    """What a detector says of some blocks.

    Args:
        occupied: Bins that are decided to be occupied.
        score: Certainty of each bin, from 0 to 1.
    """

    occupied: Bool[Tensor, "batch bin"]
    score: Float[Tensor, "batch bin"]


Detector = Callable[[Complex[Tensor, "batch time"]], Verdict]


class Block(NamedTuple):
    """One block of a recording and what was found in it.

    Args:
        first: Absolute index of its first sample.
        samples: Its samples.
        occupied: Decision for each bin.
        score: Certainty of each bin.
    """

    first: int
    samples: Complex[np.ndarray, " time"]
    occupied: Bool[np.ndarray, " bin"]
    score: Float[np.ndarray, " bin"]


@dataclass(eq=False)
class Track:
    """A signal that was found in successive blocks.

    Args:
        first: Absolute index of its first sample.
        end: Absolute index after its last one.
        span: First and last bin in the latest block.
        blocks: Number of blocks.
        spans: Sum of its spans.
        scores: Sum of its mean scores.
    """

    first: int
    end: int
    span: np.ndarray
    blocks: int = 0
    spans: np.ndarray = field(default_factory=lambda: np.zeros(2))
    scores: float = 0.0

    def add(self, span: np.ndarray, score: float, end: int) -> None:
        """Add a block; sums, not lists, or a long signal would fill the memory."""
        self.span, self.end, self.blocks = span, end, self.blocks + 1
        self.spans, self.scores = self.spans + span, self.scores + score


def block_starts(capture: Capture, bins: int, hop: int) -> range:
    """Return where the blocks of a capture begin; one that would end after it ends with it.

    A capture that is shorter than a block has none.
    """
    last = capture.first + capture.count - bins
    return range(capture.first, last + hop if last >= capture.first else capture.first, hop)


def scan(
    recording: Recording,
    detector: Detector,
    bins: int,
    hop: int,
    channel: int = 0,
    see: Callable[[Block], None] = lambda block: None,
) -> list[dict[str, Any]]:
    """Find the signals of a recording.

    Args:
        recording: The recording.
        detector: Function of complex blocks.
        bins: Number of samples of a block, and of its FFT bins.
        hop: Number of samples from one block to the next.
        channel: Number of the channel.
        see: Function that is shown every block, in order.

    Returns:
        Annotations: samples, absolute frequency edges, label and score.

    Raises:
        UserError: no capture is as long as a block, the recording has no power anywhere, or a
            sample cannot be read.
    """
    if hop < 1:
        raise UserError(f"a hop has 1 sample or more, got {hop}")
    starts = [block_starts(capture, bins, hop) for capture in recording.captures]
    total = sum(map(len, starts))
    if total == 0:
        longest = max(capture.count for capture in recording.captures)
        raise UserError(
            f"{recording.data} has no stretch of {bins} samples at one frequency (longest: "
            f"{longest}); use a smaller --fft or a longer recording"
        )
    annotations, power = [], 0.0
    with torch.no_grad(), progress(recording.data.name, total) as advance:
        for capture, firsts in zip(recording.captures, starts, strict=True):
            tracks = _Tracks(bins)
            for block in _blocks(recording, capture, firsts, detector, bins, channel):
                power = max(power, float(np.abs(block.samples).max()))
                tracks.add(block)
                see(block)
                advance(1)
            found = tracks.close()
            annotations += [_annotation(one, capture, recording, bins) for one in found]
    if power == 0:
        raise UserError(f"{recording.data}: channel {channel} holds zeros alone")
    return sorted(annotations, key=lambda one: one["core:sample_start"])


def _blocks(
    recording: Recording,
    capture: Capture,
    firsts: range,
    detector: Detector,
    bins: int,
    channel: int,
) -> Iterator[Block]:
    """Yield the blocks of a capture; in those without power nothing is found."""
    for at in range(0, len(firsts), BATCH):
        last = capture.first + capture.count - bins
        some = [min(first, last) for first in firsts[at : at + BATCH]]
        blocks = np.stack([recording.read(capture, first, bins, channel) for first in some])
        occupied, score = np.zeros(blocks.shape, bool), np.zeros(blocks.shape, np.float32)
        loud = np.abs(blocks).max(1) > 0
        if loud.any():
            verdict = detector(torch.from_numpy(blocks[loud]))
            occupied[loud] = verdict.occupied.cpu().numpy()
            score[loud] = verdict.score.cpu().numpy()
        yield from map(Block, some, blocks, occupied, score)


class _Tracks:
    """Join the intervals of successive blocks."""

    def __init__(self, bins: int) -> None:
        self.bins = bins
        self.open: list[Track] = []
        self.closed: list[Track] = []

    def add(self, block: Block) -> None:
        spans = intervals(block.occupied)
        end = block.first + self.bins
        last = np.array([track.span for track in self.open], int).reshape(-1, 2)
        # `match_intervals` counts from the first to the last bin; one bin has no length there.
        ends = np.array([0, 1])
        (known, seen), overlaps = match_intervals(last + ends, spans + ends)
        partner = {j: self.open[i] for i, j in zip(known, seen, strict=True)
                   if overlaps[i] >= SAME_SIGNAL}  # fmt: skip
        tracks = [partner.get(j) or Track(block.first, end, span) for j, span in enumerate(spans)]
        for track, span in zip(tracks, spans, strict=True):
            track.add(span, float(block.score[span[0] : span[1] + 1].mean()), end)
        self.closed += [track for track in self.open if track not in tracks]
        self.open = tracks

    def close(self) -> list[Track]:
        return self.closed + self.open


def _annotation(track: Track, capture: Capture, recording: Recording, bins: int) -> dict[str, Any]:
    per_bin = recording.sample_rate_hz / bins
    low, high = track.spans / track.blocks
    zero = capture.center_hz - recording.sample_rate_hz / 2
    return {
        "core:sample_start": track.first,
        "core:sample_count": track.end - track.first,
        "core:freq_lower_edge": zero + float(low) * per_bin,
        "core:freq_upper_edge": zero + float(high + 1) * per_bin,
        "core:label": "signal",
        "sixfold:score": round(track.scores / track.blocks, 4),
    }


def annotated(recording: Recording, annotations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the metadata of a recording with further annotations; all that was there stays."""
    facts = dict(recording.metadata["global"])
    facts["core:dataset"] = recording.data.name
    extensions = list(facts.get("core:extensions", []))
    if not any(one.get("name") == EXTENSION["name"] for one in extensions):
        extensions.append(EXTENSION)
    facts["core:extensions"] = extensions
    before = recording.metadata.get("annotations", [])
    return {**recording.metadata, "global": facts, "annotations": [*before, *annotations]}
