"""Export of the separators, and of the mask network of MossFormer2_SE_48K."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sixfold.speech.models.mossformer2.inference import check_rate_is_known
from sixfold.speech.models.mossformer2.model import MossFormer2
from sixfold.speech.models.mossformer2.se_48k import MossFormer2SE


def exportable(model: MossFormer2) -> tuple[nn.Module, tuple[Tensor], dict[str, dict[int, Any]]]:
    """Return module, example input and dynamic axes: one mixture, more than a group of frames."""
    check_rate_is_known(model)
    config = model.config
    samples = (config.group + 1) * (config.kernel_size // 2)
    noise = 0.1 * torch.randn(1, samples + 5, generator=torch.Generator().manual_seed(0))
    return model, (noise,), {"mixture": {1: torch.export.Dim("time", min=samples)}}


class FirstMask(nn.Module):
    """The network from features to the first mask; Kaldi's features cannot be exported."""

    def __init__(self, model: MossFormer2SE) -> None:
        super().__init__()
        self.mask = model.mask

    def forward(
        self, features: Float[Tensor, "batch frame feature"]
    ) -> Float[Tensor, "batch frame frequency"]:
        return self.mask(features)[:, :, 0]


def exportable_se_48k(
    model: MossFormer2SE,
) -> tuple[nn.Module, tuple[Tensor], dict[str, dict[int, Any]]]:
    """Return module, example input and dynamic axes: features of more than a group of frames."""
    frames, generator = model.config.group + 1, torch.Generator().manual_seed(0)
    features = torch.randn(1, frames, 3 * model.config.n_mels, generator=generator)
    dynamic = {"features": {1: torch.export.Dim("frames", min=frames)}}
    return FirstMask(model).eval(), (features,), dynamic
