"""Convolutions of inference on a CPU: kernels in oneDNN's own layout, ReLU and shortcut inside.

PyTorch brings a kernel to that layout in every call, which for the widest layers takes as long as
the convolution. The operators are those that PyTorch's compiler puts in the place of convolutions;
they know neither gradients nor exports.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

Planar = Float[Tensor, "batch _channels2 _height _width"]


def can_pack(device: torch.device) -> bool:
    """Return whether this PyTorch has the operators, and the device is theirs."""
    return (
        device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
    )


class PackedConv(nn.Module):
    """A real convolution with a bias, followed by a ReLU if asked for."""

    def __init__(self, conv: nn.Conv2d, *, relu: bool) -> None:
        super().__init__()
        self.geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.after = "relu" if relu else "none"
        self.bias = conv.bias
        pack = torch.ops.aten.mkldnn_reorder_conv2d_weight
        self.kernel = pack(conv.weight.detach().to_mkldnn(), *self.geometry)

    def forward(self, x: Planar) -> Planar:
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.kernel, self.bias, *self.geometry, self.after, [], ""
        )

    def add_to(self, other: Planar, x: Planar) -> Planar:
        """Return relu(other + convolution of x), written over ``other``."""
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            other, x, self.kernel, self.bias, *self.geometry, "add", 1.0, "relu", [], ""
        )


class PackedBlock(nn.Module):
    """A residual block; it writes over its input where the shortcut is the input itself."""

    def __init__(self, convs: list[nn.Conv2d], shortcut: nn.Conv2d | None) -> None:
        super().__init__()
        self.convs = nn.ModuleList(PackedConv(conv, relu=True) for conv in convs)
        self.shortcut = None if shortcut is None else PackedConv(shortcut, relu=False)

    def forward(self, x: Planar) -> Planar:
        other = x if self.shortcut is None else self.shortcut(x)
        *before, last = self.convs
        for conv in before:
            x = conv(x)
        assert isinstance(last, PackedConv)
        return last.add_to(other, x)
