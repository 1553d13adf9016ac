"""The settings of every RePaViT, and the published sizes by name.

arXiv:2505.21847; the citation is in the docstring of `sixfold.vision.models.repavit`.
"""

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from sixfold.core import Config, UserError
from sixfold.core.config import Depth

Numbers = PositiveInt | tuple[PositiveInt, ...]
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}  # of the published plain ViTs, by width


class RePaViTConfig(Config):
    """A backbone and its idle channels; the defaults are RePaViT-Base while it trains.

    Of ``embed_dim``, ``depth`` and ``num_heads``, Swin takes the last two stage by stage and
    PoolFormer the first two. A checkpoint does not hold all of it: see `from_pretrained`.
    """

    family: Literal["vit", "swin", "poolformer", "mixer", "lvvit", "timm"] = "vit"
    img_size: PositiveInt = 224
    patch_size: PositiveInt = 16  # vit, swin, mixer
    in_chans: PositiveInt = 3
    num_classes: PositiveInt = 1000
    embed_dim: Numbers = 768
    depth: Depth | tuple[Depth, ...] = 12
    num_heads: Numbers | None = 12  # vit, swin, lvvit; None: that of the published ViT this wide
    mlp_ratio: float = Field(default=4.0, gt=0)
    window_size: PositiveInt = 7  # swin
    pool_size: PositiveInt = 7  # poolformer; the original PoolFormer has 3
    layer_scale: float = 1e-5  # poolformer, at the start
    drop_path_rate: float = Field(default=0.1, ge=0, lt=1)
    architecture: str | None = None  # timm: its name there, e.g. deit3_small_patch16_224
    options: dict[str, Any] = Field(default={})  # timm: other arguments of its create_model
    vanilla: bool = False  # the backbone as it is, without idle channels
    idle_ratio: float | None = Field(default=0.75, ge=0, le=1)  # theta
    heuristic: Literal["static", "linear"] = "static"
    active: tuple[NonNegativeInt, ...] | None = None  # block by block; None: by the idle ratio
    feature_norm: Literal["BatchNorm", "LayerNorm"] = "BatchNorm"
    merged: bool = False
    classes: tuple[str, ...] = ()  # their names, if they are known
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN  # of the channels of pictures in [0, 1]
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    crop: float = Field(default=0.875, gt=0, le=1)  # share of the shorter side that is seen

    @model_validator(mode="after")
    def _fits(self) -> "RePaViTConfig":
        if self.merged and self.vanilla:
            raise ValueError("a vanilla model has nothing to merge")
        if self.merged and self.feature_norm == "LayerNorm":
            raise ValueError("a model with LayerNorm cannot be merged")
        if (self.family == "timm") != (self.architecture is not None):
            raise ValueError("architecture goes with family timm, and family timm needs it")
        stages = {"swin": ("depth", "num_heads"), "poolformer": ("depth", "embed_dim")}
        names = stages.get(self.family, ())
        lengths = {len(v) if isinstance(v := getattr(self, n), tuple) else 0 for n in names}
        if names and (0 in lengths or len(lengths) > 1):
            raise ValueError(f"{self.family} has {' and '.join(names)} for each of its stages")
        return self

    def heads(self) -> int | tuple[int, ...]:
        """Return the number of attention heads.

        Raises:
            UserError: it is not known.
        """
        if self.num_heads is not None:
            return self.num_heads
        if isinstance(self.embed_dim, int) and self.embed_dim in HEADS:
            return HEADS[self.embed_dim]
        raise UserError(
            f"the number of attention heads is not known: no published ViT has the width "
            f"{self.embed_dim}; say it: from_pretrained(path, num_heads=3)"
        )

    def ratio(self) -> float:
        """Return the idle ratio.

        Raises:
            UserError: it is not known.
        """
        if self.idle_ratio is None:
            raise UserError(
                "the idle ratio is not known, the shapes of the training form do not show it; say "
                "it: from_pretrained(path, idle_ratio=0.75), published: 0.5 for Tiny and Small, "
                "else 0.75"
            )
        return self.idle_ratio


def _vit(embed_dim: int, depth: int, num_heads: int, **more: Any) -> RePaViTConfig:
    return RePaViTConfig(embed_dim=embed_dim, depth=depth, num_heads=num_heads, **more)


def _swin(embed_dim: int, middle: int, heads: int) -> RePaViTConfig:
    return RePaViTConfig(
        family="swin",
        patch_size=4,
        embed_dim=embed_dim,
        depth=(2, 2, middle, 2),
        num_heads=(heads, 2 * heads, 4 * heads, 8 * heads),
    )


def _poolformer(width: int, depth: int, layer_scale: float = 1e-6) -> RePaViTConfig:
    return RePaViTConfig(
        family="poolformer",
        embed_dim={64: (64, 128, 320, 512), 96: (96, 192, 384, 768)}[width],
        depth=(depth, depth, 3 * depth, depth),
        layer_scale=layer_scale,
    )


def _mixer(embed_dim: int, depth: int, patch_size: int) -> RePaViTConfig:
    return RePaViTConfig(family="mixer", embed_dim=embed_dim, depth=depth, patch_size=patch_size)


def _lvvit(embed_dim: int, depth: int, num_heads: int) -> RePaViTConfig:
    return RePaViTConfig(
        family="lvvit",
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=3.0,
        idle_ratio=2 / 3,  # what the paper's counts mean with "0.75": as many active as the width
    )


SIZES = {
    "vit_tiny": _vit(192, 12, 3, idle_ratio=0.5),
    "vit_small": _vit(384, 12, 6, idle_ratio=0.5),
    "vit_base": RePaViTConfig(),
    "vit_large": _vit(1024, 24, 16, drop_path_rate=0.3),
    "vit_huge": _vit(1280, 32, 16, drop_path_rate=0.3),
    "swin_tiny": _swin(96, 6, 3),
    "swin_small": _swin(96, 18, 3),
    "swin_base": _swin(128, 18, 4),
    "poolformer_s12": _poolformer(64, 2, 1e-5),
    "poolformer_s24": _poolformer(64, 4, 1e-5),
    "poolformer_s36": _poolformer(64, 6),
    "poolformer_m36": _poolformer(96, 6),
    "poolformer_m48": _poolformer(96, 8),
    "mixer_s32": _mixer(512, 8, 32),
    "mixer_s16": _mixer(512, 8, 16),
    "mixer_b32": _mixer(768, 12, 32),
    "mixer_b16": _mixer(768, 12, 16),
    "mixer_l32": _mixer(1024, 24, 32),
    "mixer_l16": _mixer(1024, 24, 16),
    "lvvit_s": _lvvit(384, 16, 6),
    "lvvit_m": _lvvit(512, 20, 8),
}
