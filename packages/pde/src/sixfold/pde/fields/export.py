"""Forecasting networks for export: any number of fields, on the grid of the training."""

from collections.abc import Sequence
from typing import Any

import torch

from sixfold.core.weights.export import Exportable


def exportable(model: Any, numbers: Sequence[str] = ()) -> Exportable:
    """Prepare the export of a network in normalised units, on the grid of its settings.

    ``export.json`` has the mean and standard deviation of each channel.

    Args:
        model: Network.
        numbers: Names of further inputs, a number for each field.
    """
    config, generator = model.config, torch.Generator().manual_seed(0)
    shape = (2, config.time_history, config.input_channels, *config.grid)
    inputs = [torch.randn(shape, generator=generator)]
    inputs += [torch.rand(2, generator=generator) for _ in numbers]
    batch = torch.export.Dim("batch")
    axes: dict[str, dict[int, Any]] = {name: {0: batch} for name in ("frames", *numbers)}
    facts = {name: getattr(model.normalizer, name).flatten().tolist() for name in ("mean", "sd")}
    return Exportable(model.eval(), tuple(inputs), axes, ["predicted"], {"normalizer": facts})
