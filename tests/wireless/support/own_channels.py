"""Channels of a small grid, as a user would have them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sixfold.wireless.iq.ofdm import Grid, Pilots, noise_variance, observe
from sixfold.wireless.iq.tdl import TDL
from sixfold.wireless.models import adafortitran

GRID = Grid(subcarriers=12)
PILOTS = Pilots(subcarriers=(1, 4, 7, 10))
SIZES: dict[str, Any] = {"subcarriers": 12, "pilot_subcarriers": 4, "patch": (3, 7)}
SIZES |= {"layers": 1, "width": 16, "heads": 2, "dropout": 0.0, "max_tokens": 8}


def tiny() -> adafortitran.AdaFortiTran:
    """Make an adaptive network of the grid, with the same weights each time."""
    torch.manual_seed(0)
    config = adafortitran.AdaFortiTranConfig(**SIZES, condition_scaling=True)
    return adafortitran.AdaFortiTran(config)


def slots(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw channels of SNR 20 dB with their pilots and conditions."""
    generators = [torch.Generator().manual_seed(seed + i) for i in range(2)]
    doppler = torch.linspace(50, 400, count)
    spread = torch.full((count,), 1e-7)
    h = TDL("A", GRID)(
        count, delay_spread_s=spread, max_doppler_hz=doppler, generator=generators[0]
    )
    snr_db = torch.full((count,), 20.0)
    estimates = observe(h, PILOTS, noise_variance(snr_db, GRID, PILOTS), generator=generators[1])
    names = {"H": h, "pilots": estimates, "snr_db": snr_db}
    names |= {"delay_spread_s": spread, "max_doppler_hz": doppler}
    return {name: value.numpy() for name, value in names.items()}


def write_npz(file: Path, count: int, scale: float = 1.0) -> Path:
    """Write channels, multiplied by a scale."""
    arrays = slots(count)
    arrays |= {name: scale * arrays[name] for name in ("H", "pilots")}
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file
