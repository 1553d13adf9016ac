"""The published sizes in timm's registry: ``timm.create_model("repa_vit_base")``."""

from collections.abc import Callable
from typing import Any

from timm.models import is_model, register_model
from timm.models._builder import build_model_with_cfg
from torch import nn

from sixfold.core import UserError
from sixfold.vision.models.repavit.backbones import describe_backbone
from sixfold.vision.models.repavit.config import SIZES
from sixfold.vision.models.repavit.plugin import convert

PREFIX = "repa_"


def register() -> list[str]:
    """Add RePaViT's sizes to timm's registry, and return their names; again changes nothing.

    ``timm.create_model`` then takes ``idle_ratio``, ``heuristic`` and ``feature_norm`` besides the
    arguments of the backbone; the default ratio is the published one.
    """
    names = [PREFIX + size for size in SIZES]
    for size, name in zip(SIZES, names, strict=True):
        if not is_model(name):
            register_model(_entry_point(size, name))
    return names


def _entry_point(size: str, name: str) -> Callable[..., nn.Module]:
    config = SIZES[size]

    def create(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
        idle_ratio: float | None = None,
        heuristic: Any = "static",
        feature_norm: Any = "BatchNorm",
        **settings: Any,
    ) -> nn.Module:
        if pretrained:
            raise UserError(
                f"no weights of {name} are published; load a checkpoint of yours by "
                "RePaViT.from_pretrained(path)"
            )
        backbone, known = describe_backbone(config)
        model = build_model_with_cfg(
            backbone,
            name,
            pretrained=False,
            pretrained_cfg={"architecture": name, "input_size": (3, 224, 224), "crop_pct": 0.875},
            feature_cfg=_FEATURES.get(config.family, {}),
            **known | settings,
        )
        ratio = config.ratio() if idle_ratio is None else idle_ratio
        return convert(model, ratio, heuristic, feature_norm)

    create.__name__ = name
    create.__doc__ = f"RePaViT's {size} while it trains."
    return create


_FEATURES = {
    "vit": {"out_indices": 3, "feature_cls": "getter"},
    "mixer": {"out_indices": 3, "feature_cls": "getter"},
    "swin": {"out_indices": (0, 1, 2, 3), "flatten_sequential": True},
    "poolformer": {"out_indices": (0, 1, 2, 3), "flatten_sequential": True},
}
