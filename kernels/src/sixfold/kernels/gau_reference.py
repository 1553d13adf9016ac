"""The plain formulation of `sixfold.kernels.gau_attention`."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

PIECE = 2**19  # numbers of v in a few groups


def memory_of(lin_k: Tensor, values: Tensor, group: int, causal: bool) -> Tensor:
    """Return M, (batch, 1 or groups, key, value): the memory that linear queries read."""
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
    """Attend to the group and to the memory, and gate.

    On a CPU a few groups at a time, so that the intermediate results stay in the cache.
    """
    memories = (memory_v, memory_u)
    groups = max(1, PIECE // max(1, v.shape[0] * v.shape[2] * group))
    if torch.compiler.is_compiling() or v.device.type != "cpu" or v.shape[1] <= groups * group:
        return _attend(quad_q, quad_k, lin_q, v, u, *memories, mask, group, causal, dropout)
    inputs = [value.split(groups * group, 1) for value in (quad_q, quad_k, lin_q, v, u)]
    count = len(inputs[0])
    inputs += [m.split(groups, 1) if causal else [m] * count for m in memories]
    masks = [None] * count if mask is None else mask.split(groups * group, 1)
    pieces = zip(*inputs, masks, strict=True)
    options: dict[str, Any] = {"group": group, "causal": causal, "dropout": dropout}
    return torch.cat([_attend(*piece, **options) for piece in pieces], 1)


def _attend(
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
    dropout: float,
) -> Tensor:
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
    """Add A times the values to the part that was read from the memory, in one product."""
    (batch, tokens, width), (groups, group) = values.shape, scores.shape[1:3]
    own = grouped(values, group).flatten(0, 1)
    read = (far @ memory).reshape(own.shape)
    whole = torch.baddbmm(read, scores.flatten(0, 1), own)
    return whole.view(batch, groups * group, width)[:, :tokens]


def grouped(x: Tensor, group: int) -> Tensor:
    """Pad axis 1 with zeros and split it into groups, (batch, groups, group, ...).

    An exported graph always pads, by one more group if need be; else it would hold for full groups
    alone, or for others alone.
    """
    groups = (x.shape[1] + group - 1) // group
    if torch.compiler._is_exporting_flag:
        groups = x.shape[1] // group + 1
    missing = groups * group - x.shape[1]
    if torch.compiler.is_compiling() or missing:  # a traced graph is for any number of tokens
        x = functional.pad(x, (0, 0) * (x.ndim - 2) + (0, missing))
    return x.unflatten(1, (groups, group))


def spread(x: Tensor, memory: Tensor) -> Tensor:
    """View (batch, groups, group, ...) so that the second axis is that of a memory."""
    return x if memory.shape[1] > 1 else x.flatten(1, 2)[:, None]
