"""The blocks of timm whose feed-forward branch can be converted, and each with a merged branch.

A block is ``x + attention(x)`` followed by ``x + drop(scale * mlp(norm(x)))``. While it trains
only ``norm`` and ``mlp`` are others. Merged, ``mlp`` is the whole second branch with its shortcut,
so the block needs a forward pass of its own: a subclass here.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from timm.layers import GluMlp, Mlp, SwiGLU
from timm.layers.activations import GELU
from timm.models import (
    beit,
    eva,
    metaformer,
    mlp_mixer,
    swin_transformer,
    swin_transformer_v2,
    swin_transformer_v2_cr,
    vision_transformer,
    vision_transformer_relpos,
)
from torch import Tensor, nn

from sixfold.vision.models.repavit.lvvit import LVBlock
from sixfold.vision.models.repavit.mixer import TokenNormBlock


class MergedViTBlock(vision_transformer.Block):
    """Block of ViT, DeiT and DeiT-3."""

    def forward(self, x: Tensor, **mask: Any) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), **mask)))
        return self.mlp(x)


class MergedRelPosBlock(vision_transformer_relpos.RelPosBlock):
    """Block of a ViT with relative positions."""

    def forward(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        branch = self.attn(self.norm1(x), shared_rel_pos=shared_rel_pos)
        return self.mlp(x + self.drop_path1(self.ls1(branch)))


class MergedBeitBlock(beit.Block):
    """Block of BEiT."""

    def forward(self, x: Tensor, shared_rel_pos_bias: Tensor | None = None) -> Tensor:
        branch = self.attn(self.norm1(x), shared_rel_pos_bias=shared_rel_pos_bias)
        branch = branch if self.gamma_1 is None else self.gamma_1 * branch
        return self.mlp(x + self.drop_path1(branch))


class MergedEvaBlock(eva.EvaBlock):
    """Block of EVA and DINOv3, where its FFN is not gated."""

    def forward(self, x: Tensor, *settings: Any, **named: Any) -> Tensor:
        branch = self.attn(self.norm1(x), *settings, **named)
        branch = branch if self.gamma_1 is None else self.gamma_1 * branch
        return self.mlp(x + self.drop_path1(branch))


class MergedSwinBlock(swin_transformer.SwinTransformerBlock):
    """Block of Swin, on maps (batch, height, width, channel)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x + self.drop_path1(self._attn(self.norm1(x))))


class MergedMetaFormerBlock(metaformer.MetaFormerBlock):
    """Block of PoolFormer, on maps (batch, channel, height, width)."""

    def forward(self, x: Tensor) -> Tensor:
        branch = self.layer_scale1(self.drop_path1(self.token_mixer(self.norm1(x))))
        return self.mlp(self.res_scale1(x) + branch)


class MergedMixerBlock(mlp_mixer.MixerBlock):
    """Block of MLP-Mixer; its channel MLP is merged."""

    def forward(self, x: Tensor) -> Tensor:
        branch = self.mlp_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return self.mlp_channels(x + self.drop_path(branch))


class MergedTokenNormBlock(TokenNormBlock):
    """Block of RePaViT's MLP-Mixer; its channel MLP is merged."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp_channels(self.mix_tokens(x))


class MergedLVBlock(LVBlock):
    """Block of LV-ViT."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.attend(x))


def _layer_scale(block: Any) -> Tensor | float:
    return getattr(block.ls2, "gamma", 1.0)


def _gamma(block: Any) -> Tensor | float:
    return 1.0 if block.gamma_2 is None else block.gamma_2


def _metaformer_scale(block: Any) -> Tensor | float:
    return getattr(block.layer_scale2, "scale", 1.0)


class Form(NamedTuple):
    """Where a kind of block has the parts of its feed-forward branch.

    Args:
        merged: Class of the block with a merged branch.
        scale: Function that returns the scale of the branch.
        behind: Names of what follows the branch, which a merge removes.
        mlp: Name of the feed-forward block.
        rounding: Function from the product of width and active share to a number of channels.
    """

    merged: type[nn.Module]
    scale: Callable[[Any], Tensor | float] = lambda _: 1.0
    behind: tuple[str, ...] = ("drop_path2",)
    mlp: str = "mlp"
    rounding: Callable[[float], int] = math.ceil


