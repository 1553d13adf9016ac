"""Parts of LESnets' networks: the Fourier layer, and the head in blocks of points.

Features are (batch, channel, x, y, z, time): the layout of `sixfold.kernels.spectral_conv`.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sixfold.kernels import spectral_conv

Features = Float[Tensor, "batch channel x y z time"]
Out = Float[Tensor, "batch out x y z time"]
Modes = tuple[int, int, int, int]
BLOCK = 8192  # points of the head at once: its hidden features stay in the cache

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "relu": functional.relu,
    "elu": functional.elu,
    "leaky_relu": functional.leaky_relu,
}


class FourierLayer(nn.Module):
    """S(x) + w(x): channels mixed at the lowest modes of space and time, and at each point."""

    def __init__(self, width: int, modes: Modes) -> None:
        super().__init__()
        kept = [2 * m for m in modes[:3]] + [modes[3]]
        # uniform in [0, 1 / (in out)), as the authors begin
        self.spectral = nn.Parameter(torch.rand(*kept, width, width, 2) / width**2)
        self.pointwise = nn.Linear(width, width)

    def forward(self, x: Features) -> Features:
        return pointwise(self.pointwise, x, onto=spectral_conv(x, self.spectral))


def pointwise(linear: nn.Linear, x: Features, onto: Out | None = None) -> Out:
    """Apply a linear layer to the channels of each point, and add the result to other features."""
    points = x.flatten(2)
    bias = linear.bias[:, None]
    if onto is None:
        found = linear.weight @ points + bias
    else:
        weight = linear.weight.expand(x.shape[0], -1, -1)
        found = torch.baddbmm(onto.flatten(2) + bias, weight, points)
    return found.unflatten(2, x.shape[2:])


class Head(nn.Module):
    """fc2(act(fc1(x))) at each point.

    The hidden features, 128 a point, are the largest tensors of the network. They are made for a
    block of points, and again in the backward pass instead of being kept.
    """

    def __init__(self, width: int, hidden: int, act: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, 3)
        self.act = ACTIVATIONS[act]

    def forward(self, x: Features) -> Out:
        points = x.flatten(2)
        if torch.compiler.is_compiling():  # a graph has one product, which any batch fits
            return self._velocity(points).unflatten(2, x.shape[2:])
        velocity = self._recomputed if torch.is_grad_enabled() else self._velocity
        parts = [velocity(block) for block in points.split(BLOCK, 2)]
        return torch.cat(parts, 2).unflatten(2, x.shape[2:])

    def _recomputed(self, points: Tensor) -> Any:
        return checkpoint(self._velocity, points, use_reentrant=False, preserve_rng_state=False)

    def _velocity(self, points: Tensor) -> Tensor:
        hidden = self.act(self.fc1.weight @ points + self.fc1.bias[:, None])
        return self.fc2.weight @ hidden + self.fc2.bias[:, None]
