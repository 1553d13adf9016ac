"""Dropout whose random bits are cheap on a CPU.

PyTorch draws one number a value there, which takes as long as the matrix products around it. Here
one 64-bit draw decides on four values, each by 16 bits of it.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

LEVELS = 1 << 16


class Dropout(nn.Dropout):
    """Zero values with probability ``p``, rounded to a 65,536th, and scale the others up.

    On a GPU and in a compiled graph it is PyTorch's own, which is fused there.
    """

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if not self.training or self.p == 0:
            return x
        if x.is_cuda or torch.compiler.is_compiling():
            return nn.functional.dropout(x, self.p)
        dropped = max(round(self.p * LEVELS), 1)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        # as bytes, which multiply faster than bools
        kept = (bits >= dropped - LEVELS // 2).view(torch.int8)
        return (x * kept).mul_(LEVELS / (LEVELS - dropped))
