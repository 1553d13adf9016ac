"""The cross layers of DCNv2, which FCN's linear network is compared with."""

from jaxtyping import Float
from torch import Tensor, nn


class CrossLayersV2(nn.Module):
    """x_{l+1} = x_0 (W_l x_l + b_l) + x_l, with square weights.

    Args:
        width: Width of the input.
        layers: Number of layers.
        batch_norm: Whether each product is normalised over samples and coordinates, as FCN's are
            with one head.
    """

    def __init__(self, width: int, layers: int, batch_norm: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(1) for _ in range(layers if batch_norm else 0))

    def forward(self, x0: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        x = x0
        for number, layer in enumerate(self.layers):
            crossed = layer(x)
            if self.norms:
                crossed = self.norms[number](crossed[:, None])[:, 0]
            x = x0 * crossed + x
        return x
