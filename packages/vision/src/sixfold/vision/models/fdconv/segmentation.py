"""Semantic segmentation with FDConv, arXiv:2503.18783: an encoder-decoder of any kind of layer.

The encoder is a small one of this file or a network of timm. The decoder doubles the features' size
step by step, beside the encoder's features of that size.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import UserError, from_pretrained
from sixfold.core.weights.convert import save_pretrained
from sixfold.vision.models.fdconv.convert import convert_layers, convertible
from sixfold.vision.models.fdconv.dynamic_conv import DynamicConv2d
from sixfold.vision.models.fdconv.layers import FDConv2d
from sixfold.vision.models.fdconv.lite0 import BACKBONE, pretrained_lite0
from sixfold.vision.models.fdconv.options import FDConvOptions

NAME = "fdconv_seg"


class SegmenterConfig(FDConvOptions):
    """Settings of the encoder-decoder.

    Args:
        classes: Number of classes.
        conv: Kind of the convolutions: plain ones, DY-Conv, or FDConv.
        kernel_num: Number of frequency groups (fdconv).
        kernels: Number of kernels that are mixed (dynamic).
        channels: Number of channels of each level of the small encoder.
        backbone: Name of a network of timm as the encoder; None is the small one.
        scale: Factor of the size of pictures at which the network works.
        mean: Mean that is taken off the pictures' values between 0 and 1.
        std: Deviation that they are then divided by.
    """

    classes: int = Field(default=11, ge=2, le=255)
    conv: Literal["static", "dynamic", "fdconv"] = "fdconv"
    kernel_num: int | None = Field(default=16, ge=1)
    kernels: int = Field(default=4, ge=1)
    channels: tuple[int, ...] = Field(default=(32, 64, 128), min_length=2)
    backbone: str | None = None
    scale: float = Field(default=0.5, gt=0, le=1)
    mean: float = 0.5
    std: float = Field(default=0.5, gt=0)

    def layer_options(self) -> dict[str, Any]:
        """Return the settings of FDConv layers but for the number of groups."""
        chosen = self.model_fields_set & (FDConvOptions.model_fields.keys() - {"kernel_num"})
        return {key: getattr(self, key) for key in sorted(chosen)}


class Segmenter(nn.Module):
    """Label every pixel of a picture.

    Maps pictures with values between 0 and 1, at the scale of the settings, to logits.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _encoder(config)
        channels = self.encoder_channels()
        self.decoder = nn.ModuleList(
            block(config, coarse + fine, fine)
            for coarse, fine in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(channels[0], config.classes, 1)

    def encoder_channels(self) -> list[int]:
        """Return the numbers of channels of the encoder's features, the largest features first."""
        if self.config.backbone is None:
            return list(self.config.channels)
        info: Any = self.encoder
        return list(info.feature_info.channels())

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: Any) -> "Segmenter":
        """Load sixfold's checkpoint, in eval mode."""
        from sixfold.vision.models.fdconv import SEGMENTER

        return from_pretrained(path, SEGMENTER, **settings)  # type: ignore[return-value]

    def save(self, path: str | Path) -> None:
        """Write a checkpoint that `from_pretrained` and ``sixfold train --from`` read."""
        save_pretrained(path, self, NAME, self.config)

    def forward(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch class height width"]:
        if images.ndim != 4 or images.shape[1] != 3:
            raise UserError(
                f"this Segmenter takes (batch, 3, height, width), got {tuple(images.shape)}"
            )
        features = self.encoder((images - self.config.mean) / self.config.std)
        y = features[-1]
        for step, skip in zip(self.decoder, features[-2::-1], strict=True):
            y = functional.interpolate(y, size=skip.shape[2:], mode="bilinear")
            y = step(torch.cat([y, skip], 1))
        return functional.interpolate(self.head(y), size=images.shape[2:], mode="bilinear")


class SmallEncoder(nn.Module):
    """Two convolutions a level, the first of which halves the size.

    Args:
        config: Settings of the encoder-decoder.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        pairs = zip((3, *config.channels), config.channels, strict=False)
        self.levels = nn.ModuleList(
            nn.Sequential(block(config, before, after, 2), block(config, after, after))
            for before, after in pairs
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features


def block(config: SegmenterConfig, inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Make a 3x3 convolution of the kind that the settings name, batch norm and ReLU."""
    usual: dict[str, Any] = {"stride": stride, "padding": 1, "bias": False}
    if config.conv == "fdconv":
        options = {"kernel_num": config.kernel_num, **config.layer_options()}
        conv: nn.Module = FDConv2d(inputs, outputs, 3, **usual, **options)
    elif config.conv == "dynamic" and inputs > config.use_fdconv_if_c_gt:
        conv = DynamicConv2d(inputs, outputs, 3, config.kernels, **usual)
    else:
        conv = nn.Conv2d(inputs, outputs, 3, **usual)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _encoder(config: SegmenterConfig) -> nn.Module:
    if config.backbone is None:
        return SmallEncoder(config)
    if config.conv == "dynamic":
        raise UserError("conv dynamic is for the small encoder; leave backbone unset")
    if not timm.is_model(config.backbone):
        raise UserError(f"timm has no {config.backbone!r}; timm.list_models() names what it has")
    network = timm.create_model(config.backbone, pretrained=False, features_only=True)
    return _made_dynamic(network, config)


def _made_dynamic(network: nn.Module, config: SegmenterConfig) -> nn.Module:
    if config.conv == "static":
        return network
    options = config.layer_options()
    names = convertible(network, config.kernel_num, **options)
    return convert_layers(network, names, config.kernel_num, **options)


def segmenter_from_lite0(classes: int = 11, **settings: Any) -> Segmenter:
    """Return a segmenter whose encoder is the pretrained EfficientNet-Lite0, made dynamic.

    Args:
        classes: Number of classes.
        settings: Other settings of `SegmenterConfig`.

    Raises:
        UserError: the pretrained weights are not installed, or a setting is wrong.
    """
    given = {"classes": classes, "backbone": BACKBONE, **settings}
    model = Segmenter(SegmenterConfig.parse(given, "segmenter_from_lite0"))
    model.encoder = _made_dynamic(pretrained_lite0(features_only=True), model.config)
    return model


def refuse_checkpoint(official: Any) -> Any:
    """Refuse a foreign checkpoint: nobody published weights of this network."""
    some: Sequence[str] = sorted(official)[:3]
    raise UserError(
        f"this is no checkpoint of sixfold's segmenter (its keys begin with {', '.join(some)}); "
        "train one with sixfold train vision/fdconv_seg"
    )
