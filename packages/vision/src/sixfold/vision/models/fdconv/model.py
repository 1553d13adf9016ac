"""Backbones and classifiers with frequency dynamic convolution, arXiv:2503.18783.

The paper's is ResNet-50 whose bottlenecks are dynamic; any other network of timm may be named.
"""

from pathlib import Path
from typing import Any

import timm
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from sixfold.core import UserError, from_pretrained
from sixfold.core.weights.convert import save_pretrained
from sixfold.vision.models.fdconv.convert import (
    Filter,
    convert_layers,
    convertible,
    default_filter,
)
from sixfold.vision.models.fdconv.options import FDConvOptions

NAME = "fdconv"


class FDConvConfig(FDConvOptions):
    """A network of timm, and how its convolutions become dynamic; the defaults are the paper's.

    Args:
        backbone: Name of the network in timm.
        num_classes: Number of classes; 0 ends with pooled features.
        in_chans: Number of channels of a picture.
        kernel_num: Number of frequency groups.
        layers: Names of the dynamic layers; None is those of `default_filter`.
    """

    backbone: str = "resnet50"
    num_classes: int = Field(default=0, ge=0)
    in_chans: int = Field(default=3, ge=1)
    kernel_num: int | None = Field(default=64, ge=1)
    layers: tuple[str, ...] | None = None

    def layer_options(self) -> dict[str, Any]:
        """Return the settings of each layer but for the number of groups."""
        chosen = self.model_fields_set & (FDConvOptions.model_fields.keys() - {"kernel_num"})
        return {key: getattr(self, key) for key in sorted(chosen)}


class FDConvNet(nn.Module):
    """A network of timm whose convolutions are frequency dynamic.

    Maps pictures, normalised as the network wants them, to logits or, without classes, to features.

    Raises:
        UserError: timm has no such network, or it has nothing to convert.
    """

    def __init__(self, config: FDConvConfig) -> None:
        super().__init__()
        self.config = config
        if not timm.is_model(config.backbone):
            near = ", ".join(timm.list_models(f"*{config.backbone.partition('.')[0]}*")[:5])
            raise UserError(f"timm has no {config.backbone!r}; near it are: {near or 'none'}")
        self.network = timm.create_model(
            config.backbone,
            pretrained=False,
            num_classes=config.num_classes,
            in_chans=config.in_chans,
        )
        make_dynamic(self.network, config)

    @classmethod
    def from_timm(
        cls,
        network: nn.Module,
        kernel_num: int | None = 64,
        filter: Filter = default_filter,
        **options: Any,
    ) -> "FDConvNet":
        """Convert a network that timm made, with its weights, into one that saves and loads.

        Args:
            network: Network of `timm.create_model`, left as it is.
            kernel_num: Number of frequency groups.
            filter: Function of name and module that chooses layers, as for `convert`.
            options: Other settings of `FDConvOptions`.
        """
        known: Any = network
        names = convertible(network, kernel_num, filter, **options)
        settings = {
            "backbone": known.pretrained_cfg["architecture"],
            "num_classes": known.num_classes,
            "in_chans": next(iter(network.parameters())).shape[1],
            "kernel_num": kernel_num,
            "layers": tuple(names),
        }
        made = cls(FDConvConfig.parse({**settings, **options}, "FDConvNet"))
        plain = network.state_dict()
        for name in names:
            layer: Any = made.network.get_submodule(name)
            layer.begin_as(plain.pop(f"{name}.weight").view(layer.kernel_shape))
        left = made.network.load_state_dict(plain, strict=False).unexpected_keys
        if left:
            raise UserError(f"{settings['backbone']} as timm makes it has no {', '.join(left)}")
        return made.train(network.training)

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: Any) -> "FDConvNet":
        """Load sixfold's or an official checkpoint, in eval mode.

        Args:
            path: Path of the checkpoint; of an official detector its backbone is taken.
            settings: Settings that an official checkpoint does not hold.
        """
        from sixfold.vision.models.fdconv import SYSTEM

        return from_pretrained(path, SYSTEM, **settings)  # type: ignore[return-value]

    def save(self, path: str | Path) -> None:
        """Write a checkpoint that `from_pretrained` reads."""
        save_pretrained(path, self, NAME, self.config)

    def forward(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch output"]:
        if images.ndim != 4 or images.shape[1] != self.config.in_chans:
            raise UserError(
                f"this FDConvNet takes (batch, {self.config.in_chans}, height, width), got "
                f"{tuple(images.shape)}"
            )
        return self.network(images)


def make_dynamic(network: nn.Module, config: FDConvConfig) -> None:
    """Make the layers of a network dynamic that the settings name, in place."""
    options = config.layer_options()
    names = config.layers
    if names is None:
        names = tuple(convertible(network, config.kernel_num, **options))
    if not names:
        raise UserError(f"{config.backbone} has no convolution that could be made dynamic")
    convert_layers(network, list(names), config.kernel_num, **options)
