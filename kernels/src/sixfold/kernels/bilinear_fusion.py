"""Multi-head bilinear fusion: out = sum over heads of x_h^T W_h y_h (FinalMLP's interaction).

The literal ``matmul`` broadcasts x to (batch, heads, 1, size): a matrix product of one row for
each item and head, which reads the head's weights again for every item. Here the items are the
rows of one product per head, so the weights are read once a batch. Heads of a few coordinates make
products too thin to pay; then several heads form one product with a block-diagonal weight.
"""

import torch
from jaxtyping import Float
from torch import Tensor

PRODUCT_WIDTH = 64  # heads are joined up to so many rows and columns


def bilinear_fusion(
    x: Float[Tensor, "batch x_size"],
    y: Float[Tensor, "batch y_size"],
    weight: Float[Tensor, "entries out"],
    *,
    heads: int,
) -> Float[Tensor, "batch out"]:
    """Fuse two vectors by one bilinear form per head and output, summed over the heads.

    Head h reads the h-th contiguous chunk of x and of y. The stored shape of the weight is the
    official one and says little: the numbers lie, row by row, in the order (heads, x of the head,
    out, y of the head), the outputs *between* x and y.

    Args:
        x: First stream.
        y: Second stream.
        weight: Bilinear forms, ``x_size * y_size / heads`` entries for each output.
        heads: Number of chunks that each stream is cut into.

    Raises:
        ValueError: heads do not divide a stream, the streams differ in their rows, or the weight
            has another number of entries.
    """
    (batch, x_size), y_size, out = x.shape, y.shape[1], weight.shape[1]
    if heads < 1 or x_size % heads or y_size % heads:
        raise ValueError(
            f"bilinear_fusion: {heads} heads should divide both streams, of {x_size} and {y_size} "
            "coordinates; choose a common divisor"
        )
    if y.shape[0] != batch:
        raise ValueError(f"bilinear_fusion: x has {batch} rows and y {y.shape[0]}; give as many")
    if weight.shape[0] != x_size * y_size // heads:
        raise ValueError(
            f"bilinear_fusion: streams of {x_size} and {y_size} coordinates in {heads} heads need "
            f"a weight of {x_size * y_size // heads} entries an output, got {weight.shape[0]}"
        )
    x_head, y_head = x_size // heads, y_size // heads
    joined = _joined_heads(heads, max(x_head, out * y_head))
    blocks = weight.reshape(heads, x_head, out * y_head)
    if joined > 1:
        blocks = _block_diagonal(blocks.unflatten(0, (-1, joined)))
    rows = x.reshape(batch, heads // joined, joined * x_head).transpose(0, 1)
    # laid out as y is: its gradient then needs no transposition
    forms = torch.bmm(rows, blocks).transpose(0, 1).reshape(batch, heads, out, y_head)
    return (forms.transpose(1, 2).reshape(batch, out, y_size) * y[:, None]).sum(2)


def _joined_heads(heads: int, width: int) -> int:
    """Return the largest divisor of ``heads`` that keeps a joined product within its width."""
    divisors = [n for n in range(1, heads + 1) if heads % n == 0]
    return max(n for n in divisors if n == 1 or n * width <= PRODUCT_WIDTH)


def _block_diagonal(
    blocks: Float[Tensor, "products joined rows columns"],
) -> Float[Tensor, "products all_rows all_columns"]:
    eye = torch.eye(blocks.shape[1], dtype=blocks.dtype, device=blocks.device)
    return (blocks[:, :, :, None] * eye[:, None, :, None]).flatten(3).flatten(1, 2)
