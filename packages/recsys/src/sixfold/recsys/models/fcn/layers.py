"""Cross networks of FCN: multi-head embedding, exponential and linear layers with Self-Mask."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sixfold.core import UserError
from sixfold.kernels import cross_epilogue
from sixfold.recsys.layers.dropout import Dropout


def split_heads(
    embedded: Float[Tensor, "batch field dims"], heads: int
) -> Float[Tensor, "batch head width"]:
    """Cut each field's vector into heads, and lay the first halves of all before the second ones.

    Both halves of every field are kept apart, as two views of it, whatever the number of heads.

    Args:
        embedded: Vectors of the fields, of ``heads`` times an even number of coordinates.
        heads: Number of heads.
    """
    views = embedded.unflatten(2, (heads, 2, -1))  # batch field head half coordinate
    return views.permute(0, 2, 3, 1, 4).flatten(2)


class CrossNetwork(nn.Module):
    """Logits of every head, (batch, head, output), of a stack of cross layers.

    The exponential network multiplies by its own last output, so that the order of interactions
    doubles in each layer; the linear one by its input, so that it grows by one. A layer's product
    is half as wide as its input: the other half is the product masked by itself. The heads share
    all weights but those of the batch norm.

    Args:
        width: Width of the input.
        layers: Number of layers.
        exponential: Whether a layer multiplies by its own input, or by the network's.
        heads: Number of heads, the channels of the batch norm.
        layer_norm: Whether the mask is normalised over a head's coordinates.
        batch_norm: Whether the product is normalised per head, over samples and coordinates.
        dropout: Probability of dropout behind each layer.
        outputs: Number of logits.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        *,
        exponential: bool,
        heads: int,
        layer_norm: bool,
        batch_norm: bool,
        dropout: float,
        outputs: int,
    ) -> None:
        super().__init__()
        half, numbers = width // 2, range(layers)
        self.exponential = exponential
        self.w = nn.ModuleList(nn.Linear(width, half, bias=False) for _ in numbers)
        self.b = nn.ParameterList(torch.rand(width) for _ in numbers)
        self.layer_norm = nn.ModuleList(nn.LayerNorm(half) for _ in numbers if layer_norm)
        self.batch_norm = nn.ModuleList(nn.BatchNorm1d(heads) for _ in numbers if batch_norm)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(width, outputs)

    def forward(
        self,
        x0: Float[Tensor, "batch head width"],
        product: Float[Tensor, "batch head half"] | None = None,
    ) -> Float[Tensor, "batch head output"]:
        """Compute the logits.

        Args:
            x0: Input.
            product: Product of the first layer, if it was computed before.
        """
        x = x0
        for number, (linear, bias) in enumerate(zip(self.w, self.b, strict=True)):
            h = linear(x) if number or product is None else product
            if self.batch_norm:
                h = self.batch_norm[number](h)
            multiplier = None if self.exponential or not number else x0  # None stands for x
            x = cross_epilogue(h, x, bias, x0=multiplier, norm=self._norm(number))
            x = self.dropout(x)
        return self.head(x)

    def _norm(self, number: int) -> tuple[Tensor, Tensor] | None:
        if not self.layer_norm:
            return None
        norm: Any = self.layer_norm[number]
        return norm.weight, norm.bias


def first_products(
    x0: Float[Tensor, "batch head width"], *networks: CrossNetwork
) -> tuple[Float[Tensor, "batch head half"], ...]:
    """Compute the products of the first layers of several networks in one."""
    weights = torch.cat([network.w[0].weight for network in networks])  # type: ignore[misc]
    return nn.functional.linear(x0, weights).chunk(len(networks), -1)


def refuse_half(x: Tensor) -> None:
    """Refuse 16-bit floats of small range.

    Raises:
        UserError: the dtype is float16, or autocast would make it so.
    """
    device = x.device.type
    autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
    if torch.float16 in (x.dtype, autocast):
        raise UserError(
            "FCN does not run in float16: its layers multiply activations with one another, which "
            "overflows beyond 65504; use bfloat16 or float32"
        )
