"""Batches and losses of the pde systems, at the published sizes; see systems_gpu.py."""

import math
from typing import Any

import torch
from torch import Tensor

from sixfold.pde.fields.initial_fields import isotropic_field
from sixfold.pde.losses import scaled_norm
from sixfold.pde.models.lesnets.loss import Flow, physics_loss

Batch = dict[str, Tensor]


def frames(config: Any, items: int, seconds: float) -> Batch:
    """Draw the history and the next frames of flows in normalised units."""
    del seconds
    history = (items, config.time_history, config.input_channels, *config.grid)
    target = (items, config.time_future, config.output_channels, *config.grid)
    return {"history": torch.randn(history), "target": torch.randn(target)}


def turbulence(config: Any, items: int, seconds: float) -> Batch:
    """Draw velocities of isotropic turbulence."""
    del seconds
    fields = isotropic_field(items, config.grid, torch.Generator().manual_seed(0))
    return {"u0": fields.movedim(1, -1).contiguous()}


def forecast(model: Any, batch: Batch) -> Tensor:
    """Return the next frames."""
    return model(batch["history"])


def scaled_loss(model: Any, batch: Batch) -> Tensor:
    """Return the published loss."""
    return scaled_norm(forecast(model, batch).float(), batch["target"])


def roll(model: Any, batch: Batch) -> Tensor:
    """Return the frames of one block."""
    return model(batch["u0"])


def residual_loss(model: Any, batch: Batch) -> Tensor:
    """Return the residual of the filtered equations, in float32."""
    u0 = batch["u0"]
    whole = torch.cat((u0[..., None], roll(model, batch).float()), -1)
    flow = Flow(
        viscosity=1 / 64,
        box=(2 * math.pi,) * 3,  # type: ignore[arg-type]
        time_step=0.02,
        smagorinsky=0.01,
        filter_width=2 * math.pi / u0.shape[1],
    )
    with torch.autocast(u0.device.type, enabled=False):
        return physics_loss(whole, flow, flow.smagorinsky)


FORECAST = {"draw": frames, "infer": forecast, "loss": scaled_loss}
TURBULENCE = {"draw": turbulence, "infer": roll, "loss": residual_loss}
