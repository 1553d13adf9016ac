"""Complex convolutions on planar tensors: one real convolution instead of four.

A planar tensor holds the real parts of all channels, then the imaginary ones: (batch, 2 channels,
height, width). A complex kernel A + iB acts on it in one of two forms, both of a single call that
reads its input once and makes no interleaved copies:

- the block form, the real kernel [[A, -B], [B, A]]: as many multiplications as four convolutions;
- Gauss' form, three quarters of them: with s = A (re + im),
  real = s - (A + B) im and imag = s + (B - A) re, a convolution in three groups.

Gauss' form pays where the multiplications dominate: from 64 channels on (measured, CPU). Two real
convolutions with biases a and b, used crosswise, have the bias (a - b, a + b).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sixfold.kernels.conv2d import conv2d

GAUSS_CHANNELS = 64

Planar = Float[Tensor, "batch _channels2 _height _width"]


def complex_conv2d(
    x: Sequence[Planar],
    real: tuple[Tensor, Tensor],
    imag: tuple[Tensor, Tensor],
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
) -> Planar:
    """Convolve the concatenation of planar tensors with a complex kernel.

    Args:
        x: One or more planar tensors; their complex channels are concatenated.
        real: Weight (out, in, height, width) and bias (out,) of the real part.
        imag: The same of the imaginary part.
        stride: As in torch.
        padding: Zeros on both sides of height and width.

    Raises:
        ValueError: x has other channels than the kernel reads.
    """
    _check("complex_conv2d", x, real[0].shape[1])
    kernel = complex_kernel(real[0], imag[0], [part.shape[1] // 2 for part in x])
    return apply_kernel(x, kernel, complex_bias(real[1], imag[1]), stride, padding)


def complex_conv_transpose2d(
    x: Sequence[Planar], real: tuple[Tensor, Tensor], imag: tuple[Tensor, Tensor]
) -> Planar:
    """Convolve, transposed with stride (2, 1), the concatenation of planar tensors.

    The width shrinks by the kernel's width less one, which is what ``conv_transpose2d`` gives with
    a padding of one less than the kernel's width.

    Args:
        x: One or more planar tensors; their complex channels are concatenated.
        real: Weight (in, out, height, width), torch's order, and bias (out,) of the real part.
        imag: The same of the imaginary part.

    Raises:
        ValueError: x has other channels than the kernel reads.
    """
    _check("complex_conv_transpose2d", x, real[0].shape[0])
    channels = [part.shape[1] // 2 for part in x]
    kernels = transposed_kernels(real[0], imag[0], channels)
    return apply_transposed(x, kernels, complex_bias(real[1], imag[1]))


def complex_kernel(real: Tensor, imag: Tensor, channels: Sequence[int]) -> Tensor:
    """Return the real kernel of a complex one, in the form that suits its size.

    Args:
        real: A, (out, in, height, width).
        imag: B, likewise.
        channels: Complex channels of each planar tensor that the input is made of.

    Returns:
        Block form (2 out, 2 in, ...) or Gauss' form (3 out, in, ...), which `apply_kernel` tells
        apart by the second size.
    """
    if real.shape[1] >= GAUSS_CHANNELS:
        return torch.cat([real, -(real + imag), imag - real])
    columns = []
    for a, b in zip(real.split(channels, 1), imag.split(channels, 1), strict=True):
        columns += [torch.cat([a, b]), torch.cat([-b, a])]
    return torch.cat(columns, 1)


def complex_bias(real: Float[Tensor, " out"], imag: Float[Tensor, " out"]) -> Tensor:
    """Return the bias (2 out,) of two real convolutions with these biases, used crosswise."""
    return torch.cat([real - imag, real + imag])


def apply_kernel(
    x: Sequence[Planar],
    kernel: Tensor,
    bias: Tensor,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    scale: Tensor | None = None,
) -> Planar:
    """Convolve planar tensors with the kernel that `complex_kernel` made.

    Args:
        x: As `complex_kernel` was told.
        kernel: In either form.
        bias: (2 out,).
        stride: As in torch.
        padding: Zeros on both sides of height and width.
        scale: If the kernel went through `scaled_kernel`, the same scale.
    """
    channels = sum(part.shape[1] for part in x)
    if kernel.shape[1] == channels:
        return conv2d(torch.cat(list(x), 1), kernel, bias, stride, padding)
    halves = [part.chunk(2, 1) for part in x]
    sums, re, im = [a + b for a, b in halves], [a for a, _ in halves], [b for _, b in halves]
    bias = functional.pad(bias, (len(bias) // 2, 0))
    y = conv2d(torch.cat(sums + im + re, 1), kernel, bias, stride, padding, groups=3)
    y = y.permute(0, 2, 3, 1).unflatten(-1, (3, -1))
    shared, own = y[..., :1, :], y[..., 1:, :]
    y = own + shared if scale is None else torch.addcmul(own, shared, scale.view(2, -1))
    return y.flatten(-2).permute(0, 3, 1, 2)


def scaled_kernel(kernel: Tensor, scale: Float[Tensor, " out2"]) -> Tensor:
    """Scale the planar channels of the output, as to fold a batch norm into the kernel.

    In Gauss' form the first group serves both parts, so `apply_kernel` takes the scale again.
    """
    shared = 0 if kernel.shape[0] == len(scale) else len(scale) // 2
    return torch.cat([kernel[:shared], kernel[shared:] * scale[:, None, None, None]])


def transposed_kernels(
    real: Tensor, imag: Tensor, channels: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return the kernels of the even and of the odd rows of a transposed convolution.

    Row 2q of the result sees only the taps 0, 2, ..., row 2q + 1 only 1, 3, ...: each is an
    ordinary convolution, which CPUs run faster than the transposed one (1.2 times here).

    Args:
        real: A, (in, out, height, width).
        imag: B, likewise.
        channels: Complex channels of each planar tensor that the input is made of.
    """
    kernels = []
    for first in (0, 1):
        a, b = (w[:, :, first::2].flip(2, 3).transpose(0, 1) for w in (real, imag))
        kernels.append(complex_kernel(a, b, channels))
    return kernels[0], kernels[1]


def apply_transposed(
    x: Sequence[Planar], kernels: Sequence[Tensor], bias: Tensor, scale: Tensor | None = None
) -> Planar:
    """Convolve, transposed, planar tensors with the kernels that `transposed_kernels` made.

    The arguments are those of `apply_kernel`.
    """
    even, odd = (
        apply_kernel(x, kernel, bias, padding=(kernel.shape[2] - 1, 0), scale=scale)
        for kernel in kernels
    )
    missing = even.shape[2] - odd.shape[2]  # an odd number of taps gives one even row more
    rows = [part.permute(0, 2, 3, 1) for part in (even, functional.pad(odd, (0, 0, 0, missing)))]
    y = torch.stack(rows, 2).flatten(1, 2)
    # Dense again, if need be: on a CPU batch norm trains six times slower on a tensor with gaps.
    return y[:, : y.shape[1] - missing].contiguous().permute(0, 3, 1, 2)


def _check(name: str, x: Sequence[Tensor], channels: int) -> None:
    if sum(part.shape[1] for part in x) != 2 * channels:
        shapes = ", ".join(str(tuple(part.shape)) for part in x)
        raise ValueError(
            f"{name}: the kernel reads {channels} complex channels, so x should have "
            f"{2 * channels} planar ones in all, got {shapes}"
        )
