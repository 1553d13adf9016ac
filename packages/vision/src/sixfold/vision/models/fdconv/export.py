"""FDConv for export: batches of any size, of pictures of one size.

The size of the pictures is a constant of the graph, because the matrices of the band modulation
depend on it; a file refuses pictures of another size and names the axis.
"""

from typing import Any

import torch
from torch import nn

from sixfold.core.weights.export import Exportable
from sixfold.vision.models.fdconv.model import FDConvNet
from sixfold.vision.models.fdconv.segmentation import Segmenter


def exportable(model: FDConvNet) -> Exportable:
    """Prepare the export at the size of picture that timm names for the network."""
    network: Any = model.network
    _, height, width = network.pretrained_cfg["input_size"]
    return at_size(model, model.config.in_chans, height, width, "features")


def exportable_segmenter(model: Segmenter) -> Exportable:
    """Prepare the export at the size of CamVid's pictures, scaled as the network wants them."""
    height, width = (round(side * model.config.scale) for side in (360, 480))
    return at_size(model, 3, height, width, "logits")


def at_size(model: nn.Module, channels: int, height: int, width: int, output: str) -> Exportable:
    """Prepare the export of a network of FDConv layers for pictures of one size.

    Args:
        model: Network in eval mode.
        channels: Number of channels of a picture.
        height: Height of a picture in pixels.
        width: Width of a picture in pixels.
        output: Name of the output.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, channels, height, width, generator=generator)
    dynamic = {"images": {0: torch.export.Dim("batch")}}
    facts = {"height": height, "width": width}
    return Exportable(model.eval(), (images,), dynamic, [output], facts)
