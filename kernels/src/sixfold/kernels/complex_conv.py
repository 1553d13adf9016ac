"""Complex convolutions on planar tensors: one real convolution instead of four.

A planar tensor holds the real parts of all channels, then the imaginary ones: (batch, 2 channels,
height, width). A complex kernel A + iB acts on it in one of two forms, both of a single call that
reads its input once and makes no interleaved copies:

- the block form, the real kernel [[A, -B], [B, A]]: as many multiplications as four convolutions;
- Gauss' form, three quarters of them: with s = B (re + im),
  real = (A + B) re - s and imag = (A - B) im + s, a convolution in three groups.

Gauss' form pays where the multiplications dominate: from 64 channels on. Two real convolutions with
biases a and b, used crosswise, have the bias (a - b, a + b).

The operators define their own backward pass, which keeps the planar input alone. A transposed
convolution is two ordinary ones in the forward pass (even rows and odd); both of its gradients come
from one strided convolution.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

GAUSS_CHANNELS = 64
THIN_CHANNELS = 2  # up to so many outputs, a transposed convolution is a product and an overlap-add

Planar = Float[Tensor, "batch _channels2 _height _width"]


def complex_conv2d(
    x: Sequence[Planar],
    real: tuple[Tensor, Tensor | None],
    imag: tuple[Tensor, Tensor | None],
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
) -> Planar:
    """Convolve the concatenation of planar tensors with a complex kernel.

    Args:
        x: One or more planar tensors; their complex channels are concatenated.
        real: Weight (out, in, height, width) and bias (out,) of the real part; the bias may be
            None.
        imag: Weight and bias of the imaginary part, shaped alike; the bias is None if the real
            part's is.
        stride: Stride along height and width.
        padding: Number of zeros on either side of height and width.

    Raises:
        ValueError: the number of x's channels is not the one that the kernel reads, or weights or
            biases are not shaped alike.
    """
    channels = _channels("complex_conv2d", x, real[0].shape[1])
    check_alike("complex_conv2d", real, imag, len(real[0]))
    kernel = complex_kernel(real[0], imag[0], channels)
    bias = optional_bias(real[1], imag[1])
    if kernel.is_cuda or len(kernel) < 3 * len(real[0]):  # block form: PyTorch's gradients are fast
        return apply_kernel(x, kernel, bias, stride, padding)
    return _GaussConv.apply(kernel, bias, stride, padding, *x)


def complex_conv_transpose2d(
    x: Sequence[Planar], real: tuple[Tensor, Tensor], imag: tuple[Tensor, Tensor]
) -> Planar:
    """Convolve, transposed with stride (2, 1), the concatenation of planar tensors.

    The width shrinks by the kernel's width less one, which is what ``conv_transpose2d`` gives with
    a padding of one less than the kernel's width.

    Args:
        x: One or more planar tensors; their complex channels are concatenated.
        real: Weight (in, out, height, width), torch's order, and bias (out,) of the real part.
        imag: Weight and bias of the imaginary part, shaped alike.

    Raises:
        ValueError: the number of x's channels is not the one that the kernel reads, or weights or
            biases are not shaped alike.
    """
    channels = _channels("complex_conv_transpose2d", x, real[0].shape[0])
    check_alike("complex_conv_transpose2d", real, imag, real[0].shape[1])
    bias = complex_bias(real[1], imag[1])
    if real[0].shape[1] <= THIN_CHANNELS:
        return apply_transposed(x, transposed_kernels(real[0], imag[0], channels), bias)
    kernel = complex_kernel(real[0], imag[0], channels, axis=0)
    if kernel.is_cuda:
        return apply_transposed(x, transposed_kernels(real[0], imag[0], channels), bias)
    return _ConvTranspose.apply(kernel, bias, *x)


def complex_kernel(real: Tensor, imag: Tensor, channels: Sequence[int], axis: int = 1) -> Tensor:
    """Return the real kernel of a complex one, in the form that suits its size.

    Args:
        real: Real part A, (out, in, height, width).
        imag: Imaginary part B, shaped as A.
        channels: Number of complex channels of each planar tensor of the input.
        axis: Axis of A's input channels; 0 in a transposed convolution's order.

    Returns:
        Block form, (2 out, 2 in, ...), or Gauss' form, whose first axis is three times and whose
        second is as long as A's.
    """
    if real.shape[axis] >= GAUSS_CHANNELS:
        return torch.cat([imag, real + imag, real - imag])
    return _block(real, imag, channels, axis)


def complex_bias(real: Float[Tensor, " out"], imag: Float[Tensor, " out"]) -> Tensor:
    """Return the bias (2 out,) of two real convolutions with these biases, used crosswise."""
    return torch.cat([real - imag, real + imag])


def optional_bias(real: Tensor | None, imag: Tensor | None) -> Tensor | None:
    """Return `complex_bias` of two biases, or None if there are none.

    Raises:
        ValueError: one part has a bias and the other none.
    """
    if real is None and imag is None:
        return None
    if real is None or imag is None:
        raise ValueError("a complex layer has a bias of both parts or of neither; one is None")
    return complex_bias(real, imag)


def check_alike(
    name: str, real: tuple[Tensor, Tensor | None], imag: tuple[Tensor, Tensor | None], outputs: int
) -> None:
    """Refuse weights and biases that would be broadcast to each other's shape.

    Raises:
        ValueError: the weights differ in their shape, or a bias does not have a number an output.
    """
    biases = [tuple(part[1].shape) for part in (real, imag) if part[1] is not None]
    if real[0].shape != imag[0].shape or any(shape != (outputs,) for shape in biases):
        raise ValueError(
            f"{name}: weights {tuple(real[0].shape)} and {tuple(imag[0].shape)} should be alike "
            f"and biases of {outputs} numbers, got biases {biases}"
        )


def apply_kernel(
    x: Sequence[Planar],
    kernel: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    scale: Tensor | None = None,
) -> Planar:
    """Convolve planar tensors with the kernel that `complex_kernel` made.

    Args:
        x: Planar tensors with as many channels as `complex_kernel` was told.
        kernel: Real kernel in either form.
        bias: Bias (2 out,), as `complex_bias` returns it, or None.
        stride: Stride along height and width.
        padding: Number of zeros on either side of height and width.
        scale: Scale that `scaled_kernel` was given, if the kernel went through it.
    """
    if kernel.shape[1] == sum(part.shape[1] for part in x):
        return functional.conv2d(torch.cat(list(x), 1), kernel, bias, stride, padding)
    if bias is not None:
        bias = functional.pad(bias, (len(bias) // 2, 0))
    y = functional.conv2d(_spread(x), kernel, bias, stride, padding, groups=3)
    return _merge(y, _signs(y) if scale is None else _signs(y) * scale.view(2, -1))


def scaled_kernel(kernel: Tensor, scale: Float[Tensor, " out2"]) -> Tensor:
    """Scale the planar channels of the output, e.g. to fold a batch norm into the kernel.

    In Gauss' form the first group serves both parts, so `apply_kernel` takes the scale again.
    """
    shared = 0 if kernel.shape[0] == len(scale) else len(scale) // 2
    return torch.cat([kernel[:shared], kernel[shared:] * scale[:, None, None, None]])


def transposed_kernels(real: Tensor, imag: Tensor, channels: Sequence[int]) -> tuple[Tensor, ...]:
    """Return the kernels of the even and of the odd rows of a transposed convolution.

    Row 2q of the result sees only the taps 0, 2, ..., row 2q + 1 only 1, 3, ...: each is an
    ordinary convolution, which CPUs run faster than the transposed one. With so few outputs that
    these would idle (`THIN_CHANNELS`), the one kernel of a matrix product is returned.

    Args:
        real: Real part A, (in, out, height, width).
        imag: Imaginary part B, shaped as A.
        channels: Number of complex channels of each planar tensor of the input.
    """
    if real.shape[1] <= THIN_CHANNELS:
        return (_block(real, imag, channels, axis=0).transpose(0, 1),)
    kernel = complex_kernel(real, imag, channels, axis=0)
    return _rows(kernel, 3 if len(kernel) == 3 * len(real) else 1)


def apply_transposed(
    x: Sequence[Planar], kernels: Sequence[Tensor], bias: Tensor, scale: Tensor | None = None
) -> Planar:
    """Convolve, transposed, planar tensors with the kernels that `transposed_kernels` made.

    The arguments are those of `apply_kernel`.
    """
    if len(kernels) == 1:
        return _overlap_add(torch.cat(list(x), 1), kernels[0], bias)
    if kernels[0].shape[1] == sum(part.shape[1] for part in x):
        return _both_rows(torch.cat(list(x), 1), kernels, bias, None)
    signs = _signs(x[0]) if scale is None else _signs(x[0]) * scale.view(2, -1)
    return _both_rows(_spread(x), kernels, bias, signs)


class _GaussConv(Function):
    """`apply_kernel` in Gauss' form, with its backward."""

    @staticmethod
    def forward(ctx, kernel, bias, stride, padding, *x):
        ctx.save_for_backward(kernel, *x)
        ctx.stride, ctx.padding = stride, padding
        return apply_kernel(x, kernel, bias, stride, padding)

    @staticmethod
    def backward(ctx, grad):  # under autocast each tensor may have its own dtype
        kernel, *x = ctx.saved_tensors
        seen, sent, grad_kernel, grads = _spread(x), _spread([grad], -1), None, [None] * len(x)
        options = (ctx.stride, ctx.padding, 1, 3)
        if any(ctx.needs_input_grad[4:]):
            back = conv2d_input(seen.shape, kernel.to(sent.dtype), sent, *options)
            grads = _parted(back, x, gauss=True)
        if ctx.needs_input_grad[0]:
            grad_kernel = conv2d_weight(seen.to(sent.dtype), kernel.shape, sent, *options)
            grad_kernel = grad_kernel.to(kernel.dtype)
        grad_bias = grad.sum((0, 2, 3)).to(kernel.dtype) if ctx.needs_input_grad[1] else None
        return grad_kernel, grad_bias, None, None, *grads


