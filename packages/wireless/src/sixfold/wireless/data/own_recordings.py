"""One's own recordings: files whose annotations say which bins are occupied."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.training.sampling import derive_seed
from sixfold.wireless.data.fresh_scenes import folded_spectra
from sixfold.wireless.iq.annotations import Spans, block_masks, spans_of
from sixfold.wireless.iq.recordings import META, Capture, Recording, open_recording


@dataclass(frozen=True)
class Labelled:
    """An opened recording with its labels.

    Args:
        recording: Recording.
        spans: Occupied rectangles.
    """

    recording: Recording
    spans: Spans


@dataclass(frozen=True)
class Stretch:
    """Successive blocks of one capture.

    Args:
        source: Recording with its labels.
        capture: Capture.
        firsts: Absolute indices of the blocks' first samples.
    """

    source: Labelled
    capture: Capture
    firsts: range


def find_recordings(path: Path) -> list[Path]:
    """List the SigMF metadata files of a folder, or the one that is named.

    Raises:
        UserError: there is none.
    """
    if path.is_file():
        return [path]
    files = sorted(path.rglob(f"*{META}"))
    if not files:
        raise UserError(
            f"{path} holds no *{META} file; see the layouts in the README, and for .dat files with "
            ".json beside them name the set with --layout"
        )
    return files


def open_labelled(files: Sequence[Path]) -> list[Labelled]:
    """Open recordings with the labels in their metadata.

    Raises:
        UserError: one cannot be read, has no annotation with frequency edges, or another sample
            rate than the first.
    """
    found = []
    for file in files:
        recording = open_recording(file)
        spans = spans_of(recording, recording.metadata.get("annotations", []))
        if not len(spans.first):
            raise UserError(
                f"{file} has no annotation with core:freq_lower_edge and core:freq_upper_edge, "
                "which are the labels; add them, or leave the file out"
            )
        found.append(Labelled(recording, spans))
    rates = {one.recording.sample_rate_hz for one in found}
    if len(rates) > 1:
        raise UserError(
            f"{files[0].parent} has recordings of {min(rates):g} to {max(rates):g} samples/s, for "
            "which a bin means different widths; resample them to one rate"
        )
    return found


def stretches(sources: Sequence[Labelled], bins: int) -> list[Stretch]:
    """List the blocks of recordings, none over another.

    Raises:
        UserError: no capture is as long as a block.
    """
    found = []
    for source in sources:
        for capture in source.recording.captures:
            stop = capture.first + capture.count - bins + 1
            firsts = range(capture.first, stop, bins)
            if firsts:
                found.append(Stretch(source, capture, firsts))
    if not found:
        raise UserError(
            f"{sources[0].recording.data} has no stretch of {bins} samples at one frequency; use "
            "fewer bins (--set bins=1024) or longer recordings"
        )
    return found


def hold_out(
    sources: Sequence[Labelled], share: float, bins: int, seed: int
) -> tuple[list[Stretch], list[Stretch]]:
    """Split into training and validation: whole recordings, or where too few, each one's end.

    Successive blocks are alike, so blocks held out at random would be known from their neighbours.

    Args:
        sources: Recordings.
        share: Share to hold out.
        bins: Number of samples of a block.
        seed: Seed of which recordings are held out.

    Raises:
        UserError: there are too few blocks.
    """
    count = round(share * len(sources))
    if 0 < count < len(sources):
        generator = torch.Generator().manual_seed(derive_seed(seed, "valid"))
        order = torch.randperm(len(sources), generator=generator).tolist()
        parts = order[count:], order[:count]
        train, held = ([sources[i] for i in sorted(part)] for part in parts)
        return stretches(train, bins), stretches(held, bins)
    train, held = [], []
    for one in stretches(sources, bins):
        cut = len(one.firsts) - max(1, round(share * len(one.firsts)))
        train.append(Stretch(one.source, one.capture, one.firsts[:cut]))
        held.append(Stretch(one.source, one.capture, one.firsts[cut:]))
    train = [one for one in train if one.firsts]
    if not train:
        raise UserError(
            f"{sources[0].recording.data}: one block of {bins} samples is too little to hold some "
            "out; use longer recordings"
        )
    return train, held


class LabelledBlocks:
    """Blocks that are read when asked for, as a training set: memory does not grow with files.

    Args:
        parts: Stretches of recordings.
        bins: Number of samples of a block.
        channel: Number of the channel.
    """

    def __init__(self, parts: Sequence[Stretch], bins: int, channel: int = 0) -> None:
        self.parts, self.bins, self.channel = parts, bins, channel
        self.ends = np.cumsum([len(part.firsts) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def batch(self, indices: Any) -> dict[str, Tensor]:
        """Return folded spectra and masks; a block without power has a spectrum of zeros.

        Raises:
            UserError: a sample is NaN or infinite, or there is no such channel.
        """
        samples, masks = zip(*(self._read(int(index)) for index in indices), strict=True)
        blocks = torch.from_numpy(np.stack(samples))
        silent = blocks.abs().amax(1) == 0
        blocks[silent] = 1  # has a spectrum, which is taken away again
        spectrum = folded_spectra(blocks, self.bins)
        spectrum[silent] = 0
        return {"spectrum": spectrum, "mask": torch.from_numpy(np.stack(masks)).float()}

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        number = int(np.searchsorted(self.ends, index, side="right"))
        part = self.parts[number]
        first = part.firsts[index - int(self.ends[number])]  # counted from the end
        recording = part.source.recording
        samples = recording.read(part.capture, first, self.bins, self.channel)
        masks = block_masks(part.source.spans, recording, part.capture, [first], self.bins)
        return samples, masks[0]
