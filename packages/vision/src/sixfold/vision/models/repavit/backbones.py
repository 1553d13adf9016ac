"""The five families of the paper, from timm's parts: what the settings mean to each class."""

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
from jaxtyping import Float
from timm.layers import GroupNorm1, LayerNorm
from timm.models.metaformer import MetaFormer, Pooling
from timm.models.mlp_mixer import MlpMixer
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from sixfold.core import UserError
from sixfold.core.messages import printable, shorten
from sixfold.vision.models.repavit.config import RePaViTConfig
from sixfold.vision.models.repavit.lvvit import LVViT
from sixfold.vision.models.repavit.mixer import TokenNormBlock

Made = tuple[type[nn.Module], dict[str, Any]]


class PoolFormer(MetaFormer):
    """PoolFormer as published: the last norm is over the map, before it is averaged."""

    def forward_head(
        self, x: Float[Tensor, "batch channel height width"], pre_logits: bool = False
    ) -> Tensor:
        """Return logits, or with ``pre_logits`` what the classifier reads."""
        head: Any = self.head
        x = head.drop(head.flatten(head.global_pool(head.norm(x))))
        return x if pre_logits else head.fc(x)


def build_backbone(config: RePaViTConfig) -> nn.Module:
    """Build the backbone without idle channels.

    Raises:
        UserError: timm has no such architecture, or it does not take these settings.
    """
    try:
        if config.family == "timm":
            sizes = {"num_classes": config.num_classes, "in_chans": config.in_chans}
            return timm.create_model(str(config.architecture), **sizes, **config.options)
        backbone, settings = describe_backbone(config)
        return backbone(**settings)
    except (AssertionError, RuntimeError, TypeError) as error:
        name = config.architecture or config.family
        reason = shorten(printable(str(error).partition("\n")[0]), 150)
        raise UserError(f"a {name} cannot have these settings: {reason}") from None


def describe_backbone(config: RePaViTConfig) -> Made:
    """Return the class of a backbone that is not timm's own, and its arguments."""
    common = {
        "num_classes": config.num_classes,
        "in_chans": config.in_chans,
        "drop_path_rate": config.drop_path_rate,
    }
    backbone, settings = _FAMILIES[config.family](config)
    return backbone, common | settings


def _vit(config: RePaViTConfig) -> Made:
    return VisionTransformer, {
        "img_size": config.img_size,
        "patch_size": config.patch_size,
        "embed_dim": config.embed_dim,
        "depth": config.depth,
        "num_heads": config.heads(),
        "mlp_ratio": config.mlp_ratio,
        "pre_norm": True,
        "norm_layer": partial(LayerNorm, eps=1e-6),
        "block_fn": _vit_block,
    }


def _vit_block(**settings: Any) -> nn.Module:
    """Make a block: its norms have an eps of their own, 1e-5."""
    settings["norm_layer"] = partial(LayerNorm, eps=1e-5)
    return Block(**settings)


def _swin(config: RePaViTConfig) -> Made:
    return SwinTransformer, {
        "img_size": config.img_size,
        "patch_size": config.patch_size,
        "embed_dim": config.embed_dim,
        "depths": config.depth,
        "num_heads": config.heads(),
        "window_size": config.window_size,
        "mlp_ratio": config.mlp_ratio,
    }


def _poolformer(config: RePaViTConfig) -> Made:
    return PoolFormer, {
        "depths": config.depth,
        "dims": config.embed_dim,
        "token_mixers": Pooling,
        "pool_size": config.pool_size,
        "mlp_act": nn.GELU,
        "mlp_bias": True,
        "layer_scale_init_values": config.layer_scale,
        "res_scale_init_values": None,
        "downsample_norm": None,
        "norm_layers": GroupNorm1,
        "output_norm": GroupNorm1,
        "use_mlp_head": False,
    }


def _mixer(config: RePaViTConfig) -> Made:
    return MlpMixer, {
        "img_size": config.img_size,
        "patch_size": config.patch_size,
        "embed_dim": config.embed_dim,
        "num_blocks": config.depth,
        "mlp_ratio": (0.5, config.mlp_ratio),
        "block_layer": TokenNormBlock,
    }


def _lvvit(config: RePaViTConfig) -> Made:
    return LVViT, {
        "img_size": config.img_size,
        "embed_dim": config.embed_dim,
        "depth": config.depth,
        "num_heads": config.heads(),
        "mlp_ratio": config.mlp_ratio,
    }


_FAMILIES: dict[str, Callable[[RePaViTConfig], Made]] = {
    "vit": _vit,
    "swin": _swin,
    "poolformer": _poolformer,
    "mixer": _mixer,
    "lvvit": _lvvit,
}
