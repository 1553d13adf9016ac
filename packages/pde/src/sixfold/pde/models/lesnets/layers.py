"""Parts of LESnets' networks: the Fourier layer and the head.

Features are (batch, channel, x, y, z, time): the layout of `sixfold.kernels.spectral_conv`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.kernels import spectral_conv
from sixfold.pde.models.lesnets.head import head_in_blocks

Features = Float[Tensor, "batch channel x y z time"]
Out = Float[Tensor, "batch out x y z time"]
Modes = tuple[int, int, int, int]

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
    """fc2(act(fc1(x))) at each point; on a CPU in blocks, see `head_in_blocks`."""

    def __init__(self, width: int, hidden: int, act: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, 3)
        self.act = ACTIVATIONS[act]

    def forward(self, x: Features) -> Out:
        points, first, second = x.flatten(2), self.fc1, self.fc2
        if _in_blocks(x):
            weights = (first.weight, first.bias, second.weight, second.bias)
            return head_in_blocks(self.act, points, *weights).unflatten(2, x.shape[2:])
        hidden = self.act(first.weight @ points + first.bias[:, None])
        return (second.weight @ hidden + second.bias[:, None]).unflatten(2, x.shape[2:])


def _in_blocks(x: Tensor) -> bool:
    """Return whether blocks pay: on a CPU, where no tracer or cast looks at the operations."""
    traced = torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type)
    return x.device.type == "cpu" and not traced
