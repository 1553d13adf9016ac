"""The convolution of each sample with a kernel of its own."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Pair = tuple[int, ...]


def convolve_samples(
    x: Float[Tensor, "batch in height width"],
    kernel: Float[Tensor, "batch out in_ kh kw"],
    stride: Pair,
    padding: str | Pair,
    dilation: Pair,
    groups: int,
) -> Float[Tensor, "batch out _ _"]:
    """Convolve every picture with its own kernel, without a bias.

    A 1x1 kernel is a matrix product. Any other is one convolution whose groups are the samples;
    ONNX has no such number of groups that depends on the batch, so an exported graph adds up the
    products of the taps.

    Args:
        x: Pictures.
        kernel: Kernels, one a picture.
        stride: Vertical and horizontal step.
        padding: Zeros above and below, left and right; or "same" or "valid".
        dilation: Vertical and horizontal distance of the taps.
        groups: Number of groups of a single picture's convolution.
    """
    batch, out = kernel.shape[:2]
    if torch.compiler.is_exporting():
        return convolve_taps(x, kernel, stride, padding, dilation, groups)
    if is_product(kernel, padding, groups):
        x = x[:, :, :: stride[0], :: stride[1]]
        return torch.bmm(kernel.flatten(2), x.flatten(2)).unflatten(2, x.shape[2:])
    joined, kernels = x.reshape(1, -1, *x.shape[2:]), kernel.flatten(0, 1)
    y = functional.conv2d(joined, kernels, None, stride, padding, dilation, batch * groups)
    return y.unflatten(1, (batch, out)).squeeze(0)


def is_product(kernel: Tensor, padding: str | Pair, groups: int) -> bool:
    """Return whether a convolution is a matrix product."""
    unpadded = isinstance(padding, str) or max(padding) == 0
    return (*kernel.shape[3:], groups) == (1, 1, 1) and unpadded


def convolve_taps(
    x: Float[Tensor, "batch in height width"],
    kernel: Float[Tensor, "batch out in_ kh kw"],
    stride: Pair,
    padding: str | Pair,
    dilation: Pair,
    groups: int,
) -> Float[Tensor, "batch out _ _"]:
    """Compute `convolve_samples` as a sum of matrix products, one a tap."""
    reach = [d * (k - 1) for d, k in zip(dilation, kernel.shape[3:], strict=True)]
    if padding == "same":
        pads = [(r // 2, r - r // 2) for r in reach]
    else:
        pads = [(0, 0)] * 2 if padding == "valid" else [(int(p), int(p)) for p in padding]
    x = functional.pad(x, (*pads[1], *pads[0])).unflatten(1, (groups, -1))
    kernel = kernel.unflatten(1, (groups, -1))
    rows, columns = (
        (size - r - 1) // s + 1 for size, r, s in zip(x.shape[3:], reach, stride, strict=True)
    )
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for i in range(kernel.shape[4]):
        for j in range(kernel.shape[5]):
            seen = x[:, :, :, i * dilation[0] :: stride[0], j * dilation[1] :: stride[1]]
            seen = seen[:, :, :, :rows, :columns].flatten(3)
            total = total + torch.matmul(kernel[..., i, j], seen)
    return total.unflatten(3, (rows, columns)).flatten(1, 2)
