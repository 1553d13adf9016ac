"""One's own channels: a folder of .mat files as the official generator writes, or one .npz file.

A .mat file holds ``H`` (subcarrier, symbol, 2): the channel, and least-squares estimates that are 0
off the pilots; its name says the conditions, e.g. ``7_SNR-10_DS-100_DOP-200_N-3_TDL-A.mat``. An
.npz holds ``H`` (sample, subcarrier, symbol), and any of ``pilots`` (sample, subcarrier, symbol of
the pilots alone) or ``ls`` (the size of H), ``snr_db``, ``delay_spread_s``, ``max_doppler_hz``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sixfold.core import UserError
from sixfold.wireless.data.array_files import read_mat, read_npz
from sixfold.wireless.iq.ofdm import Pilots

NAME = re.compile(r"\d+_SNR-(-?\d+\.?\d*)_DS-(\d+\.?\d*)_DOP-(\d+\.?\d*)_N-\d+_TDL-\w\.mat")
CONDITIONS: tuple[str, ...] = ("snr_db", "delay_spread_s", "max_doppler_hz")
FIELDS = ("H", "pilots", "ls", *CONDITIONS)


@dataclass(frozen=True)
class Channels:
    """Channels with what a receiver saw of them.

    Args:
        channels: True channels.
        estimates: Least-squares estimates at the pilots, if they are there.
        pilots: Places of the pilots, if they are known.
        conditions: SNR in dB, delay spread in seconds and Doppler in Hz by name, as far as known.
        files: Files read.
    """

    channels: Complex[Tensor, "sample subcarrier symbol"]
    estimates: Complex[Tensor, "sample pilot_subcarrier pilot_symbol"] | None
    pilots: Pilots | None
    conditions: Mapping[str, Float[Tensor, " sample"]]
    files: list[Path]


class Received(NamedTuple):
    """What a receiver saw; see `Channels`."""

    estimates: Complex[Tensor, "sample pilot_subcarrier pilot_symbol"]
    pilots: Pilots | None
    conditions: Mapping[str, Float[Tensor, " sample"]]


def read_channels(path: Path) -> Channels:
    """Read a folder of .mat files, one of them, or an .npz file.

    Raises:
        UserError: there is nothing to read, a name or shape is not as above, or a number is not
            finite; the message names the file.
    """
    if path.is_dir():
        files = sorted(path.glob("*.mat"))
        if not files:
            raise UserError(f"the folder {path} holds no .mat file; see the layouts in the README")
        return _from_mat(files)
    if not path.is_file():
        raise UserError(f"there is no {path}; give a folder of .mat files or an .npz file")
    if path.suffix == ".mat":
        return _from_mat([path])
    if path.suffix != ".npz":
        raise UserError(f"{path} is no .npz file; give one, or a folder of .mat files")
    return _from_npz(path)


def read_received(file: Path) -> Received:
    """Read what a receiver saw, from a .mat or an .npz file; an .npz needs no ``H`` here.

    Raises:
        UserError: as `read_channels`, or the file has neither ``pilots`` nor ``ls``.
    """
    if file.suffix == ".mat":
        both = _from_mat([file])
        estimates, pilots, conditions = both.estimates, both.pilots, both.conditions
    else:
        found = read_npz(file, FIELDS)
        estimates, pilots = _observed(found, file)
        conditions = {} if estimates is None else _conditions(found, len(estimates), file)
    if estimates is None:
        raise UserError(f"{file} has neither pilots nor ls; add one of them")
    return Received(estimates, pilots, conditions)


def _from_mat(files: list[Path]) -> Channels:
    grids, conditions = [], []
    for file in files:
        match = NAME.fullmatch(file.name)
        if match is None:
            raise UserError(
                f"{file} does not say its conditions; name it like "
                "7_SNR-10_DS-100_DOP-200_N-3_TDL-A.mat"
            )
        grid = _complex(_read_grid(file), 3, f"{file}: H")
        if grid.shape[2] < 2 or (grids and grid.shape != grids[0].shape):
            first = tuple(grids[0].shape) if grids else ("subcarriers", "symbols", 2)
            raise UserError(f"{file}: H has shape {tuple(grid.shape)}, which should be {first}")
        grids.append(grid)
        conditions.append([float(text) for text in match.groups()])
    both = torch.stack(grids)
    pilots = _find_pilots(both[..., 1], f"{files[0].parent}: H[..., 1]")
    snr_db, spread_ns, doppler_hz = torch.tensor(conditions, dtype=torch.float64).unbind(1)
    values = (snr_db.float(), (spread_ns * 1e-9).float(), doppler_hz.float())
    named = dict(zip(CONDITIONS, values, strict=True))
    return Channels(both[..., 0], pilots.pick(both[..., 1]), pilots, named, files)


def _read_grid(file: Path) -> np.ndarray:
    found = read_mat(file, ("H",))
    if "H" not in found:
        raise UserError(f"{file} holds no variable H; save it under that name")
    return found["H"]


def _from_npz(file: Path) -> Channels:
    found = read_npz(file, FIELDS)
    if "H" not in found:
        raise UserError(f"{file} holds no array H (sample, subcarrier, symbol); add it")
    channels = _complex(found["H"], 3, f"{file}: H")
    if "ls" in found and found["ls"].shape != tuple(channels.shape):
        raise UserError(f"{file}: ls has shape {found['ls'].shape}, H {tuple(channels.shape)}")
    estimates, pilots = _observed(found, file)
    if estimates is not None and len(estimates) != len(channels):
        raise UserError(f"{file}: {len(estimates)} samples of pilots, {len(channels)} of H")
    return Channels(channels, estimates, pilots, _conditions(found, len(channels), file), [file])


def _observed(found: Mapping[str, np.ndarray], file: Path) -> tuple[Tensor | None, Pilots | None]:
    if "ls" in found:
        whole = _complex(found["ls"], 3, f"{file}: ls")
        pilots = _find_pilots(whole, f"{file}: ls")
        return pilots.pick(whole), pilots
    if "pilots" in found:
        return _complex(found["pilots"], 3, f"{file}: pilots"), None
    return None, None


def _conditions(found: Mapping[str, np.ndarray], count: int, file: Path) -> dict[str, Tensor]:
    conditions = {}
    for name in CONDITIONS:
        if name in found:
            if found[name].dtype.kind not in "fiu":
                raise UserError(f"{file}: {name} is of type {found[name].dtype}; write numbers")
            try:
                values = np.broadcast_to(found[name], (count,)).astype(np.float32)
            except ValueError:
                raise UserError(
                    f"{file}: {name} has shape {found[name].shape} for {count} samples; write one "
                    "number, or one per sample"
                ) from None
            _check_finite(values, f"{file}: {name}")
            conditions[name] = torch.from_numpy(values)
    return conditions


def _find_pilots(whole: Complex[Tensor, "sample subcarrier symbol"], what: str) -> Pilots:
    """Return where estimates are: anywhere but 0, in any sample."""
    there = (whole != 0).any(0)
    rows, columns = there.any(1).nonzero()[:, 0], there.any(0).nonzero()[:, 0]
    if not len(rows) or not bool(there[rows][:, columns].all()):
        raise UserError(f"{what} has no pilots on the crossings of some subcarriers and symbols")
    return Pilots(subcarriers=tuple(rows.tolist()), symbols=tuple(columns.tolist()))


def _complex(values: np.ndarray, axes: int, what: str) -> Complex[Tensor, "..."]:
    if values.ndim != axes or values.dtype.kind not in "fc":
        raise UserError(
            f"{what} has {values.ndim} axes of {values.dtype}, which should be {axes} of complex "
            "numbers"
        )
    with np.errstate(over="ignore"):  # what is too large is not finite afterwards
        values = np.ascontiguousarray(values, dtype=np.complex64)
    _check_finite(values, what)
    if not values.any():
        raise UserError(f"{what} is 0 everywhere; there is no channel to learn from")
    return torch.from_numpy(values)


def _check_finite(values: np.ndarray, what: str) -> None:
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        raise UserError(
            f"{what} has {len(wrong)} values that are not finite, the first at "
            f"{tuple(wrong[0].tolist())}; remove those samples"
        )
