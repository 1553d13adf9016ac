"""The block of RePaViT's MLP-Mixer: its token MLP has a LayerNorm over the tokens."""

from functools import partial
from typing import Any

from jaxtyping import Float
from timm.models.mlp_mixer import MixerBlock
from torch import Tensor, nn


class TokenNormBlock(MixerBlock):
    """Mixer block as published with RePaViT: the first norm is over the tokens of a channel.

    timm's is over the channels of a token. Both norms have eps 1e-5 here.

    Args:
        dim: Number of channels.
        seq_len: Number of tokens.
        settings: Other settings of timm's block.
    """

    def __init__(self, dim: int, seq_len: int, *settings: Any, **named: Any) -> None:
        named["norm_layer"] = partial(nn.LayerNorm, eps=1e-5)
        super().__init__(dim, seq_len, *settings, **named)
        self.norm1 = nn.LayerNorm(seq_len, eps=1e-5)

    def mix_tokens(
        self, x: Float[Tensor, "batch token channel"]
    ) -> Float[Tensor, "batch token channel"]:
        """Apply the first branch."""
        branch = self.mlp_tokens(self.norm1(x.transpose(1, 2)))
        return x + self.drop_path(branch).transpose(1, 2)

    def forward(
        self, x: Float[Tensor, "batch token channel"]
    ) -> Float[Tensor, "batch token channel"]:
        x = self.mix_tokens(x)
        return x + self.drop_path(self.mlp_channels(self.norm2(x)))
