"""The network of CMuSeNet (arXiv:2506.11048): a complex ResNet without max-pooling.

It reads a spectrum that is folded into a picture, row by row, and is planar throughout: real parts
of all channels first, then the imaginary ones.
"""

import copy
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import Config, UserError, from_pretrained
from sixfold.core.config import Depth
from sixfold.core.data.tensors import as_tensor
from sixfold.wireless.iq.spectrum import fold, folded_shape, peak_normalised_spectrum
from sixfold.wireless.models.cmusenet.layers import (
    BasicBlock,
    Bottleneck,
    ComplexBatchNorm2d,
    ComplexConv2d,
    ComplexLinear,
    Planar,
    folded_conv,
)
from sixfold.wireless.models.cmusenet.packed import Packed, PackedBlock, can_pack

BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


class CMuSeNetConfig(Config):
    """Sizes; the defaults are the published ResNet-18.

    Args:
        bins: Number of FFT bins, of which each gets a decision.
        sample_rate_hz: Sample rate that the weights were trained at.
        width: Number of complex channels of the first stage; each further one doubles it.
        block: Kind of residual block.
        layers: Number of blocks of each stage.
    """

    bins: int = Field(default=16384, ge=4)
    sample_rate_hz: PositiveFloat = 20e6
    width: PositiveInt = 64
    block: Literal["basic", "bottleneck"] = "basic"
    layers: tuple[Depth, ...] = Field(default=(2, 2, 2, 2), min_length=1)

    def folded_shape(self) -> tuple[int, int]:
        """Return height and width of the folded spectrum: 128 x 128 at the published size."""
        return folded_shape(self.bins)


class CMuSeNet(nn.Module):
    """Tell for each FFT bin whether a signal occupies it.

    ``model(folded)`` maps planar spectra to two probabilities of each bin, the sigmoid of the real
    and of the imaginary part. ``model.segment(samples)`` starts from complex samples.
    """

    def __init__(self, config: CMuSeNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CMuSeNetConfig()
        make = BLOCKS[config.block]
        self.conv1: nn.Module = ComplexConv2d(1, config.width, 7, 2, 3)
        self.bn1: nn.Module = ComplexBatchNorm2d(config.width)
        channels = config.width
        self.stages = [f"layer{number}" for number in range(1, len(config.layers) + 1)]
        for number, (name, count) in enumerate(zip(self.stages, config.layers, strict=True)):
            width, blocks = config.width * 2**number, []
            for i in range(count):
                blocks.append(make(channels, width, 2 if number and i == 0 else 1))
                channels = width * make.expansion
            self.add_module(name, nn.Sequential(*blocks))
        self.fc: nn.Module = ComplexLinear(channels, config.bins)

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: Any) -> "CMuSeNet":
        """Load an official or a sixfold checkpoint, in eval mode.

        Args:
            path: Path of a checkpoint.
            settings: Settings that an official checkpoint does not hold: ``sample_rate_hz=5e6``.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        from sixfold.wireless.models.cmusenet import SYSTEM  # it needs this class

        return cast(CMuSeNet, from_pretrained(path, SYSTEM, **settings))

    def forward(self, folded: Planar) -> Float[Tensor, "batch 2 bin"]:
        if folded.shape[1] != 2:
            raise UserError(
                f"CMuSeNet takes planar spectra (batch, 2, height, width), got "
                f"{tuple(folded.shape)}; sixfold.wireless.iq.spectrum.fold makes them"
            )
        return torch.sigmoid(self.logits(folded)).unflatten(1, (2, -1))

    def logits(self, folded: Planar) -> Float[Tensor, "batch bins2"]:
        """Return the planar output before the sigmoid."""
        return self.fc(self.features(folded))

    def features(self, folded: Planar) -> Float[Tensor, "batch channels2"]:
        """Return the planar vector that the head reads, averaged over the folded spectrum."""
        y = functional.relu(self.bn1(self.conv1(folded)))
        for name in self.stages:
            y = self.get_submodule(name)(y)
        return y.mean((2, 3))

    @torch.no_grad()
    def segment(self, samples: Any) -> Any:
        """Compute both probabilities of each bin for blocks of complex samples.

        Args:
            samples: Complex blocks (batch, time), of which the first ``bins`` samples are used.

        Returns:
            Probabilities (batch, 2, bin); an array for an array.

        Raises:
            UserError: these are no blocks of complex samples, or one is shorter than the FFT, or
                has no power, NaN or infinity.
        """
        blocks = as_tensor(samples, "samples")
        if blocks.ndim != 2 or not blocks.is_complex():
            raise UserError(
                f"segment takes complex blocks (batch, time), got {blocks.dtype} "
                f"{tuple(blocks.shape)}; for one block pass x[None]"
            )
        spectrum = peak_normalised_spectrum(blocks, self.config.bins)
        first = next(self.parameters())
        found = first.new_empty(0, 2, self.config.bins)
        if len(blocks):
            found = self(fold(spectrum, self.config.folded_shape()).to(first))
        return found.numpy(force=True) if isinstance(samples, np.ndarray) else found

    def folded_norms(self) -> "CMuSeNet":
        """Return a copy for inference whose batch norms are folded into real convolutions.

        It computes the same up to rounding, and cannot be trained or saved.
        """
        folded = copy.deepcopy(self).eval()
        for module in list(folded.modules()):
            names = dict(module.named_children())
            for name, child in names.items():
                if isinstance(child, ComplexConv2d):
                    norm = _norm_of(name)
                    folded_by = cast(ComplexBatchNorm2d, names[norm])
                    setattr(module, name, folded_conv(child, folded_by))
                    setattr(module, norm, nn.Identity())
        return folded.requires_grad_(False)

    def packed(self) -> "CMuSeNet":
        """Return a copy for inference alone, the fastest on a CPU: `folded_norms`, then packed.

        It stays on its device and cannot be exported. Elsewhere, and in double precision, it is
        `folded_norms`.
        """
        folded = self.folded_norms()
        if not can_pack(self.conv1.get_parameter("conv_r.weight")):
            return folded
        folded.conv1 = Packed(cast(nn.Conv2d, folded.conv1), relu=True)
        for name in self.stages:
            blocks = cast(nn.Sequential, self.get_submodule(name))
            made = (PackedBlock(cast(BasicBlock | Bottleneck, block)) for block in blocks)
            folded.add_module(name, nn.Sequential(*made))
        return folded

    def freeze_body(self, generator: torch.Generator) -> None:
        """Prepare transfer as published: every parameter frozen but those of a new head.

        The running moments of the batch norms still follow the new data in training mode.

        Args:
            generator: Source of the new head's weights.
        """
        self.requires_grad_(False)
        head = cast(ComplexLinear, self.fc)
        bound = head.fc_r.in_features**-0.5  # torch's default of nn.Linear
        for parameter in head.parameters():
            values = torch.rand(parameter.shape, generator=generator, device=generator.device)
            parameter.data.copy_((2 * values - 1) * bound)
        head.requires_grad_(True)


def _norm_of(conv: str) -> str:
    """Return the name of the batch norm that follows a convolution; "0" is a shortcut's."""
    return "1" if conv == "0" else conv.replace("conv", "bn")