FORMS: dict[type[nn.Module], Form] = {
    vision_transformer.Block: Form(MergedViTBlock, _layer_scale, ("ls2", "drop_path2")),
    vision_transformer_relpos.RelPosBlock: Form(
        MergedRelPosBlock, _layer_scale, ("ls2", "drop_path2")
    ),
    beit.Block: Form(MergedBeitBlock, _gamma, ("gamma_2", "drop_path2")),
    eva.EvaBlock: Form(MergedEvaBlock, _gamma, ("gamma_2", "drop_path2")),
    swin_transformer.SwinTransformerBlock: Form(MergedSwinBlock),
    metaformer.MetaFormerBlock: Form(
        MergedMetaFormerBlock,
        _metaformer_scale,
        ("layer_scale2", "res_scale2", "drop_path2"),
        rounding=math.floor,  # as the published code
    ),
    mlp_mixer.MixerBlock: Form(MergedMixerBlock, behind=(), mlp="mlp_channels"),
    TokenNormBlock: Form(MergedTokenNormBlock, behind=(), mlp="mlp_channels"),
    LVBlock: Form(
        MergedLVBlock,
        lambda block: 1.0 / block.skip_lam,
        behind=(),
        rounding=math.floor,  # 2/3 of three times the width idle: the rest is the width
    ),
}

_PARALLEL = "its branches are parallel, so no shortcut surrounds the FFN alone"
_NORM_BEHIND = "its norm comes after the FFN, so it cannot be folded into the first layer"
_GATED = "its FFN is gated: a product of two layers has no linear path to merge"
REASONS: dict[type[nn.Module], str] = {
    vision_transformer.ParallelScalingBlock: _PARALLEL,
    vision_transformer.DiffParallelScalingBlock: _PARALLEL,
    vision_transformer.ParallelThingsBlock: _PARALLEL,
    vision_transformer.ResPostBlock: _NORM_BEHIND,
    vision_transformer_relpos.ResPostRelPosBlock: _NORM_BEHIND,
    eva.EvaBlockPostNorm: _NORM_BEHIND,
    swin_transformer_v2.SwinTransformerV2Block: _NORM_BEHIND,
    swin_transformer_v2_cr.SwinTransformerV2CrBlock: _NORM_BEHIND,
}
GATED = (GluMlp, SwiGLU)


def why_not(block: nn.Module) -> str | None:
    """Say why the feed-forward branch of a block cannot be converted.

    Returns:
        The reason; None if it can be, or if the module has no such branch.
    """
    if type(block) in REASONS:
        return REASONS[type(block)]
    form = FORMS.get(type(block))
    mlp: Any = getattr(block, form.mlp if form else "mlp", None)
    if isinstance(mlp, GATED):
        return _GATED
    if form is None:
        is_block = "Block" in type(block).__name__ and hasattr(mlp, "fc1")
        return "the order of its parts is not known" if is_block else None
    if isinstance(getattr(block, "res_scale2", None), metaformer.Scale):
        return "its shortcut is scaled"
    return _why_not_mlp(mlp)


def _why_not_mlp(mlp: nn.Module | None) -> str | None:
    if not isinstance(mlp, Mlp):
        return f"its FFN is a {type(mlp).__name__}"
    exact = isinstance(mlp.act, nn.GELU) and mlp.act.approximate == "none"
    if not exact and not isinstance(mlp.act, GELU):
        return f"its FFN has {type(mlp.act).__name__}, not the exact GELU"
    if not isinstance(mlp.norm, nn.Identity):
        return f"its FFN has a norm of its own ({type(mlp.norm).__name__})"
    kernels = {layer.kernel_size for layer in (mlp.fc1, mlp.fc2) if isinstance(layer, nn.Conv2d)}
    return None if kernels <= {(1, 1)} else "its FFN has a convolution that is not 1x1"
