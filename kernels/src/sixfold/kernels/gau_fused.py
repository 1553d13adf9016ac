"""The fused path of `sixfold.kernels.gau_attention`, for one memory of v and one of u.

The backward pass keeps no intermediate result of the forward pass. Its kernels write the gradients
of att_v and att_u and, small as they are, A and the gradient of S; the rest are matrix products.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sixfold.kernels._dispatch import DEVICES, interpreted, reference_vjp
from sixfold.kernels.gau_kernels import attend, score_gradients
from sixfold.kernels.gau_reference import attend_reference, grouped, spread

MAX_WIDTH = 128  # of queries and keys, which a program holds whole


@torch.library.custom_op("sixfold::gau_attention", mutates_args=(), device_types=DEVICES)
def gau_fused(
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
) -> Tensor:
    """Launch the forward kernel; the arguments are those of `attend_reference`."""
    tensors = _contiguous(quad_q, quad_k, lin_q, v, u, memory_v, memory_u, mask)
    out = v.new_empty(v.shape)
    if out.numel():
        attend[_grid(v, group, "COLUMNS")](*tensors, None, out, **_sizes(quad_q, v, group, causal))
    return out


@gau_fused.register_fake
def _(quad_q, quad_k, lin_q, v, u, memory_v, memory_u, mask, group, causal):
    return v.new_empty(v.shape)


@torch.library.custom_op("sixfold::gau_attention_backward", mutates_args=(), device_types=DEVICES)
def gau_backward(
    grad: Tensor,
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the first seven arguments of `gau_fused`."""
    tensors = quad_q, quad_k, lin_q, v, u, memory_v, memory_u, mask = _contiguous(
        quad_q, quad_k, lin_q, v, u, memory_v, memory_u, mask
    )
    if v.numel() == 0:
        made = [torch.zeros_like(value) for value in tensors[:7] if value is not None]
        return made[0], made[1], made[2], made[3], made[4], made[5], made[6]
    (batch, tokens, width), groups = v.shape, -(-v.shape[1] // group)
    made = v.new_empty(4, batch, groups, group, width)
    scores = v.new_empty(2, batch, groups, group, group)
    sizes = _sizes(quad_q, v, group, causal)
    attend[_grid(v, group, "COLUMNS")](*tensors, grad.contiguous(), made, **sizes)
    score_gradients[_grid(v, group, "KEYS")](quad_q, quad_k, v, u, mask, made, scores, **sizes)
    (grad_att_v, grad_att_u, grad_v, grad_u), (a, grad_s) = made, scores
    grad_v, grad_u = grad_v + a.mT @ grad_att_v, grad_u + a.mT @ grad_att_u
    grad_q = grad_s @ grouped(quad_k / group, group)
    grad_k = grad_s.mT @ grouped(quad_q / group, group)
    far, att_v, att_u = (
        spread(value, memory_v) for value in (grouped(lin_q, group), grad_att_v, grad_att_u)
    )
    grad_lin_q = att_v @ memory_v.mT + att_u @ memory_u.mT
    flat = [_flat(value, tokens) for value in (grad_q, grad_k, grad_lin_q, grad_v, grad_u)]
    return flat[0], flat[1], flat[2], flat[3], flat[4], far.mT @ att_v, far.mT @ att_u


@gau_backward.register_fake
def _(grad, quad_q, quad_k, lin_q, v, u, memory_v, memory_u, mask, group, causal):
    inputs = (quad_q, quad_k, lin_q, v, u, memory_v, memory_u)
    return tuple(value.new_empty(value.shape) for value in inputs)


def _setup(ctx, inputs, output):
    *tensors, ctx.group, ctx.causal = inputs
    ctx.save_for_backward(*tensors)


def _pull(ctx, grad):
    *inputs, mask = ctx.saved_tensors
    group, causal = ctx.group, ctx.causal
    if torch.is_grad_enabled():

        def reference(q, k, lin_q, v, u, memory_v, memory_u):
            return attend_reference(q, k, lin_q, v, u, memory_v, memory_u, mask, group, causal)

        needed = ctx.needs_input_grad[:7]
        grads = reference_vjp("gau_attention", reference, inputs, needed, grad)
    else:
        q, k, lin_q, v, u, memory_v, memory_u = inputs
        tensors = (grad, q, k, lin_q, v, u, memory_v, memory_u, mask)
        grads = gau_backward(*tensors, group, causal)
    return *grads, None, None, None


gau_fused.register_autograd(_pull, setup_context=_setup)


def _grid(v: Tensor, group: int, across: str) -> Callable[[dict], tuple[int, int, int]]:
    """Return the grid: blocks of rows of each group, and blocks of values (COLUMNS) or KEYS."""
    size = v.shape[2] if across == "COLUMNS" else group
    batch_groups = v.shape[0] * -(-v.shape[1] // group)
    return lambda tile: (-(-size // tile[across]), -(-group // tile["ROWS"]), batch_groups)


def _sizes(quad_q: Tensor, v: Tensor, group: int, causal: bool) -> dict[str, int | str]:
    """Return the kernels' arguments that are no tensors."""
    width, exact = quad_q.shape[2], torch.backends.cuda.matmul.fp32_precision != "tf32"
    return {
        "tokens": v.shape[1],
        "D": width,
        "E": v.shape[2],
        "GROUP": group,
        "CAUSAL": causal,
        "UPCAST": interpreted(),
        "PRECISION": "ieee" if exact else "tf32",
        "WIDTH": max(16, 1 << (width - 1).bit_length()),
    }


def _contiguous(*tensors: Tensor | None) -> list:
    return [None if value is None else value.contiguous() for value in tensors]


def _flat(x: Tensor, tokens: int) -> Tensor:
    """Join the groups and drop the padding of the last one."""
    return x.flatten(1, 2)[:, :tokens].contiguous()
