"""Scores of results: ``sixfold score wireless true.sigmf-meta found.sigmf-meta``."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sixfold.core import UserError
from sixfold.wireless.data.own_channels import read_channels
from sixfold.wireless.iq.annotations import block_masks, spans_of
from sixfold.wireless.iq.detections import EXTENSION
from sixfold.wireless.iq.occupancy import SegmentationTally
from sixfold.wireless.iq.recordings import META, open_recording, read_metadata

BLOCKS = 64  # blocks that are scored at once: bounds the memory


def score(reference: Path, estimate: Path, *, fft: int = 1024) -> dict[str, float]:
    """Score detections against annotations (.sigmf-meta), or channel estimates (.npz, .mat).

    Detections are scored block by block: the fraction of bins that are right, the mean overlap of
    the true intervals (IoU), and how many of them overlap by 0.5, 0.7, 0.9; a true interval that
    is not found counts as 0. Channel estimates have an NMSE in dB, over all channels.

    Args:
        reference: Recording with true annotations (.sigmf-meta), true channels, or a folder.
        estimate: Metadata with found annotations; where sixfold found them, others there are not
            scored. Or channels, as `sixfold run wireless/adafortitran` writes them; or a folder
            with the same names.
        fft: Number of samples and bins of a block.

    Returns:
        The scores.

    Raises:
        UserError: a file cannot be read, there is nothing to score, or sizes differ.
    """
    pairs = _pairs(Path(reference), Path(estimate))
    detections = pairs[0][0].suffix == META
    found = score_detections(pairs, fft) if detections else score_channels(pairs)
    for name, value in found.items():
        print(f"{name} {value:.6g}")
    return found


def _pairs(reference: Path, estimate: Path) -> list[tuple[Path, Path]]:
    """Pair two files, or those of two folders by their names without endings."""
    if reference.is_file():
        return [(reference, estimate)]
    true, made = (_files(folder) for folder in (reference, estimate))
    alone = [f"{reference / name}" for name in sorted(true.keys() - made.keys())]
    alone += [f"{estimate / name}" for name in sorted(made.keys() - true.keys())]
    if alone:
        raise UserError(f"no partner of that name for {', '.join(alone[:5])}")
    return [(file, made[name]) for name, file in true.items()]


def _files(folder: Path) -> dict[str, Path]:
    found = [file for file in sorted(folder.rglob("*")) if file.suffix in (META, ".npz", ".mat")]
    if not found:
        raise UserError(f"{folder} is no file, and no folder that holds .sigmf-meta, .npz or .mat")
    named: dict[str, Path] = {}
    for file in found:
        name = file.relative_to(folder).with_suffix("").as_posix()
        if name in named:
            raise UserError(f"{named[name]} and {file} differ in their ending only; remove one")
        named[name] = file
    return named


def score_detections(pairs: Sequence[tuple[Path, Path]], bins: int = 1024) -> dict[str, float]:
    """Score found annotations against true ones, in blocks of one bin a sample.

    Raises:
        UserError: a file cannot be read, there are no true annotations with frequency edges, or no
            stretch is as long as a block.
    """
    if bins < 4:
        raise UserError(f"a block has 4 bins or more, got --fft {bins}")
    tally = SegmentationTally()
    for reference, estimate in pairs:
        _tally(tally, reference, estimate, bins)
    if not tally.bins:
        raise UserError(f"{pairs[0][0]} has no stretch of {bins} samples; use a smaller --fft")
    if not tally.overlaps:
        raise UserError(
            f"no annotation of {pairs[0][0]} fills half of a block within its band: there is "
            "nothing to score; are its samples and frequencies right?"
        )
    scores = tally.scores()
    recall = {f"recall_{at}": value for at, value in scores.recall.items()}
    return {"pixel_accuracy": scores.pixel_accuracy, "mean_iou": scores.mean_iou, **recall}


def _tally(tally: SegmentationTally, reference: Path, estimate: Path, bins: int) -> None:
    recording = open_recording(reference)
    known = [one for one in recording.metadata["annotations"] if "sixfold:score" not in one]
    true = spans_of(recording, known)
    if not len(true.first):
        raise UserError(
            f"{reference} has no annotation with frequency edges to score against; give the "
            "recording with its true annotations first, then the detections"
        )
    made = spans_of(recording, _found(read_metadata(estimate)))
    for capture in recording.captures:
        firsts = range(capture.first, capture.first + capture.count - bins + 1, bins)
        for start in range(0, len(firsts), BLOCKS):
            some = firsts[start : start + BLOCKS]
            decided, mask = (
                torch.from_numpy(block_masks(spans, recording, capture, some, bins))
                for spans in (made, true)
            )
            tally.add(decided, mask)


def _found(metadata: dict) -> list[dict]:
    """Return what was detected; `sixfold run` leaves annotations that were there before."""
    annotations = metadata["annotations"]
    extensions = metadata["global"].get("core:extensions", [])
    if any(one.get("name") == EXTENSION["name"] for one in extensions):
        return [one for one in annotations if "sixfold:score" in one]
    return annotations


def score_channels(pairs: Sequence[tuple[Path, Path]]) -> dict[str, float]:
    """Return the squared error of channel estimates over the channels' power, in dB.

    Raises:
        UserError: a file cannot be read, or the shapes differ.
    """
    error = power = 0.0
    for reference, estimate in pairs:
        true, made = (read_channels(path).channels.numpy() for path in (reference, estimate))
        if true.shape != made.shape:
            raise UserError(
                f"{reference} has channels {true.shape}, {estimate} {made.shape} (sample, "
                "subcarrier, symbol); score the estimates of these channels"
            )
        # In double precision: the squared power of a weak channel leaves the range of floats.
        error += np.square(np.abs((made - true).astype(complex))).sum()
        power += np.square(np.abs(true.astype(complex))).sum()
    with np.errstate(divide="ignore"):
        return {"nmse_db": float(10 * np.log10(error / power))}
