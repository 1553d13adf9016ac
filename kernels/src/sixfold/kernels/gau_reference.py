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
    far = spread(grouped(lin_q, group), memory_v)
    att_v = _attention(scores, v, far, memory_v)
    att_u = _attention(scores, u, far, memory_u)
    return att_u * v * torch.sigmoid(att_v * u)


def _attention(scores: Tensor, values: Tensor, far: Tensor, memory: Tensor) -> Tensor:
    """Add A times the values to what was read from the memory, in one product."""
    (batch, tokens, width), (groups, group) = values.shape, scores.shape[1:3]
    own = grouped(values, group).flatten(0, 1)
    read = (far @ memory).reshape(own.shape)
    whole = torch.baddbmm(read, scores.flatten(0, 1), own)
    return whole.view(batch, groups * group, width)[:, :tokens]


def grouped(x: Tensor, group: int) -> Tensor:
    """Fill up axis 1 with zeros and split it into groups, (batch, groups, group, ...)."""
    missing = -x.shape[1] % group
    if torch.compiler.is_compiling() or missing:  # a traced graph is for any number of tokens
        x = functional.pad(x, (0, 0) * (x.ndim - 2) + (0, missing))
    return x.unflatten(1, (x.shape[1] // group, group))


def spread(x: Tensor, memory: Tensor) -> Tensor:
    """View (batch, groups, group, ...) so that its second axis is that of a memory."""
    return x if memory.shape[1] > 1 else x.flatten(1, 2)[:, None]
