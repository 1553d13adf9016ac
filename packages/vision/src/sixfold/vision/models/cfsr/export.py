"""CFSR for export: merged, with pictures of any number and size."""

from typing import Any

import torch

from sixfold.core.weights.export import Exportable
from sixfold.vision.models.cfsr.model import CFSR


def exportable(model: CFSR) -> Exportable:
    """Prepare the export of the merged network; its pictures are values in [0, 1], RGB."""
    merged = model.eval().merged() if model.config.edge_branches else model
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(2, model.config.in_chans, 14, 18, generator=generator)
    dim = torch.export.Dim
    axes: dict[int, Any] = {0: dim("batch"), 2: dim("height"), 3: dim("width")}
    facts = {"upscale": model.config.upscale, "values": "0 to 1; the output is not clamped"}
    return Exportable(merged.eval(), (pictures,), {"pictures": axes}, ["enlarged"], facts)
