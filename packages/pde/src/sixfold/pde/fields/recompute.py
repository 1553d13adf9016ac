"""Keep less for the gradient: what is cheap to compute is computed again.

Norms, activations, concatenations and padding take a few percent of the time of the convolutions
between them, but their results are most of what a training keeps.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core.autograd import once_differentiable

Make = Callable[..., Tensor]


def recompute(make: Make, *tensors: Tensor) -> Tensor:
    """Compute a cheap function, of which the gradient keeps the arguments alone.

    Args:
        make: Function of the tensors, and of nothing else that has a gradient.
        tensors: Arguments.
    """
    return _Recomputed.apply(make, *tensors) if _pays(tensors) else make(*tensors)


def convolve(conv: nn.Conv2d, margin: int, make: Make, *tensors: Tensor) -> Tensor:
    """Convolve what a cheap function makes; the gradient keeps the arguments of the function.

    Args:
        conv: Convolution.
        margin: Number of zeros around what is convolved.
        make: Function of the tensors, and of nothing else that has a gradient.
        tensors: Arguments.
    """
    settings = (conv.stride, (margin, margin), conv.dilation)
    if _pays((*tensors, conv.weight)):
        return _Convolved.apply(settings, make, conv.weight, conv.bias, *tensors)
    return functional.conv2d(make(*tensors), conv.weight, conv.bias, *settings)


def _pays(tensors: tuple[Tensor, ...]) -> bool:
    """Return whether a gradient is wanted, and no tracer or cast looks at the operations."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(tensors[0].device.type):
        return False
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _again(make: Make, tensors: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
    """Compute again, with a graph back to the arguments."""
    with torch.enable_grad():
        arguments = [tensor.detach().requires_grad_() for tensor in tensors]
        return make(*arguments), arguments


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, make: Make, *tensors: Tensor) -> Tensor:
        ctx.make = make
        ctx.save_for_backward(*tensors)
        return make(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        result, arguments = _again(ctx.make, ctx.saved_tensors)
        return (None, *torch.autograd.grad(result, arguments, gradient))


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, settings: Any, make: Make, weight: Tensor, bias: Tensor, *tensors: Tensor
    ) -> Tensor:
        ctx.settings, ctx.make = settings, make
        ctx.save_for_backward(weight, *tensors)
        return functional.conv2d(make(*tensors), weight, bias, *settings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        weight, *tensors = ctx.saved_tensors
        made, arguments = _again(ctx.make, tuple(tensors))
        wanted = ctx.needs_input_grad
        of_made, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradient,
            made.detach(),
            weight,
            [len(weight)],
            *ctx.settings,
            False,  # not transposed
            [0, 0],
            1,  # groups
            [any(wanted[4:]), wanted[2], wanted[3]],
        )
        if of_made is None:
            return (None, None, of_weight, of_bias, *(None for _ in arguments))
        found = torch.autograd.grad(made, arguments, of_made)
        return (None, None, of_weight, of_bias, *found)
