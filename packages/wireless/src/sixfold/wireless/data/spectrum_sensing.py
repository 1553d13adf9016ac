"""CMuSeNet's published recordings: a .dat file of samples beside a .json file of labels.

IEEE DataPort, doi 10.21227/hcc1-6p22 (synthetic and indoor over-the-air sets); BIG-RED is the
authors' third set, in the same layout. None can be fetched without an account, so each is read
where it lies.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.config import unknown_name_error
from sixfold.core.training.sampling import derive_seed
from sixfold.wireless.data.fresh_scenes import folded_spectra
from sixfold.wireless.iq.spectrum import Band, occupied_mask

SAMPLE_RATE_HZ = 20e6


@dataclass(frozen=True)
class Layout:
    """How one of the sets is stored.

    Args:
        component: Type of one component of a sample.
        skipped: Number of samples to leave out at the start.
        widened_hz: Width to add to each label.
    """

    component: str
    skipped: int = 0
    widened_hz: float = 0.0


LAYOUTS = {
    "synthetic": Layout("<f8"),
    "indoor": Layout("<f8", widened_hz=20e3),
    "bigred": Layout("<f4", skipped=10),
}


def read_published(
    path: Path, layout: str, bins: int = 16384
) -> tuple[Complex[Tensor, " time"], list[Band]]:
    """Read the samples that count and the labels of one recording.

    Args:
        path: Path of the .dat file.
        layout: Set that it belongs to: synthetic, indoor or bigred.
        bins: Number of samples to return; a shorter BIG-RED recording is filled with zeros.

    Raises:
        UserError: a file is missing or damaged, holds too few samples or one that is NaN or
            infinite, or the labels are no list of signals.
    """
    if layout not in LAYOUTS:
        raise UserError(unknown_name_error("spectrum sensing", "layout", layout, LAYOUTS))
    chosen, labels = LAYOUTS[layout], path.with_suffix(".json")
    for file in (path, labels):
        if not file.is_file():
            raise UserError(f"there is no {file}; a recording is a .dat and a .json of one name")
    size, whole = path.stat().st_size, 2 * np.dtype(chosen.component).itemsize
    if size % whole:
        raise UserError(
            f"{path} holds {size} bytes, which is no multiple of a sample's {whole}: it is cut "
            f"short, or not of the layout {layout!r}"
        )
    start = chosen.skipped * whole
    numbers = np.fromfile(path, chosen.component, count=2 * bins, offset=min(start, size))
    samples = numbers.astype(np.float64).view(np.complex128)
    if len(samples) < bins and layout != "bigred":
        raise UserError(f"{path} holds {len(samples)} samples, {bins} are needed")
    if not (good := np.isfinite(samples)).all():
        number = chosen.skipped + int(np.argmin(good))
        raise UserError(f"{path}: sample {number} is NaN or infinite; leave the recording out")
    padded = np.pad(samples, (0, bins - len(samples)))
    return torch.from_numpy(padded), _bands(labels, chosen.widened_hz)


class PublishedBlocks:
    """The block that counts of each recording, read when asked for, as a training set.

    Args:
        files: The .dat files.
        layout: Set that they belong to: synthetic, indoor or bigred.
        bins: Number of samples of a block.
    """

    def __init__(self, files: Sequence[Path], layout: str, bins: int) -> None:
        self.files, self.layout, self.bins = files, layout, bins

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, indices: Any) -> dict[str, Tensor]:
        """Return folded spectra and masks.

        Raises:
            UserError: as `read_published`.
        """
        read = [read_published(self.files[int(i)], self.layout, self.bins) for i in indices]
        masks = [occupied_mask(bands, self.bins, SAMPLE_RATE_HZ) for _, bands in read]
        samples = torch.stack([one for one, _ in read])
        return {"spectrum": folded_spectra(samples, self.bins), "mask": torch.stack(masks)}


def find_published(path: Path) -> list[Path]:
    """List the .dat files of a folder that have a .json of the same name beside them.

    Raises:
        UserError: there is none.
    """
    files = sorted(file for file in path.rglob("*.dat") if file.with_suffix(".json").is_file())
    if not files:
        raise UserError(f"{path} holds no .dat file with a .json of the same name beside it")
    return files


def open_published(
    path: Path, valid: Path | float, layout: str, bins: int, seed: int
) -> tuple[PublishedBlocks, PublishedBlocks]:
    """Open a folder of recordings for training and validation.

    Args:
        path: Folder.
        valid: Folder of the validation, or the share of recordings to hold out.
        layout: Set that they belong to: synthetic, indoor or bigred.
        bins: Number of samples of a block.
        seed: Seed of which recordings are held out.

    Raises:
        UserError: there are no recordings, or too few to hold some out.
    """
    files = find_published(path)
    if isinstance(valid, Path):
        parts = files, find_published(valid)
    else:
        held = round(valid * len(files))
        if not 0 < held < len(files):
            raise UserError(
                f"{path} has {len(files)} recordings, too few to hold {valid} of them out; add "
                "more, or name a folder with --valid"
            )
        generator = torch.Generator().manual_seed(derive_seed(seed, "valid"))
        order = torch.randperm(len(files), generator=generator).tolist()
        parts = [[files[i] for i in sorted(part)] for part in (order[held:], order[:held])]
    train, held_out = (PublishedBlocks(part, layout, bins) for part in parts)
    return train, held_out


def _bands(path: Path, widened_hz: float) -> list[Band]:
    """Read the labels of a recording.

    Raises:
        UserError: they are no list of signals with a centre and a width.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(entries, list):
            raise TypeError(f"it is a {type(entries).__name__}")
        found = [(float(one["fc"]), float(one["bw"])) for one in entries]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} should hold a JSON list of objects with fc and bw, in Hz ({error!r})"
        ) from None
    for number, (center, width) in enumerate(found):
        if not (math.isfinite(center) and 0 < width < math.inf):
            raise UserError(
                f"{path}: signal {number} has fc {center} and bw {width}; both are finite numbers "
                "of Hz, and bw is above 0"
            )
    return [Band(center, width + widened_hz) for center, width in found]
