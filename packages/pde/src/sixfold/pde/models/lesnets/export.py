"""LESnets for export: any number of fields, on the grid of the settings."""

from typing import Any

import torch

from sixfold.core.weights.export import Exportable
from sixfold.pde.models.lesnets.model import LESnets


def exportable(model: LESnets) -> Exportable:
    """Prepare the export; Fourier layers are real matrix products wherever few modes are kept."""
    generator = torch.Generator().manual_seed(0)
    u0 = torch.randn(2, *model.config.grid, 3, generator=generator)
    axes: dict[str, dict[int, Any]] = {"u0": {0: torch.export.Dim("batch")}}
    facts: dict[str, Any] = {"layout": "u0 (batch, x, y, z, 3), frames (batch, x, y, z, 3, time)"}
    if model.config.flow is not None:
        facts["flow"] = model.config.flow.model_dump(mode="json")
    return Exportable(model.eval(), (u0,), axes, ["frames"], facts)
