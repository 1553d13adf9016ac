"""Frequency band modulation (FBM): weigh the frequency bands of the input, place by place.

The official code takes band after band off the input, multiplies each by its map A and adds them
up. With the input x as L_0 and its low-passed versions L_1, L_2, ... that sum is

    A_1 x + (A_2 - A_1) L_1 + (A_3 - A_2) L_2 + ... + (A_low - A_n) L_n,    A_low = 1 if not learnt

so the bands themselves are never made, and the maps are one convolution.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import UserError
from sixfold.kernels import lowpass2d
from sixfold.vision.models.fdconv.kernel_modulation import INITIAL_STD
from sixfold.vision.models.fdconv.options import FBMOptions

MOST_GROUPS = 64


class FrequencyBandModulation(nn.Module):
    """Multiply each frequency band of a picture by a learnt map.

    Args:
        channels: Number of channels.
        options: Settings of the modulation.
    """

    def __init__(self, channels: int, options: FBMOptions) -> None:
        super().__init__()
        groups = options.spatial_group if options.spatial_group <= MOST_GROUPS else channels
        if channels % groups:
            raise UserError(
                f"fbm_cfg: spatial_group {groups} does not divide {channels} channels; choose one "
                "of its divisors"
            )
        self.options, self.groups = options, groups
        side = options.spatial_kernel
        self.freq_weight_conv_list = nn.ModuleList(
            nn.Conv2d(channels, groups, side, padding=side // 2, groups=groups)
            for _ in range(len(options.k_list) + options.lowfreq_att)
        )
        for conv in self.freq_weight_conv_list.modules():
            if isinstance(conv, nn.Conv2d) and conv.bias is not None:
                nn.init.normal_(conv.weight, std=INITIAL_STD)
                nn.init.zeros_(conv.bias)

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        maps = self.maps(x)
        lows = lowpass2d(x, [0.5 / k for k in self.options.k_list])
        factors = [maps[0]]
        factors += [after - before for before, after in pairwise(maps)]
        if not self.options.lowfreq_att:
            factors.append(1 - maps[-1])
        split = (self.groups, -1)
        y = x.unflatten(1, split) * factors[0]
        for factor, low in zip(factors[1:], lows, strict=True):
            y.addcmul_(low.unflatten(1, split), factor)
        return y.flatten(1, 2)

    def maps(self, x: Tensor) -> list[Float[Tensor, "batch group 1 height width"]]:
        """Return the map of each band, the highest first."""
        convs = [conv for conv in self.freq_weight_conv_list if isinstance(conv, nn.Conv2d)]
        # Band after band of each group, so that one grouped convolution computes all.
        weight = torch.stack([conv.weight for conv in convs], 1).flatten(0, 1)
        bias = torch.stack([conv.bias for conv in convs if conv.bias is not None], 1).flatten()
        padding = self.options.spatial_kernel // 2
        logits = functional.conv2d(x, weight, bias, padding=padding, groups=self.groups)
        bands = logits.unflatten(1, (-1, len(convs))).unbind(2)
        return [self._activate(logit)[:, :, None] for logit in bands]

    def _activate(self, logit: Float[Tensor, "batch group height width"]) -> Tensor:
        match self.options.act:
            case "sigmoid":
                return 2 * logit.sigmoid()
            case "tanh":
                return 1 + logit.tanh()
            case "softmax":
                return logit.softmax(1) * logit.shape[1]
