"""The plain formulation of `sixfold.kernels.gau_attention`."""

import torch
from torch import Tensor
from torch.nn import functional


def memory_of(lin_k: Tensor, values: Tensor, group: int, causal: bool) -> Tensor:
    """Return M, (batch, 1 or groups, key, value): what the linear queries read."""
    if not causal:
        return (lin_k.mT @ values / values.shape[1])[:, None]
    total = (grouped(lin_k, group).mT @ grouped(values, group) / group).cumsum(1)
    return functional.pad(total[:, :-1], (0, 0, 0, 0, 1, 0))  # only the groups before


def attend_reference(
    quad_q: Tensor,
    quad_k: Tensor,
    lin_q: Tensor,
    v: Tensor,
    u: Tensor,
    memory_v: Tensor,
    memory_u: Tensor,
    mask: Tensor | None,
    group: int,
    causal: bool,
    dropout: float = 0.0,
) -> Tensor:
    """Attend to the group and to the memory, and gate."""
    scores = (grouped(quad_q / group, group) @ grouped(quad_k, group).mT).relu().square()
    if mask is not None:
        scores = scores.masked_fill(~grouped(mask, group)[:, :, None], 0)
    if causal:
        scores = scores.tril()
    if dropout:
        scores = functional.dropout(scores, dropout)
    (batch, tokens, width), groups = v.shape, scores.shape[1]
    near, far = scores.flatten(0, 1), spread(grouped(lin_q, group), memory_v)

    def attention(values: Tensor, memory: Tensor) -> Tensor:
        own = grouped(values, group).flatten(0, 1)
        whole = torch.baddbmm((far @ memory).reshape(own.shape), near, own)
        return whole.view(batch, groups * group, width)[:, :tokens]

    return attention(u, memory_u) * v * torch.sigmoid(attention(v, memory_v) * u)


def grouped(x: Tensor, group: int) -> Tensor:
    """Fill up axis 1 with zeros and split it into groups, (batch, groups, group, ...)."""
    missing = -x.shape[1] % group
    if torch.compiler.is_compiling() or missing:  # a traced graph is for any number of tokens
        x = functional.pad(x, (0, 0) * (x.ndim - 2) + (0, missing))
    return x.unflatten(1, (x.shape[1] // group, group))


def spread(x: Tensor, memory: Tensor) -> Tensor:
    """View (batch, groups, group, ...) so that its second axis is that of a memory."""
    return x if memory.shape[1] > 1 else x.flatten(1, 2)[:, None]
