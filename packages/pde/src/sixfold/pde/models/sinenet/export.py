"""SineNet for export: any number of fields, on one grid."""

from typing import Any

import torch

from sixfold.core.weights.export import Exportable
from sixfold.pde.models.sinenet.model import SineNet

SIDE = 32  # points along each axis of the exported grid


def exportable(model: SineNet) -> Exportable:
    """Prepare the export, in normalised units; ``export.json`` has the mean and sd of each channel.

    A conditional network also has the inputs ``time`` and, if it takes one, ``parameter``.
    """
    config = model.config
    generator = torch.Generator().manual_seed(0)
    shape = (2, config.time_history, config.input_channels, SIDE, SIDE)
    inputs = [torch.randn(shape, generator=generator)]
    numbers = [config.conditioning != "none", config.condition_on_parameter]
    names = ["frames", *(n for n, on in zip(("time", "parameter"), numbers, strict=True) if on)]
    inputs += [torch.rand(2, generator=generator) for _ in names[1:]]
    axes: dict[str, dict[int, Any]] = {name: {0: torch.export.Dim("batch")} for name in names}
    facts = {name: getattr(model.normalizer, name).flatten().tolist() for name in ("mean", "sd")}
    return Exportable(model.eval(), tuple(inputs), axes, ["predicted"], {"normalizer": facts})
