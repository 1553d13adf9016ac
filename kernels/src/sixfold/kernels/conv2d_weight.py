"""The weight gradient of a two-dimensional convolution, fast for channels-last tensors on a CPU.

PyTorch's own gradient is far slower than its forward pass there. Here the gradient is one matrix
product a tap, (out, positions) by (positions, in), at that product's speed. Nothing is gathered
for a tap: with the input's rows as long as the padded ones, and the gradient's rows stretched to
the same length by zeros, a tap is the same memory at another offset. A stride is a reordering into
phases, done in the one copy that pads.
"""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

CHUNK = 2**20  # numbers of the input in a chunk: its copies stay in the cache, and memory small


def conv2d_weight(
    x: Float[Tensor, "batch in height width"],
    shape: tuple[int, int, int, int] | torch.Size,
    grad: Float[Tensor, "batch out height_out width_out"],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> Float[Tensor, "out in_group kh kw"]:
    """Compute what ``torch.nn.grad.conv2d_weight`` computes, without dilation.

    Args:
        x: Input of the convolution.
        shape: Shape of the convolution's weight, and so of the result.
        grad: Gradient of the convolution's output.
        stride: Stride along height and width.
        padding: Number of zeros on either side of height and width.
        groups: Number of groups of channels.
    """
    kernel, total = shape[2:], x.new_zeros(shape[2], shape[3], shape[0], shape[1])
    rows = max(1, CHUNK // max(1, stride[0] * x[:, :, 0].numel()))  # of the output, in a chunk
    for first, sent in zip(itertools.count(0, rows), grad.split(rows, 2), strict=False):
        top = first * stride[0] - padding[0]
        bottom = top + (sent.shape[2] - 1) * stride[0] + kernel[0]
        seen = x[:, :, max(0, top) : bottom]
        above, below = max(0, -top), max(0, bottom - x.shape[2])
        sides = (padding[1], padding[1], above, below)
        total += _products(functional.pad(seen, sides), sent, kernel, stride, groups)
    return total.permute(2, 3, 0, 1)


def _products(x: Tensor, grad: Tensor, kernel, stride, groups: int) -> Tensor:
    """Return the weight's gradient (kh, kw, out, in_group) for a padded input."""
    (out, *sizes), inputs = grad.shape[1:], x.shape[1] // groups
    # Rows and columns of a phase: enough for the taps of every position, and for all of x.
    height, width = (
        max(g + (k - 1) // s, -(-n // s))
        for g, k, s, n in zip(sizes, kernel, stride, x.shape[2:], strict=True)
    )
    below, right = stride[0] * height - x.shape[2], stride[1] * width - x.shape[3]
    rows = functional.pad(x.permute(0, 2, 3, 1), (0, 0, 0, right, 0, below))
    phases = rows.unflatten(2, (width, stride[1])).unflatten(1, (height, stride[0]))
    phases = phases.permute(2, 4, 0, 1, 3, 5).reshape(*stride, -1, groups, inputs)
    sent = functional.pad(
        grad.permute(0, 2, 3, 1), (0, 0, 0, width - sizes[1], 0, height - sizes[0])
    )
    sent = sent.reshape(-1, groups, out // groups).permute(1, 2, 0)
    taps = []
    for i, j in itertools.product(*map(range, kernel)):
        first = i // stride[0] * width + j // stride[1]
        seen = phases[i % stride[0], j % stride[1], first:].transpose(0, 1)
        taps.append(torch.bmm(sent[..., : seen.shape[1]], seen).reshape(out, inputs))
    return torch.stack(taps).unflatten(0, tuple(kernel))
