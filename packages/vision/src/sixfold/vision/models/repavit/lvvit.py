"""LV-ViT, one of RePaViT's backbones; timm has none.

Z. Jiang et al., "All Tokens Matter: Token Labeling for Training Better Vision Transformers",
NeurIPS 2021. arXiv:2104.10858. RePaViT's variant was never released: the number of parameters is
the paper's, parity is not claimed.
"""

from typing import cast

import torch
from jaxtyping import Float
from timm.layers import Attention, DropPath, Mlp, calculate_drop_path_rates, trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Tokens = Float[Tensor, "batch token channel"]


class LVViT(nn.Module):
    """Classify pictures by their class token and, at half the weight, by their best token.

    Args:
        img_size: Height and width of the pictures.
        num_classes: Number of classes.
        in_chans: Number of channels of the pictures.
        embed_dim: Number of channels of a token.
        depth: Number of blocks.
        num_heads: Number of attention heads.
        mlp_ratio: Width of the hidden layers over that of a token.
        drop_path_rate: Stochastic depth of the last block; linear from 0.
        skip_lam: Divisor of both branches of a block.
    """

    def __init__(
        self,
        img_size: int = 224,
        num_classes: int = 1000,
        in_chans: int = 3,
        embed_dim: int = 384,
        depth: int = 16,
        num_heads: int = 6,
        mlp_ratio: float = 3.0,
        drop_path_rate: float = 0.1,
        skip_lam: float = 2.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_features = num_classes, embed_dim
        self.grad_checkpointing = False
        self.stem = Stem(in_chans, embed_dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.empty(1, (img_size // 16) ** 2 + 1, embed_dim))
        rates = cast(list[float], calculate_drop_path_rates(drop_path_rate, depth))
        self.blocks = nn.Sequential(
            *(LVBlock(embed_dim, num_heads, mlp_ratio, rate, skip_lam) for rate in rates)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)
        self.aux_head = nn.Linear(embed_dim, num_classes)
        self.apply(_init_layer)
        trunc_normal_(self.cls_token, std=0.02)
        trunc_normal_(self.pos_embed, std=0.02)

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters that weight decay leaves alone."""
        return {"cls_token", "pos_embed"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory: compute each block again in the backward pass."""
        self.grad_checkpointing = enable

    def forward_features(self, images: Float[Tensor, "batch 3 height width"]) -> Tokens:
        """Return the tokens after the last norm, the class token first."""
        x = self.stem(images)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.grad_checkpointing else block(x)
        return self.norm(x)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch class"]:
        x = self.forward_features(images)
        return self.head(x[:, 0]) + 0.5 * self.aux_head(x[:, 1:]).amax(1)


class Stem(nn.Sequential):
    """Three convolutions at half the resolution, then patches of 8 x 8: 16 x 16 pixels a token."""

    def __init__(self, in_chans: int, embed_dim: int) -> None:
        layers: list[nn.Module] = []
        for channels, kernel, stride in ((in_chans, 7, 2), (64, 3, 1), (64, 3, 1)):
            layers += [
                nn.Conv2d(channels, 64, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(64),
                nn.ReLU(),
            ]
        super().__init__(*layers, nn.Conv2d(64, embed_dim, 8, 8), nn.Flatten(2))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Tokens:
        return super().forward(images).transpose(1, 2)


class LVBlock(nn.Module):
    """Transformer block whose two branches are divided by ``skip_lam``."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, drop_path: float, skip_lam: float
    ) -> None:
        super().__init__()
        self.skip_lam = skip_lam
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads=num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def attend(self, x: Tokens) -> Tokens:
        """Apply the first branch."""
        return x + self.drop_path(self.attn(self.norm1(x))) / self.skip_lam

    def forward(self, x: Tokens) -> Tokens:
        x = self.attend(x)
        return x + self.drop_path(self.mlp(self.norm2(x))) / self.skip_lam


def _init_layer(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
