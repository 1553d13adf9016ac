"""CMuSeNet for export: batch norms folded, any number of blocks."""

import torch

from sixfold.core.weights.export import Exportable
from sixfold.wireless.models.cmusenet.model import CMuSeNet


def exportable(model: CMuSeNet) -> Exportable:
    """Prepare the export; the input is the folded planar spectrum, real part first."""
    config = model.config
    generator = torch.Generator().manual_seed(0)
    spectra = torch.rand(2, 2, *config.folded_shape(), generator=generator) * 2 - 1
    facts = {
        "sample_rate_hz": config.sample_rate_hz,
        "spectrum": "FFT of the block, shifted, over its largest magnitude, folded row by row",
    }
    axes = {0: torch.export.Dim("batch")}
    return Exportable(model.folded_norms(), (spectra,), {"folded": axes}, ["probabilities"], facts)
