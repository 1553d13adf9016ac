"""Batches and losses of the wireless systems, at the published sizes; see systems_gpu.py."""

from typing import Any

import torch
from torch import Tensor

from sixfold.wireless.iq.power_control import spectral_efficiency
from sixfold.wireless.iq.precoding import user_rates
from sixfold.wireless.models.cmusenet import complex_focal_loss

Batch = dict[str, Tensor]


def spectra(config: Any, items: int, seconds: float) -> Batch:
    """Draw planar spectra, and a mask in which a fifth of the bins is occupied."""
    del seconds
    mask = (torch.rand(items, config.bins) < 0.2).float()
    return {"spectrum": torch.randn(items, 2, *config.folded_shape()), "mask": mask}


def slots(config: Any, items: int, seconds: float) -> Batch:
    """Draw pilots, conditions and channels, 16 slots an item."""
    del seconds
    pilots = (16 * items, config.pilot_subcarriers, config.pilot_symbols, 2)
    target = (16 * items, config.subcarriers, config.symbols, 2)
    conditions = torch.rand(16 * items, 3) * torch.tensor([25.0, 3e-7, 1000.0])
    return {
        "pilots": torch.randn(pilots), "conditions": conditions, "target": torch.randn(target)
    }  # fmt: skip


def channels(config: Any, items: int, seconds: float) -> Batch:
    """Draw channels of 8 users and 8 antennas, 64 an item."""
    del config, seconds
    drawn = torch.randn(64 * items, 8, 8, dtype=torch.complex64)
    return {"channel": drawn, "noise": torch.full((64 * items,), 0.1)}


def layouts(config: Any, items: int, seconds: float) -> Batch:
    """Draw layouts of 30 access points and 10 users, 16 an item."""
    del config, seconds
    gain = 10 ** (2 * torch.randn(16 * items, 30, 10))
    return {"gain": gain, "serve": gain >= gain.topk(8, 1).values[:, -1:]}


def segment(model: Any, batch: Batch) -> Tensor:
    """Return the probabilities of the bins."""
    return model(batch["spectrum"])


def focal_loss(model: Any, batch: Batch) -> Tensor:
    """Return the published loss in float32: autocast refuses entropies of probabilities."""
    probabilities = segment(model, batch).float()
    with torch.autocast(probabilities.device.type, enabled=False):
        return complex_focal_loss(probabilities, batch["mask"])


def estimate(model: Any, batch: Batch) -> Tensor:
    """Return the channels of the slots."""
    return model(batch["pilots"], *([batch["conditions"]] if model.adaptive else []))


def squared_error(model: Any, batch: Batch) -> Tensor:
    """Return the published loss."""
    return (estimate(model, batch).float() - batch["target"]).square().mean()


def precode(model: Any, batch: Batch) -> Tensor:
    """Return the precoders as pairs of reals."""
    return torch.view_as_real(model(batch["channel"], batch["noise"]))


def sum_rate_loss(model: Any, batch: Batch) -> Tensor:
    """Return minus the mean sum rate."""
    precoder = model(batch["channel"], batch["noise"])
    return -user_rates(batch["channel"], precoder, batch["noise"]).sum(-1).mean()


def allocate(model: Any, batch: Batch) -> Tensor:
    """Return the powers of access points with 4 antennas."""
    return model(batch["gain"], batch["serve"], 4)


def efficiency_loss(model: Any, batch: Batch) -> Tensor:
    """Return minus the mean sum of spectral efficiencies."""
    return -spectral_efficiency(batch["gain"], allocate(model, batch).float(), 4).sum(-1).mean()


SENSING = {"draw": spectra, "infer": segment, "loss": focal_loss}
ESTIMATION = {"draw": slots, "infer": estimate, "loss": squared_error}
PRECODING = {"draw": channels, "infer": precode, "loss": sum_rate_loss}
ALLOCATION = {"draw": layouts, "infer": allocate, "loss": efficiency_loss}
