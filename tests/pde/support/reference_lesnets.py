"""LESnets as published: full transforms, eight corner blocks, features moved to and fro.

A literal form of the published description that benchmarks and tests compare with; it takes the
weights under the official names.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sixfold.pde.models.lesnets import LESnets, to_official
from sixfold.pde.models.lesnets.model import features

# First (low) or last (high) modes of x, y and z, in the order of the weights.
CORNERS = ("+++", "-++", "+-+", "--+", "-+-", "++-", "+--", "---")
AXES = (2, 3, 4, 5)


class ReferenceLESnets(nn.Module):
    """The explicit network (FNO) from one of ours; maps fields to frames as ours does."""

    def __init__(self, model: LESnets) -> None:
        super().__init__()
        self.frames, self.layers = model.config.frames, model.config.num_layers
        state = {k.replace(".", "_"): nn.Parameter(v) for k, v in to_official(model).items()}
        self.weights = nn.ParameterDict(state)

    def forward(self, u0: Tensor) -> Tensor:
        x = features(u0, self.frames).permute(0, 2, 3, 4, 5, 1).contiguous()
        x = functional.linear(x, self.weights["fc0_weight"], self.weights["fc0_bias"])
        x = x.permute(0, 5, 1, 2, 3, 4)
        for number in range(self.layers):
            x = self._spectral(x, number) + self._pointwise(x, number)
            x = functional.gelu(x) if number < self.layers - 1 else x
        x = x.permute(0, 2, 3, 4, 5, 1)
        x = functional.linear(x, self.weights["fc1_weight"], self.weights["fc1_bias"])
        x = functional.linear(
            functional.gelu(x), self.weights["fc2_weight"], self.weights["fc2_bias"]
        )
        return x.permute(0, 1, 2, 3, 5, 4)

    def _pointwise(self, x: Tensor, number: int) -> Tensor:
        weight, bias = self.weights[f"ws_{number}_weight"], self.weights[f"ws_{number}_bias"]
        return functional.conv1d(x.reshape(*x.shape[:2], -1), weight, bias).view(x.shape)

    def _spectral(self, x: Tensor, number: int) -> Tensor:
        blocks = [self.weights[f"sp_convs_{number}_weights{i}"] for i in range(1, 9)]
        return spectral(x, blocks)


def spectral(x: Tensor, blocks: list[Any]) -> Tensor:
    """Transform all axes in full, mix block by block into zeros, transform back."""
    hat = torch.fft.rfftn(x, dim=AXES)
    mixed = torch.zeros(
        x.shape[0], blocks[0].shape[1], *hat.shape[2:], dtype=hat.dtype, device=x.device
    )
    for signs, block in zip(CORNERS, blocks, strict=True):
        ends = zip(signs, block.shape[2:5], strict=True)
        spots = [slice(m) if sign == "+" else slice(-m, None) for sign, m in ends]
        spot = (slice(None), slice(None), *spots, slice(block.shape[5]))
        mixed[spot] = torch.einsum("bixyzt,ioxyzt->boxyzt", hat[spot], block)
    return torch.fft.irfftn(mixed, s=x.shape[2:], dim=AXES)


def gradients(network: nn.Module) -> Mapping[str, Tensor]:
    """Return the gradients of a reference network by the official names, dots as underscores."""
    found = network.get_submodule("weights").named_parameters()
    return {name: p.grad for name, p in found if p.grad is not None}
