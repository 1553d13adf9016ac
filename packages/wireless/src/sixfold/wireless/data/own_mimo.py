"""One's own channels of many antennas, and one's own cell-free layouts: .npz or .mat files.

Channels: ``H`` (sample, users, antennas), complex, row k is h_k^H; and, if known,
``noise_power_w`` and ``power_w``, one or one per sample. Layouts: ``gain`` (layout, access points,
users), gains over noise for 1 mW, not in dB; ``serve`` in the same shape, boolean; and, if known,
``antennas`` and ``power_mw``, one or (layout, access points).
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.training.sampling import derive_seed
from sixfold.wireless.data.array_files import ENDINGS, read_mat, read_npz

CHANNELS = ("H", "noise_power_w", "power_w")
LAYOUTS = ("gain", "serve", "antennas", "power_mw")
NUMBERS = ("noise_power_w", "power_w", "antennas", "power_mw")  # which may be one for all


def read_arrays(file: Path, fields: tuple[str, ...], needed: tuple[str, ...]) -> dict[str, Tensor]:
    """Read the arrays of an .npz or a .mat file.

    Raises:
        UserError: the file is missing or damaged, lacks an array or holds one of another name, or
            holds something but finite numbers.
    """
    if not file.is_file() or file.suffix not in ENDINGS:
        raise UserError(f"{file} is no .npz or .mat file; give one with {', '.join(needed)}")
    found = read_mat(file, fields) if file.suffix == ".mat" else read_npz(file, fields)
    for name in needed:
        if name not in found or not found[name].size:
            raise UserError(f"{file} holds no array {name}; add it")
    for name, values in found.items():
        if values.dtype.kind not in "bifuc":
            raise UserError(f"{file}: {name} is {values.dtype}; write numbers")
        wrong = np.argwhere(~np.isfinite(values))
        if len(wrong):
            place = tuple(wrong[0].tolist())
            raise UserError(f"{file}: {name} is not finite at {place}; remove that sample")
    if file.suffix == ".mat":
        found = {name: _from_matlab(name, value) for name, value in found.items()}
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in found.items()}


def _from_matlab(name: str, values: np.ndarray) -> np.ndarray:
    """Undo what MATLAB does: scalars and vectors have two axes, booleans are bytes."""
    if name == "serve" and values.dtype == np.uint8:
        return values.astype(bool)
    return values.squeeze() if name in NUMBERS and 1 in values.shape else values


def read_mimo(file: Path, snr_db: tuple[float, float], seed: int) -> dict[str, Tensor]:
    """Read channels, scaled to unit mean power, and their ``noise`` at a total power of 1.

    Args:
        file: File.
        snr_db: Smallest and largest SNR, drawn for each channel where the file has no noise.
        seed: Seed of the SNRs.

    Raises:
        UserError: as `read_arrays`; or an array has another shape or a value that cannot be.
    """
    found = read_arrays(file, CHANNELS, ("H",))
    channel = found["H"]
    if channel.ndim != 3 or not channel.is_complex():
        raise UserError(
            f"{file}: H is {channel.dtype} of shape {tuple(channel.shape)}; write complex numbers "
            "(sample, users, antennas)"
        )
    wide = channel.to(torch.complex128)
    mean = wide.abs().square().mean((1, 2))
    if bool((mean == 0).any()):
        raise UserError(f"{file}: H[{int((mean == 0).nonzero()[0])}] is 0; remove that sample")
    if "noise_power_w" in found:
        power = found.get("power_w", torch.ones(()))
        noise = _positive(found["noise_power_w"], "noise_power_w", (len(mean),), file)
        noise = noise / _positive(power, "power_w", (len(mean),), file) / mean
    else:
        generator = torch.Generator().manual_seed(derive_seed(seed, "noise"))
        low, high = snr_db
        drawn = low + (high - low) * torch.rand(len(mean), generator=generator)
        noise = 10 ** (-drawn.double() / 10)
    scaled = wide / mean.sqrt()[:, None, None]
    return {"channel": scaled.to(torch.complex64), "noise": noise.float()}


def read_layouts(file: Path) -> dict[str, Tensor]:
    """Read cell-free layouts: ``gain``, ``serve``, ``antennas``, ``power_mw``.

    Raises:
        UserError: as `read_arrays`; or an array has another shape or a value that cannot be, or a
            user is served by nobody.
    """
    found = read_arrays(file, LAYOUTS, ("gain", "serve"))
    gain, serve = found["gain"], found["serve"]
    if gain.ndim != 3 or serve.shape != gain.shape or serve.dtype != torch.bool:
        raise UserError(
            f"{file}: gain is {gain.dtype} of shape {tuple(gain.shape)}, serve {serve.dtype} of "
            f"{tuple(serve.shape)}; write reals and booleans (layout, access points, users)"
        )
    alone = ~serve.any(1)
    if bool(alone.any()):
        layout, user = alone.nonzero()[0].tolist()
        raise UserError(f"{file}: nobody serves user {user} of layout {layout}; serve it")
    made = {"gain": _positive(gain, "gain", gain.shape, file), "serve": serve}
    for name, usual in (("antennas", 1.0), ("power_mw", 1000.0)):
        value = found.get(name, torch.tensor(usual))
        made[name] = _positive(value, name, gain.shape[:2], file)
    return {name: value if name == "serve" else value.float() for name, value in made.items()}


def _positive(values: Tensor, name: str, shape: tuple[int, ...], file: Path) -> Tensor:
    try:
        whole = values.double().expand(shape)
    except RuntimeError:
        raise UserError(
            f"{file}: {name} has shape {tuple(values.shape)}, which should be {tuple(shape)}"
        ) from None
    if not bool((whole > 0).all()):
        raise UserError(f"{file}: {name} has values that are not positive; none is in dB")
    return whole


class Rows:
    """Samples in memory, as a training set."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def batch(self, indices: list[int] | Tensor) -> dict[str, Tensor]:
        """Return some samples, as `sixfold.core.training.fit.fit` asks for them."""
        return {name: value[indices] for name, value in self.tensors.items()}

    def split(self, share: float, seed: int) -> tuple["Rows", "Rows"]:
        """Hold out a share of the samples.

        Raises:
            UserError: there are too few.
        """
        held = round(share * len(self))
        if not 0 < held < len(self):
            raise UserError(
                f"{len(self)} samples are too few to hold {share} of them out; add more"
            )
        generator = torch.Generator().manual_seed(derive_seed(seed, "valid"))
        order = torch.randperm(len(self), generator=generator)
        return Rows(self.batch(order[held:])), Rows(self.batch(order[:held]))
