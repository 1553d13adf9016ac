"""The training step of residual blocks on a CPU, with the memory of their convolutions' outputs.

`block_output` and `whitened` compute what the layers one after the other compute. Their backward
passes are written out: a block keeps its input, its output and the centred output of every
convolution; ReLUs and batch norms are computed again, which costs little beside a convolution, and
kernels are put together again rather than kept. The first convolution of a block with large
pictures is computed again too: one pass over a kernel more, beside six.

A batch norm in training is y = M (x - mean) + bias, with M = W C^(-1/2) of the covariance C of x
over batch and pixels. With G the gradient of y, sums over batch and pixels, n of them,

    dM = sum G (x - mean)^T,   dx = M^T (G - mean G) + K (x - mean),   K = [[2 dCrr, dCri],
                                                                            [dCri, 2 dCii]] / n

and dC and dW follow from dM through 2 x 2 matrices alone.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from sixfold.kernels.complex_batch_norm import whitening

EPS = 1e-5
LARGE = 2**20  # numbers of a first convolution's output from which it is computed again
GAUSS_CHANNELS = 64  # from here on three convolutions are faster than one of block form
Planar = Float[Tensor, "batch _channels2 _height _width"]


class Unit(NamedTuple):
    """A `ComplexConv2d` and the `ComplexBatchNorm2d` after it."""

    conv: Any
    norm: Any

    def parameters(self) -> list[Tensor]:
        """Return the two kernels, and weight and bias of the norm."""
        conv, norm = self.conv, self.norm
        return [conv.conv_r.weight, conv.conv_i.weight, norm.weight, norm.bias]


def trains_here(x: Tensor, training: bool) -> bool:
    """Return whether this file's forms are used: for gradients on a CPU, without a compiler."""
    return (
        training
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def block_output(x: Planar, units: list[Unit], shortcut: Unit | None) -> Planar:
    """Return the output of a residual block in training, and move the running moments.

    Args:
        x: Input, planar.
        units: Convolutions and norms in their order; a ReLU follows each.
        shortcut: Convolution and norm of the shortcut, or None if it is the input itself.
    """
    every = [*units, shortcut] if shortcut else units
    return _Block.apply(x, units, shortcut, *(p for unit in every for p in unit.parameters()))


def whitened(x: Planar, norm: Any) -> Planar:
    """Return the output of a batch norm in training, and move its running moments."""
    return _Whitened.apply(x, norm, norm.weight, norm.bias)


class _Whitened(Function):
    """A batch norm by itself, which keeps its centred input."""

    @staticmethod
    def forward(ctx, x, norm, weight, bias):
        centred = x.clone()
        covariance = _centre(centred, norm)
        ctx.save_for_backward(centred, covariance, weight)
        return _affine(centred, whitening(covariance, weight, EPS), bias)

    @staticmethod
    def backward(ctx, grad):
        centred, covariance, weight = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = _norm_backward(grad, centred, covariance, weight)
        return grad_x, None, grad_weight, grad_bias


class _Block(Function):
    """A residual block."""

    @staticmethod
    def forward(ctx, x, units, shortcut, *parameters):
        seen, kept = x, []
        for i, unit in enumerate(units):
            centred, covariance, y = _unit(seen, unit)
            again = i == 0 and centred.numel() >= LARGE
            kept += [centred.new_empty(0) if again else centred, covariance]
            seen = y.relu_() if i < len(units) - 1 else y
        if shortcut:
            centred, covariance, y = _unit(x, shortcut)
            kept += [centred, covariance]
            seen += y
        else:
            seen += x
        out = seen.relu_()
        ctx.units, ctx.shortcut = units, shortcut
        ctx.save_for_backward(x, out, *kept, *parameters)
        return out

    @staticmethod
    def backward(ctx, grad):
        units, shortcut = ctx.units, ctx.shortcut
        x, out, *rest = ctx.saved_tensors
        count = len(units) + (shortcut is not None)
        kept = [tuple(rest[2 * i : 2 * i + 2]) for i in range(count)]
        own = [rest[2 * count + 4 * i :][:4] for i in range(count)]
        if not kept[0][0].numel():
            kept[0] = (_centred_again(x, units[0].conv, own[0]), kept[0][1])
        wanted = (ctx.needs_input_grad[0], any(ctx.needs_input_grad[3:]))
        grad = torch.ops.aten.threshold_backward(grad, out, 0)
        grads: list[Tensor | None] = []
        through = grad  # what the shortcut gives the input
        if shortcut:
            through, *grads = _unit_backward(grad, x, shortcut.conv, kept[-1], own[-1], wanted)
        for i in reversed(range(len(units))):
            mask = (wanted[0] or i > 0, wanted[1])
            seen = _activated(kept[i - 1], own[i - 1]) if i else x
            grad, *found = _unit_backward(grad, seen, units[i].conv, kept[i], own[i], mask)
            grads = [*found, *grads]
            if i:
                grad = torch.ops.aten.threshold_backward(grad, seen, 0)
        return (grad.add_(through) if wanted[0] else None), None, None, *grads


def _unit(x: Tensor, unit: Unit) -> tuple[Tensor, Tensor, Tensor]:
    """Return the centred output of a convolution, its covariance, and the norm's output."""
    real, imag, weight, bias = unit.parameters()
    y = _convolved(x, real, imag, unit.conv)
    covariance = _centre(y, unit.norm)
    return y, covariance, _affine(y, whitening(covariance, weight, EPS), bias)


def _centred_again(x: Tensor, conv: Any, parameters: list[Tensor]) -> Tensor:
    y = _convolved(x, parameters[0], parameters[1], conv)
    return y.sub_(y.mean((0, 2, 3), keepdim=True))


def _activated(kept: tuple[Tensor, Tensor], parameters: list[Tensor]) -> Tensor:
    """Return the output of a unit and its ReLU from what was kept of it."""
    centred, covariance = kept
    return _affine(centred, whitening(covariance, parameters[2], EPS), parameters[3]).relu_()


def _unit_backward(grad, x, conv, kept, parameters, wanted) -> list[Any]:
    """Return the gradients of a unit's input, its two kernels, and its norm's parameters."""
    real, imag, weight, _ = parameters
    centred, covariance = kept
    grad, grad_weight, grad_bias = _norm_backward(grad, centred, covariance, weight)
    return [*_conv_backward(grad, x, real, imag, conv, wanted), grad_weight, grad_bias]


def _products(x: Tensor, y: Tensor) -> Float[Tensor, "channel 2 2"]:
    """Return the sums over batch and pixels of the products of x's parts and y's.

    One sample after the other: a batched product of all would copy them to another order.
    """
    total = x.new_zeros(x.shape[1] // 2, 2, 2)
    pairs = [z.unflatten(1, (2, -1)).flatten(3).transpose(1, 2) for z in (x, y)]
    for ours, theirs in zip(*pairs, strict=True):
        total.baddbmm_(ours, theirs.mT)
    return total


def _centre(x: Tensor, norm: Any) -> Float[Tensor, "channel 3"]:
    """Take the mean off in place, return the covariance (rr, ii, ri), move the running moments."""
    numbers = x[:, :1].numel()
    mean = x.mean((0, 2, 3), keepdim=True)
    x -= mean
    products = _products(x, x) / numbers
    covariance = torch.stack([products[:, 0, 0], products[:, 1, 1], products[:, 0, 1]], 1)
    norm.follow(mean.view(2, -1).t(), covariance, numbers)
    return covariance


def _affine(x: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Multiply each channel's pair of parts by its matrix and add its offset."""
    y, seen = torch.empty_like(x), x.chunk(2, 1)
    for row, part in enumerate(y.chunk(2, 1)):
        entries = (matrix[:, row, 0], matrix[:, row, 1], offset[:, row])
        from_re, from_im, added = (entry[:, None, None] for entry in entries)
        torch.mul(seen[0], from_re, out=part).addcmul_(seen[1], from_im).add_(added)
    return y


def _norm_backward(grad, centred, covariance, weight) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a norm's input, weight and bias."""
    numbers = grad[:, :1].numel()
    grad_bias = grad.sum((0, 2, 3)).view(2, -1).t()
    with torch.enable_grad():
        leaves = covariance.detach().requires_grad_(), weight.detach().requires_grad_()
        matrix = whitening(leaves[0], leaves[1], EPS)
        found = torch.autograd.grad(matrix, leaves, _products(grad, centred))
    rr, ii, ri = (found[0] / numbers).unbind(1)
    spread = torch.stack([2 * rr, ri, ri, 2 * ii], 1).unflatten(1, (2, 2))
    matrix = matrix.detach().mT
    offset = -(matrix @ grad_bias[:, :, None])[:, :, 0] / numbers
    grad_x = _affine(grad, matrix, offset)
    re, im = centred.chunk(2, 1)
    for row, part in enumerate(grad_x.chunk(2, 1)):
        part.addcmul_(re, spread[:, row, 0, None, None])
        part.addcmul_(im, spread[:, row, 1, None, None])
    return grad_x, found[1], grad_bias


def _convolved(x: Tensor, real: Tensor, imag: Tensor, conv: Any) -> Tensor:
    """Convolve with a complex kernel: in block form, or in Gauss' form with three convolutions."""
    geometry = (None, conv.stride, conv.padding)
    if real.shape[1] < GAUSS_CHANNELS:
        return functional.conv2d(x, _block(real, imag), *geometry)
    re, im = x.chunk(2, 1)
    shared = functional.conv2d(re + im, imag, *geometry)
    y = shared.new_empty(len(x), 2 * len(real), *shared.shape[2:])
    upper, lower = y.chunk(2, 1)
    torch.sub(functional.conv2d(re, real + imag, *geometry), shared, out=upper)
    torch.add(functional.conv2d(im, real - imag, *geometry), shared, out=lower)
    return y


def _conv_backward(grad, x, real, imag, conv, wanted) -> list[Tensor | None]:
    """Return the gradients of the input and of both kernels, one convolution after the other."""
    if real.shape[1] < GAUSS_CHANNELS:
        back, kernel = _backward(grad, x, _block(real, imag), conv, wanted)
        if kernel is None:
            return [back, None, None]
        (rr, ri), (ir, ii) = (half.chunk(2, 1) for half in kernel.chunk(2))
        return [back, rr + ii, ir - ri]
    seen, sent = x.chunk(2, 1), grad.chunk(2, 1)
    back_re, upper = _backward(sent[0], seen[0], real + imag, conv, wanted)
    back_im, lower = _backward(sent[1], seen[1], real - imag, conv, wanted)
    grad_imag = upper - lower if wanted[1] else None
    grad_real = upper.add_(lower) if wanted[1] else None
    del lower  # kernels are large: three of them are alive, never four
    shared, own = _backward(sent[1] - sent[0], seen[0] + seen[1], imag, conv, wanted)
    back = torch.empty_like(x) if wanted[0] else None
    if back is not None:
        for part, own_part in zip(back.chunk(2, 1), (back_re, back_im), strict=True):
            torch.add(own_part, shared, out=part)
    return [back, grad_real, None if grad_imag is None else grad_imag.add_(own)]


def _backward(grad, x, kernel, conv, wanted) -> tuple[Any, Any]:
    stride, padding = [conv.stride] * 2, [conv.padding] * 2
    mask = [wanted[0], wanted[1], False]
    return torch.ops.aten.convolution_backward(
        grad, x, kernel, None, stride, padding, [1, 1], False, [0, 0], 1, mask
    )[:2]


def _block(real: Tensor, imag: Tensor) -> Tensor:
    return torch.cat([torch.cat([real, -imag], 1), torch.cat([imag, real], 1)])
