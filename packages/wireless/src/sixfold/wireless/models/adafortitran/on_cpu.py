"""A transformer layer's pieces on a CPU: fast products, attention in the cache, cheap dropout.

Each computes what PyTorch's function of that name computes, with gradients:

- `linear` goes through oneDNN, which on processors that are not Intel's multiplies at twice the
  speed of PyTorch's default.
- `attention` goes sample by sample, so that its (head, token, token) tables stay in the cache, and
  computes them again in the backward pass: only which weights dropout kept is remembered, a byte a
  weight, where PyTorch remembers three tables of floats.
- `dropout` draws 16 bits a number where PyTorch draws a double: a share is rounded to 1 / 65,536.
"""

import functools
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

ROWS = 16  # samples at a time: what they need stays in the cache, and below what malloc maps anew
LEVELS = 2**16


def runs_here(x: Tensor) -> bool:
    """Return whether these forms take a tensor: single precision on a CPU, without a compiler."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and _has_linear()
    )


@functools.cache
def _has_linear() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(
    x: Float[Tensor, "*rows in"], weight: Tensor, bias: Tensor
) -> Float[Tensor, "*rows out"]:
    """Return x times the transposed weight, plus the bias."""
    return _Linear.apply(x, weight, bias)


def attention(
    projected: Float[Tensor, "batch token width3"], heads: int, share: float
) -> Float[Tensor, "batch token width"]:
    """Attend between the tokens of each sample.

    Args:
        projected: Queries, keys and values of a token, each by head.
        heads: Number of heads.
        share: Share of the attention weights that are dropped.
    """
    return _Attention.apply(projected, heads, share)


def dropout(x: Float[Tensor, "*size"], share: float) -> Float[Tensor, "*size"]:
    """Set a share of the numbers to zero and scale the others up."""
    return _Dropout.apply(x, share) if share else x


def in_parts(function: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
    """Apply a function to a few samples at a time."""
    return torch.cat([function(part) for part in given.split(ROWS)])


class _Linear(Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad_x, grad_weight = None, None
        rows = grad.flatten(0, -2)
        if ctx.needs_input_grad[0]:
            grad_x = _product(grad, weight.t())
        if ctx.needs_input_grad[1]:
            grad_weight = _products_over_rows(rows, x.flatten(0, -2))
        return grad_x, grad_weight, rows.sum(0) if ctx.needs_input_grad[2] else None


class _Attention(Function):
    @staticmethod
    def forward(ctx, projected, heads, share):
        batch, tokens, _ = projected.shape
        kept = _kept(torch.Size((batch, heads, tokens, tokens)), share) if share else None
        ctx.heads, ctx.share = heads, share
        ctx.save_for_backward(projected, kept)
        out = projected.new_empty(*projected.shape[:2], projected.shape[2] // 3)
        for i, (sample, mixed) in enumerate(zip(projected, out, strict=True)):
            query, key, value = _by_head(sample, 3, heads)
            weights = _attention_weights(query, key)
            if kept is not None:
                weights *= kept[i]
            mixed = _by_head(mixed, 1, heads)[0]
            mixed.copy_(_scaled_bmm(weights, value, 1 / (1 - share)))
        return out

    @staticmethod
    def backward(ctx, grad):
        projected, kept = ctx.saved_tensors
        heads, share, grad_projected = ctx.heads, ctx.share, torch.empty_like(projected)
        rows = zip(projected, grad, grad_projected, strict=True)
        for i, (sample, sent, found) in enumerate(rows):
            query, key, value = _by_head(sample, 3, heads)
            grad_mixed, up = _by_head(sent, 1, heads)[0], 1 / (1 - share)
            weights = dropped = _attention_weights(query, key)
            grad_weights = _scaled_bmm(grad_mixed, value.mT, up)
            if kept is not None:
                dropped = weights * kept[i]
                grad_weights *= kept[i]
            scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            scale = 1 / math.sqrt(query.shape[-1])
            of_query, of_key, of_value = _by_head(found, 3, heads)
            of_value.copy_(_scaled_bmm(dropped.mT, grad_mixed, up))
            of_query.copy_(_scaled_bmm(scores, key, scale))
            of_key.copy_(_scaled_bmm(scores.mT, query, scale))
        return grad_projected, None, None


class _Dropout(Function):
    @staticmethod
    def forward(ctx, x, share):
        kept = _kept(x.shape, share)
        ctx.save_for_backward(kept)
        ctx.scale = 1 / (1 - share)
        return (x * kept).mul_(ctx.scale)

    @staticmethod
    def backward(ctx, grad):
        (kept,) = ctx.saved_tensors
        return (grad * kept).mul_(ctx.scale), None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _products_over_rows(left: Tensor, right: Tensor) -> Tensor:
    """Return left^T right; oneDNN copies the transposed first factor, so that is the narrow one."""
    if left.shape[1] > right.shape[1]:
        return _product(right.t(), left.t()).t()
    return _product(left.t(), right.t())


def _by_head(rows: Tensor, count: int, heads: int) -> Float[Tensor, "count head token feature"]:
    return rows.unflatten(1, (count, heads, -1)).permute(1, 2, 0, 3)


def _attention_weights(query: Tensor, key: Tensor) -> Float[Tensor, "head token token"]:
    return torch.softmax(_scaled_bmm(query, key.mT, 1 / math.sqrt(query.shape[-1])), -1)


def _scaled_bmm(x: Tensor, y: Tensor, scale: float) -> Tensor:
    out = x.new_empty(len(x), x.shape[1], y.shape[2])
    return torch.baddbmm(out, x, y, beta=0, alpha=scale, out=out)


def _kept(shape: torch.Size, share: float) -> Tensor:
    """Return which numbers stay; four are decided by one draw."""
    count = shape.numel()
    draws = torch.empty((count + 3) // 4, dtype=torch.int64)
    draws.random_(-(2**63), None)
    bits = draws.view(torch.int16)[:count].view(shape)
    return bits >= round(share * LEVELS) - LEVELS // 2
