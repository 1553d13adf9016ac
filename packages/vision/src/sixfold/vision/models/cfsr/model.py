"""CFSR's network: settings, forward pass, receptive field; merged and cropped copies.

arXiv:2401.05633; the citation and the departures from the paper are in the docstring of
`sixfold.vision.models.cfsr`. Parameters have the official names. Features are channels-last.
"""

from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import Config, UserError, from_pretrained, load_strict
from sixfold.core.config import Depth
from sixfold.vision.images.network import check_pictures
from sixfold.vision.models.cfsr.layers import EDGES, Block, LayerNorm

MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K's pictures


class CFSRConfig(Config):
    """Sizes of the released networks; the default is x4, to be trained.

    Args:
        in_chans: Channels of a picture.
        embed_dim: Channels of the features (C).
        depths: Number of blocks of each layer.
        dw_size: Side of the large kernels (K), odd.
        mlp_ratio: Width of the feed-forward network, in multiples of C.
        upscale: Factor of the enlargement.
        img_range: Factor on the picture, once its mean is subtracted.
        upsampler: How a picture is enlarged; empty for restoration at its own size.
        edge_branches: Whether the feed-forward networks have edge branches (training form); False
            is the merged form, or a network trained without them.
        edge_masks: Masks of the branches: the true operators, or the released code's.
        layer_scale: First value of the layer scales.
    """

    in_chans: PositiveInt = 3
    embed_dim: PositiveInt = 48
    depths: tuple[Depth, ...] = Field(default=(6, 6), min_length=1)
    dw_size: PositiveInt = 9
    mlp_ratio: PositiveInt = 2
    upscale: PositiveInt = 4
    img_range: float = Field(default=1.0, gt=0)
    upsampler: Literal["pixelshuffledirect", ""] = "pixelshuffledirect"
    edge_branches: bool = True
    edge_masks: Literal["true", "official"] = "true"
    layer_scale: float = 1e-6

    @field_validator("dw_size")
    @classmethod
    def _is_odd(cls, size: int) -> int:
        if size % 2 == 0:
            raise ValueError(f"a kernel of even side {size} has no centre; give an odd one")
        return size

    @model_validator(mode="after")
    def _restoration_keeps_the_size(self) -> "CFSRConfig":
        if not self.upsampler and self.upscale != 1:
            raise ValueError(f"upscale {self.upscale} needs an upsampler; without one it is 1")
        return self

    def receptive_radius(self) -> int:
        """Return how many pixels around a pixel of the input decide its part of the output: 63."""
        block = self.dw_size // 2 + 1  # the large kernel, and the 3x3 of the edges
        return sum(self.depths) * block + 3


class CFSR(nn.Module):
    """Enlarge pictures (batch, channel, height, width) of values in [0, 1]: ``model(pictures)``.

    Any height and width; the output is not clamped.
    """

    mean: Tensor

    def __init__(self, config: CFSRConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CFSRConfig()
        channels, width = config.in_chans, config.embed_dim
        mean = torch.tensor(MEAN) if channels == 3 else torch.zeros(channels)
        self.register_buffer("mean", mean[:, None, None], persistent=False)
        self.conv_first = nn.Conv2d(channels, width, 3, padding=1)
        self.layers = nn.ModuleList(Layer(config, depth) for depth in config.depths)
        self.norm = LayerNorm(width)
        self.conv_after_body = nn.Conv2d(width, width, 3, padding=1)
        if config.upsampler:
            subpixels = config.upscale**2 * channels
            conv = nn.Conv2d(width, subpixels, 3, padding=1)
            self.upsample = nn.Sequential(conv, nn.PixelShuffle(config.upscale))
        else:
            self.conv_last = nn.Conv2d(width, channels, 3, padding=1)

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: Any) -> "CFSR":
        """Load a released or a sixfold checkpoint, in eval mode; its form and sizes are read off.

        Args:
            path: Path of a checkpoint, or name of published weights, e.g. ``CFSR_x4.pth``.
            settings: Settings that a released checkpoint does not hold: ``img_range``.

        Raises:
            UserError: the file is missing or damaged, or holds another system or size.
        """
        from sixfold.vision.models.cfsr import SYSTEM  # that module imports this one

        return cast(CFSR, from_pretrained(path, SYSTEM, **settings))

    def forward(self, pictures: Tensor) -> Float[Tensor, "batch channel height_out width_out"]:
        check_pictures(self, pictures)
        x = (pictures - self.mean) * self.config.img_range
        x = x.contiguous(memory_format=torch.channels_last)
        shallow = self.conv_first(x)
        deep = shallow
        for layer in self.layers:
            deep = layer(deep)
        features = self.conv_after_body(self.norm(deep)) + shallow
        y = self.upsample(features) if self.config.upsampler else x + self.conv_last(features)
        return y / self.config.img_range + self.mean

    def merged(self) -> "CFSR":
        """Return a copy without edge branches, their kernels added to the learned ones.

        Raises:
            UserError: the network is merged, or in training mode.
        """
        if self.training or not self.config.edge_branches:
            reason, mend = ("in training mode", "call model.eval() first")
            if not self.config.edge_branches:
                reason, mend = ("without edge branches", "it is merged already")
            raise UserError(f"CFSR cannot be merged: it is {reason}; {mend}")
        state = self.state_dict()
        for name, block in self.named_modules():
            if isinstance(block, Block):
                weight, bias = block.mlp.kernel(torch.float64)
                state[f"{name}.mlp.pos.weight"] = weight.to(state[f"{name}.mlp.pos.weight"])
                state[f"{name}.mlp.pos.bias"] = bias.to(state[f"{name}.mlp.pos.bias"])
        return self._copy({k: v for k, v in state.items() if not _is_edge(k)}, edge_branches=False)

    def cropped(self, dw_size: int) -> "CFSR":
        """Return a copy whose large kernels are cut to their centre, as if the rest were zero.

        Raises:
            UserError: the kernels are not larger, or the size is even.
        """
        margin, odd = divmod(self.config.dw_size - dw_size, 2)
        if odd or margin < 0 or dw_size < 1:
            raise UserError(
                f"kernels of side {self.config.dw_size} cannot be cropped to {dw_size}; give an "
                "odd side that is not larger"
            )
        state = {
            name: functional.pad(value, (-margin,) * 4) if "lkb_reparam.weight" in name else value
            for name, value in self.state_dict().items()
        }
        return self._copy(state, dw_size=dw_size)

    def _copy(self, state: dict[str, Tensor], **settings: Any) -> "CFSR":
        model = CFSR(self.config.model_copy(update=settings)).to(next(self.parameters()))
        load_strict(model, state, "the copy")
        return model.train(self.training)


def _is_edge(key: str) -> bool:
    return any(edge in key for edge in EDGES)


class Layer(nn.Module):
    """ConvFormer blocks, then a 1x1 convolution of what they return, added to it."""

    def __init__(self, config: CFSRConfig, depth: int) -> None:
        super().__init__()
        masks = config.edge_masks if config.edge_branches else None
        self.blocks = nn.Sequential(
            *(
                Block(
                    config.embed_dim,
                    config.dw_size,
                    config.mlp_ratio,
                    edge_masks=masks,
                    layer_scale=config.layer_scale,
                )
                for _ in range(depth)
            )
        )
        self.conv = nn.Conv2d(config.embed_dim, config.embed_dim, 1)

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        x = self.blocks(x)
        return self.conv(x) + x
