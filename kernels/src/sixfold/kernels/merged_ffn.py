"""Feed-forward block with idle channels (RePaViT), merged into two matrix products.

While it trains the block is ``x + W_out act(W_in x + b_in) + b_out`` with a norm before either
layer, where ``act`` is GELU on the first ``active`` hidden channels and the identity on the rest.
The path through the idle channels is linear: one matrix of the input's width, shortcut included:

    y = W3 gelu(W2 x + b2) + (A x + b1)      A = I + W_out[:, idle] W_in[idle]

With width C, hidden width M and a active channels, a token costs (C + 2 a) C multiplications
instead of 2 M C. A and W2 read the same x, so they are one product; the last product adds to A x.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Affine = tuple[Tensor, Tensor]


def merged_ffn(
    x: Float[Tensor, "*batch width"],
    weight: Float[Tensor, "width_and_active width"],
    bias: Float[Tensor, " width_and_active"],
    out_weight: Float[Tensor, "width active"],
) -> Float[Tensor, "*batch width"]:
    """Apply the merged block, which replaces the shortcut as well.

    Args:
        x: Tokens.
        weight: Rows of A, then of W2.
        bias: Entries of b1, then of b2.
        out_weight: Weight W3, perhaps without columns.

    Raises:
        ValueError: sizes do not agree.
    """
    width, active = out_weight.shape
    if x.shape[-1] != width or weight.shape != (width + active, width):
        raise ValueError(
            f"merged_ffn: out_weight {tuple(out_weight.shape)} needs x of {width} coordinates and "
            f"a weight ({width + active}, {width}), got x {tuple(x.shape)} and weight "
            f"{tuple(weight.shape)}"
        )
    both = functional.linear(x.reshape(-1, width), weight, bias)
    straight, hidden = both.split((width, active), 1)
    return torch.addmm(straight, functional.gelu(hidden), out_weight.t()).view(x.shape)


def merge_ffn(
    layer_in: Affine,
    layer_out: Affine,
    *,
    active: int,
    norm_in: Affine | None = None,
    norm_out: Affine | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``weight``, ``bias`` and ``out_weight`` of `merged_ffn`, computed in float64.

    A layer scale after the block belongs in ``layer_out``, weight rows and bias alike.

    Args:
        layer_in: Weight (hidden, width) and bias of the first layer.
        layer_out: Weight (width, hidden) and bias of the second.
        active: Number of hidden channels with an activation, which come first.
        norm_in: Scale and offset (width,) of a batch norm before the first layer:
            ``gamma / sqrt(var + eps)`` and ``beta - mean * scale``.
        norm_out: Scale and offset (hidden,) of a batch norm before the second layer.

    Raises:
        ValueError: sizes do not agree or ``active`` exceeds the hidden width.
    """
    (hidden, width), dtype = layer_in[0].shape, layer_in[0].dtype
    if layer_out[0].shape != (width, hidden) or not 0 <= active <= hidden:
        raise ValueError(
            f"merge_ffn: a first layer {(hidden, width)} needs a second one {(width, hidden)} and "
            f"0 to {hidden} active channels, got {tuple(layer_out[0].shape)} and {active}"
        )
    w_in, b_in = _fold(layer_in, norm_in)
    w_out, b_out = _fold(layer_out, norm_out)
    eye = torch.eye(width, dtype=torch.float64, device=w_in.device)
    straight = eye + w_out[:, active:] @ w_in[active:]
    offset = b_out + w_out[:, active:] @ b_in[active:]
    weight = torch.cat([straight, w_in[:active]])
    bias = torch.cat([offset, b_in[:active]])
    return weight.to(dtype), bias.to(dtype), w_out[:, :active].to(dtype)


def _fold(layer: Affine, norm: Affine | None) -> Affine:
    """Fold a norm of the layer's input into the layer, in float64."""
    weight, bias = (value.double() for value in layer)
    if norm is None:
        return weight, bias
    scale, offset = (value.double() for value in norm)
    return weight * scale, bias + weight @ offset
