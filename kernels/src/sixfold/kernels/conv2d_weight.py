"""The weight gradient of a two-dimensional convolution, fast for channels-last tensors on a CPU.

PyTorch's runs at a third of the speed of the forward pass there. Here it is one matrix product a
tap, (out, positions) by (positions, in), which runs at the speed of a matrix product. Nothing is
gathered for a tap: with the input's rows as long as the padded ones, and the gradient's rows
stretched to the same length by zeros, a tap is the same memory at another offset. A stride is a
reordering into phases, done in the one copy that pads.
"""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def conv2d_weight(
    x: Float[Tensor, "batch in height width"],
    shape: tuple[int, int, int, int] | torch.Size,
    grad: Float[Tensor, "batch out height_out width_out"],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> Float[Tensor, "out in_group kh kw"]:
    """Do what ``torch.nn.grad.conv2d_weight`` does, without dilation.

    Args:
        x: Input of the convolution.
        shape: Shape of its weight, and of the result.
        grad: Gradient of its output.
        stride: As in torch.
        padding: As in torch, zeros on both sides of height and width.
        groups: As in torch.
    """
    out, inputs, *kernel = shape
    # Rows and columns of a phase: enough for the taps of every position, and for all of x.
    spans = [
        max(g + (k - 1) // s, -(-(n + 2 * p) // s))
        for g, k, s, n, p in zip(grad.shape[2:], kernel, stride, x.shape[2:], padding, strict=True)
    ]
    rests = [
        s * span - n - p for s, span, n, p in zip(stride, spans, x.shape[2:], padding, strict=True)
    ]
    padded = functional.pad(x, (padding[1], rests[1], padding[0], rests[0])).permute(0, 2, 3, 1)
    phases = padded.unflatten(2, (spans[1], stride[1])).unflatten(1, (spans[0], stride[0]))
    phases = phases.permute(2, 4, 0, 1, 3, 5).reshape(*stride, -1, groups, inputs)
    sent = grad.permute(0, 2, 3, 1)
    sent = functional.pad(sent, (0, 0, 0, spans[1] - grad.shape[3], 0, spans[0] - grad.shape[2]))
    sent = sent.reshape(-1, groups, out // groups).permute(1, 2, 0)
    taps = []
    for i, j in itertools.product(*map(range, kernel)):
        first = i // stride[0] * spans[1] + j // stride[1]
        seen = phases[i % stride[0], j % stride[1], first:].transpose(0, 1)
        taps.append(torch.bmm(sent[..., : seen.shape[1]], seen).reshape(out, inputs))
    return torch.stack(taps, -1).view(shape)
