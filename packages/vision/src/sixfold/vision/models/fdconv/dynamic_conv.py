"""Dynamic convolution (DY-Conv), the baseline: kernels that samples mix by softmax attention.

Y. Chen et al., "Dynamic convolution: attention over convolution kernels", CVPR 2020.
arXiv:1912.03458. The paper lowers the temperature from 30 to 1 while it trains; here it is fixed.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sixfold.vision.models.fdconv.sample_conv import convolve_samples

TEMPERATURE = 4.0
REDUCTION = 4  # of the attention's hidden layer


class DynamicConv2d(nn.Conv2d):
    """Convolution with several kernels, mixed for each sample.

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        kernel_size: Side of the kernels.
        kernels: Number of kernels.
        options: Other arguments of `torch.nn.Conv2d`.
    """

    weight: nn.Parameter | None  # type: ignore[assignment]

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, kernels: int, **options: Any
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **options)
        drawn = [nn.Conv2d(in_channels, out_channels, kernel_size).weight for _ in range(kernels)]
        self.weights = nn.Parameter(torch.stack([kernel.detach() for kernel in drawn]))
        self.register_parameter("weight", None)
        hidden = max(in_channels // REDUCTION, 4)
        self.attention = nn.Sequential(
            nn.Linear(in_channels, hidden), nn.ReLU(), nn.Linear(hidden, kernels)
        )

    def forward(self, input: Float[Tensor, "batch in height width"]) -> Tensor:
        shares = (self.attention(input.mean((2, 3))) / TEMPERATURE).softmax(1)
        kernels = torch.einsum("bm,moihw->boihw", shares, self.weights)
        y = convolve_samples(input, kernels, self.stride, self.padding, self.dilation, self.groups)
        return y if self.bias is None else y + self.bias[:, None, None]
