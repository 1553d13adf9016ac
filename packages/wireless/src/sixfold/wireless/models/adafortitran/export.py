"""The networks for export: planar reals, any number of slots."""

from typing import Any

import torch

from sixfold.core.weights.export import Exportable


def exportable(model: Any) -> Exportable:
    """Prepare the export; ``conditions`` are SNR in dB, delay spread in s and Doppler in Hz."""
    generator = torch.Generator().manual_seed(0)
    config, batch = model.config, torch.export.Dim("batch")
    shape = (2, config.pilot_subcarriers, config.pilot_symbols, 2)
    inputs = [config.channel_rms * torch.randn(shape, generator=generator)]
    dynamic: dict[str, Any] = {"pilots": {0: batch}}
    if model.adaptive:
        inputs.append(torch.tensor([[10.0, 1e-7, 200.0], [20.0, 3e-7, 500.0]]))
        dynamic["conditions"] = {0: batch}
    facts = {"grid": [config.subcarriers, config.symbols], "last_axis": "real, imaginary"}
    return Exportable(model.eval(), tuple(inputs), dynamic, ["channel"], facts)
