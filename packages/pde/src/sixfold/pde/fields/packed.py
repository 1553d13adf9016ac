"""Convolutions of inference on a CPU, with their kernels in oneDNN's own layout.

Otherwise PyTorch brings a kernel to that layout in every call, and maps to theirs and back. Here
channels stay last in memory from the first convolution to the last (benchmarks/sinenet.py measures
what that gains). The operators are those that PyTorch's compiler puts in the place of convolutions;
they know neither gradients nor exports.
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sixfold.pde.fields.convolution import PaddedConv, Part, PointwiseConv, joined, pad
from sixfold.pde.fields.recompute import Make


def packed(model: nn.Module) -> nn.Module:
    """Return a copy for inference alone, the fastest on a CPU; elsewhere the network itself.

    Its results are those of the network to rounding. It cannot be trained, saved or exported.

    Args:
        model: Network made of `PaddedConv` and `PointwiseConv`, in eval mode.
    """
    kernels = [m.weight for m in model.modules() if isinstance(m, PaddedConv | PointwiseConv)]
    if not kernels or not all(can_pack(kernel) for kernel in kernels):
        return model
    made = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(made.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, PaddedConv | PointwiseConv):
                setattr(module, name, PackedConv(child))
    return made


def can_pack(kernel: Tensor) -> bool:
    """Return whether this PyTorch has the operators, and a kernel's device and type are theirs."""
    return (
        kernel.device.type == "cpu"
        and kernel.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


class PackedConv(nn.Module):
    """A `PaddedConv` or `PointwiseConv` without gradients; it is called as they are."""

    def __init__(self, conv: PaddedConv | PointwiseConv) -> None:
        super().__init__()
        self.margin = conv.dilation[0] if isinstance(conv, PaddedConv) else 0
        self.modes = conv.modes if isinstance(conv, PaddedConv) else ("zeros", "zeros")
        self.zeros = self.modes == ("zeros", "zeros")  # which need no padded copy
        around = self.margin if self.zeros else 0
        self.geometry = ((around, around), conv.stride, conv.dilation, 1)
        assert conv.bias is not None
        self.bias = conv.bias.detach()
        pack = torch.ops.aten.mkldnn_reorder_conv2d_weight
        self.kernel = pack(conv.weight.detach().to_mkldnn(), *self.geometry)

    def forward(self, *parts: Part) -> Float[Tensor, "batch out x_out y_out"]:
        return self.of(joined, *parts)

    def of(self, make: Make, *tensors: Tensor) -> Float[Tensor, "batch out x_out y_out"]:
        """Convolve what a function makes of tensors."""
        x = make(*tensors)
        x = x if self.zeros else pad(x, self.margin, self.margin, self.modes)
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.kernel, self.bias, *self.geometry, "none", [], ""
        )
