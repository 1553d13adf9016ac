"""LESnets' head on a CPU: two linear layers at each point, in blocks of points.

The hidden features, 128 a point, are the largest tensors of the network. They are made for a block
of points, and again in the backward pass instead of being kept. Products go through oneDNN, which
on processors that are not Intel's is up to twice as fast as PyTorch's default.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from sixfold.core.autograd import once_differentiable

BLOCK = 8192  # points at once: their hidden features stay in the cache

Activation = Callable[[Tensor], Tensor]


def head_in_blocks(
    act: Activation, x: Float[Tensor, "batch channel point"], *weights: Tensor
) -> Float[Tensor, "batch out point"]:
    """Return w2 act(w1 x + b1) + b2 at each point.

    Args:
        act: Activation.
        x: Features.
        weights: Weight and bias of the first layer, then of the second.
    """
    return _HeadInBlocks.apply(act, x, *weights)


class _HeadInBlocks(Function):
    @staticmethod
    def forward(
        ctx: Any, act: Activation, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
    ) -> Tensor:
        ctx.act = act
        ctx.save_for_backward(x, w1, b1, w2)
        found = x.new_empty(x.shape[0], w2.shape[0], x.shape[2])
        for points, into in _blocks(x, found):
            hidden = act(_product(w1, points.contiguous()).add_(b1[:, None]))
            torch.add(_product(w2, hidden), b2[:, None], out=into)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, w1, b1, w2 = ctx.saved_tensors
        of_w1, of_b1, of_w2 = (torch.zeros_like(t) for t in (w1, b1, w2))
        of_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        for points, sent, into in _blocks(x, grad, of_x):
            points, sent = points.contiguous(), sent.contiguous()
            before = _product(w1, points).add_(b1[:, None]).requires_grad_()
            with torch.enable_grad():
                hidden = ctx.act(before)
            of_w2 += _product(sent, hidden.detach().t())
            (inner,) = torch.autograd.grad(hidden, before, _product(w2.t(), sent))
            of_w1 += _product(inner, points.t())
            of_b1 += inner.sum(1)
            into.copy_(_product(w1.t(), inner))
        return None, of_x, of_w1, of_b1, of_w2, grad.sum((0, 2))


def _blocks(*features: Tensor) -> Any:
    """Yield the same points of tensors (batch, channel, point), sample by sample."""
    for samples in zip(*features, strict=True):
        yield from zip(*(sample.split(BLOCK, 1) for sample in samples), strict=True)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply matrices; oneDNN takes the second one transposed, and packed (views are slow)."""
    if left.dtype == torch.float32 and _has_linear():
        return torch.ops.mkldnn._linear_pointwise(left, right.t(), None, "none", [], "")
    return left @ right


@functools.cache
def _has_linear() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
