"""RePaViT for export, from normalised pictures to logits, in batches of any size."""

import copy

import torch

from sixfold.core.weights.export import Exportable
from sixfold.vision.models.repavit.model import RePaViT


def exportable(model: RePaViT) -> Exportable:
    """Prepare the export of the merged form, or of a network that has none as it is."""
    config, ready = model.config, copy.deepcopy(model).eval()
    if not (config.vanilla or config.merged or config.feature_norm == "LayerNorm"):
        ready = ready.merged()
    size = config.options.get("img_size", config.img_size)
    height, width = (size, size) if isinstance(size, int) else size
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, config.in_chans, height, width, generator=generator)
    dynamic = {"images": {0: torch.export.Dim("batch")}}
    facts = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    return Exportable(ready, (images,), dynamic, ["logits"], facts)
