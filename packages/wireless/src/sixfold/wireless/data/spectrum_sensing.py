"""CMuSeNet's published recordings: a .dat file of samples beside a .json file of labels.

IEEE DataPort, doi 10.21227/hcc1-6p22 (synthetic and indoor over-the-air sets); BIG-RED is the
authors' third set, in the same layout. None can be fetched without an account, so each is read
where it lies.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Complex
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.config import unknown_name_error
from sixfold.wireless.iq.spectrum import Band


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
        UserError: a file is missing or damaged, or holds too few samples.
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
    numbers = np.fromfile(path, chosen.component)
    samples = numbers.astype(np.float64).view(np.complex128)[chosen.skipped :][:bins]
    if len(samples) < bins and layout != "bigred":
        raise UserError(f"{path} holds {len(samples)} samples, {bins} are needed")
    padded = np.pad(samples, (0, bins - len(samples)))
    return torch.from_numpy(padded), _bands(labels, chosen.widened_hz)


def _bands(path: Path, widened_hz: float) -> list[Band]:
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return [Band(float(one["fc"]), float(one["bw"]) + widened_hz) for one in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} should hold a JSON list of objects with fc and bw, in Hz ({error!r})"
        ) from None


def published_split(number: int, count: int) -> Literal["train", "valid", "test"]:
    """Return the split of a recording by its number, from 1, among those of one SNR."""
    if number <= 0.8 * count:
        return "train"
    return "valid" if number <= 0.9 * count else "test"