class _ConvTranspose(Function):
    """`apply_transposed` with its backward, for a kernel in ``conv_transpose2d``'s order."""

    @staticmethod
    def forward(ctx, kernel, bias, *x):
        ctx.save_for_backward(kernel, *x)
        gauss = len(kernel) != sum(part.shape[1] for part in x)
        return apply_transposed(x, _rows(kernel, 3 if gauss else 1), bias)

    @staticmethod
    def backward(ctx, grad):
        kernel, *x = ctx.saved_tensors
        gauss = len(kernel) != sum(part.shape[1] for part in x)
        seen, sent = _gathered(x, gauss), _spread([grad], -1) if gauss else grad
        grad_kernel, grads, groups = None, [None] * len(x), 3 if gauss else 1
        options: Any = ((2, 1), (0, kernel.shape[3] - 1), 1, groups)
        if any(ctx.needs_input_grad[2:]):
            back = functional.conv2d(sent, kernel.to(sent.dtype), None, *options)
            grads = _parted(back, x, gauss=gauss)
        if ctx.needs_input_grad[0]:
            seen = seen.to(sent.dtype)
            grad_kernel = conv2d_weight(sent, kernel.shape, seen, *options)
            grad_kernel = grad_kernel.to(kernel.dtype)
        return grad_kernel, grad.sum((0, 2, 3)).to(kernel.dtype), *grads


