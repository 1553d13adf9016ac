"""Dropout whose random bits are cheap on a CPU.

PyTorch draws one number a value there, which takes as long as the matrix products around it. Here
one 64-bit draw decides on four values, each by 16 bits of it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

LEVELS = 1 << 16


class Dropout(nn.Dropout):
    """Zero values with probability ``p``, rounded to a 65,536th, and scale the others up.

    On a GPU it is PyTorch's own.
    """

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if not self.training or self.p == 0:
            return x
        if x.is_cuda:
            return nn.functional.dropout(x, self.p)
        dropped = max(round(self.p * LEVELS), 1)
        return (x * draw_kept(x.shape, dropped)).mul_(LEVELS / (LEVELS - dropped))


@torch.library.custom_op(
    "sixfold::draw_kept", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,)
)
def draw_kept(shape: Sequence[int], dropped: int) -> Tensor:
    """Return ones, and zeros in ``dropped`` of 65,536 places, at random.

    As bytes, which multiply faster than bools. An operator, since a compiler would else split its
    graph where a generator is drawn from.
    """
    kept = torch.empty(shape, dtype=torch.int8)
    words = torch.empty(-(-kept.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: kept.numel()].view(kept.shape)
    return torch.ge(bits, dropped - LEVELS // 2, out=kept.view(torch.bool)).view(torch.int8)


@draw_kept.register_fake
def _(shape: Sequence[int], dropped: int) -> Tensor:
    return torch.empty(shape, dtype=torch.int8)
