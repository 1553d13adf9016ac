"""Joint attention of a gated attention unit: quadratic inside groups, linear across them.

For the groups j of g tokens, with q, k the quadratic and lin_q, lin_k the linear queries and keys:

    A = relu(q_j k_j^T / g)^2                       (causal: no later keys)
    M = lin_k^T v / tokens                          (causal: sum over the groups before j, / g)
    att_v = A v_j + lin_q_j M, and att_u from u in the same way
    out = att_u * v * sigmoid(att_v * u)

There is no softmax and no division by the root of the width. Source: the FLASH layer (Hua et al.,
arXiv 2202.10447) with the gate of MossFormer (Zhao & Ma, arXiv 2302.11824).

Written out this moves about 50 kB a token in bfloat16 (256 tokens a group, keys of 128, values of
1024): A, four partial results, their sums, the gate. The reference adds the linear part inside the
product with A. The Triton kernels keep A and both sums on the chip: 12 kB, read q, k, v, u and
write the result.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sixfold.kernels._dispatch import use_fused
from sixfold.kernels.gau_fused import MAX_WIDTH, gau_fused
from sixfold.kernels.gau_reference import attend_reference, memory_of

Key = Float[Tensor, "batch token key"]
Value = Float[Tensor, "batch token value"]


def gau_attention(
    quad_q: Key,
    quad_k: Key,
    lin_q: Key,
    lin_k: Key,
    v: Value,
    u: Value,
    *,
    group: int = 256,
    mask: Bool[Tensor, "batch token"] | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Value:
    """Attend and gate; any number of tokens, the last group is padded with zeros.

    Under autocast all inputs are cast to autocast's dtype. With dropout the reference runs on a GPU
    too.

    Args:
        quad_q: Queries of the attention inside a group.
        quad_k: Keys of the attention inside a group.
        lin_q: Queries of the attention across groups.
        lin_k: Keys of the attention across groups.
        v: Values.
        u: Second values, which gate.
        group: Number of tokens in a group.
        mask: True where a token may be attended to. The sums are divided by the number of all
            tokens all the same.
        causal: Whether to attend to no later token: inside a group up to the token itself, across
            groups to the complete groups before.
        dropout: Probability of dropping an entry of A; zero outside of training.

    Raises:
        TypeError: the inputs have several dtypes, outside autocast.
        ValueError: sizes do not fit; the message names both.
    """
    tensors = (quad_q, quad_k, lin_q, lin_k, v, u)
    if torch.is_autocast_enabled(v.device.type):
        dtype = torch.get_autocast_dtype(v.device.type)
        tensors = tuple(value.to(dtype) for value in tensors)
    _check(tensors, mask, group)
    quad_q, quad_k, lin_q, lin_k, v, u = tensors
    if mask is not None:
        lin_k = lin_k.masked_fill(~mask[..., None], 0)
    memory_v, memory_u = (memory_of(lin_k, values, group, causal) for values in (v, u))
    inputs, unsupported = (quad_q, quad_k, lin_q, v, u, memory_v, memory_u, mask), None
    if dropout:
        unsupported = "its kernels have no dropout"
    elif quad_q.shape[-1] > MAX_WIDTH:
        unsupported = f"its kernels take keys of at most {MAX_WIDTH} features"
    if use_fused("gau_attention", *tensors, unsupported=unsupported):
        return gau_fused(*inputs, group, causal)
    return attend_reference(*inputs, group, causal, dropout)


def _check(tensors: tuple[Tensor, ...], mask: Tensor | None, group: int) -> None:
    keys, values = tensors[0].shape, tensors[4].shape
    fit = len(keys) == len(values) == 3 and keys[:2] == values[:2]
    if not fit or any(value.shape != keys for value in tensors[1:4]) or tensors[5].shape != values:
        shapes = ", ".join(str(tuple(value.shape)) for value in tensors)
        raise ValueError(
            "gau_attention: quad_q, quad_k, lin_q and lin_k should be (batch, tokens, key), v and "
            f"u (batch, tokens, value), got {shapes}"
        )
    if len({value.dtype for value in tensors}) > 1:
        dtypes = ", ".join(str(value.dtype) for value in tensors)
        raise TypeError(f"gau_attention: inputs should be of one type, got {dtypes}; cast them")
    if mask is not None and mask.shape != keys[:2]:
        raise ValueError(
            f"gau_attention: mask should be {tuple(keys[:2])}, as (batch, tokens) of the others, "
            f"got {tuple(mask.shape)}"
        )
    if group < 1:
        raise ValueError(f"gau_attention: group should be at least 1 token, got {group}")