def _gathered(x: Sequence[Tensor], gauss: bool) -> Tensor:
    return _spread(x) if gauss else torch.cat(list(x), 1)


def _parted(grad: Tensor, x: Sequence[Tensor], *, gauss: bool) -> list[Tensor]:
    """Return the gradients of the parts that `_gathered` put together."""
    if not gauss:
        parts = zip(grad.split([part.shape[1] for part in x], 1), x, strict=True)
        return [g.to(part.dtype) for g, part in parts]
    count, first, grads = grad.shape[1] // 3, 0, []
    for part in x:
        own = slice(first, first + part.shape[1] // 2)
        thirds = grad.unflatten(1, (3, count))[:, :, own]
        grads.append(_merge(thirds, _signs(grad).abs()).to(part.dtype))
        first = own.stop
    return grads


def _spread(x: Sequence[Tensor], sign: int = 1) -> Tensor:
    """Return the inputs of Gauss' three groups: im + sign re, re, im."""
    halves = [part.chunk(2, 1) for part in x]
    sums = [torch.add(im, re, alpha=sign) for re, im in halves]
    return torch.cat([*sums, *(re for re, _ in halves), *(im for _, im in halves)], 1)


def _merge(y: Tensor, signs: Tensor) -> Tensor:
    """Combine the outputs s, p and q of Gauss' three groups: p + signs[0] s and q + signs[1] s.

    The adjoint of `_spread`, for signs of sign and 1.
    """
    y = (y.unflatten(1, (3, -1)) if y.ndim == 4 else y).permute(0, 3, 4, 1, 2)
    return torch.addcmul(y[..., 1:, :], y[..., :1, :], signs).flatten(-2).permute(0, 3, 1, 2)


def _signs(like: Tensor) -> Tensor:
    return like.new_tensor([[-1.0], [1.0]])


def _block(real: Tensor, imag: Tensor, channels: Sequence[int], axis: int) -> Tensor:
    blocks = []
    for a, b in zip(real.split(channels, axis), imag.split(channels, axis), strict=True):
        blocks += [torch.cat([a, b], 1 - axis), torch.cat([-b, a], 1 - axis)]
    return torch.cat(blocks, axis)


def _rows(kernel: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Return the ordinary kernels that give the even and the odd rows of a transposed one."""
    ordinary = kernel.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(2, 3)
    # flipped, the last tap of each set comes first
    last = kernel.shape[2] - 1
    return ordinary[:, :, last % 2 :: 2], ordinary[:, :, 1 - last % 2 :: 2]


def _both_rows(
    seen: Tensor, kernels: Sequence[Tensor], bias: Tensor, signs: Tensor | None
) -> Tensor:
    """Compute the even and the odd rows, and merge them if signs (of Gauss' form) are given."""
    if signs is not None:
        bias = functional.pad(bias, (len(bias) // 2, 0))
    rows = []
    for kernel in kernels:
        padding = (kernel.shape[2] - 1, 0)
        y = functional.conv2d(seen, kernel, bias, 1, padding, 1, 1 if signs is None else 3)
        rows.append(y if signs is None else _merge(y, signs))
    even, odd = (part.permute(0, 2, 3, 1) for part in rows)
    missing = even.shape[1] - odd.shape[1]  # an odd number of taps gives one even row more
    y = torch.stack([even, functional.pad(odd, (0, 0, 0, 0, 0, missing))], 2).flatten(1, 2)
    # Dense again, if need be: batch norm is slow on a tensor with gaps (CPU).
    return y[:, : y.shape[1] - missing].contiguous().permute(0, 3, 1, 2)


def _overlap_add(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Convolve, transposed, by one matrix product followed by overlap-add."""
    out, _, height, width = kernel.shape
    kernel = functional.pad(kernel, (0, 0, 0, height % 2)).unflatten(2, (-1, 2))
    pairs, parts = kernel.shape[2], kernel.permute(1, 2, 4, 3, 0).flatten(1)
    terms = (x.permute(0, 2, 3, 1) @ parts).permute(0, 3, 1, 2).contiguous()
    y = torch.zeros((), dtype=x.dtype, device=x.device)
    taps = itertools.product(range(pairs), range(width))
    for (i, j), term in zip(taps, terms.split(2 * out, 1), strict=True):
        y = y + functional.pad(term, (j + 1 - width, -j, i, pairs - 1 - i))
    y = y.unflatten(1, (2, out)).permute(0, 2, 3, 1, 4).flatten(2, 3)  # rows (pair, parity)
    return y[:, :, : 2 * (x.shape[2] - 1) + height] + bias[:, None, None]


def _channels(name: str, x: Sequence[Tensor], channels: int) -> list[int]:
    """Return the number of complex channels of each part; check their sum against the kernel's."""
    counts = [part.shape[1] for part in x]
    if sum(counts) != 2 * channels or any(count % 2 for count in counts):
        shapes = ", ".join(str(tuple(part.shape)) for part in x)
        raise ValueError(
            f"{name}: the kernel reads {channels} complex channels, so x should have "
            f"{2 * channels} planar ones in all, got {shapes}"
        )
    return [part.shape[1] // 2 for part in x]
