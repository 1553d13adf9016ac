"""Kernel spatial modulation (KSM): attentions of a layer's kernel, from its pooled input.

The global part sees all channels and weighs input channels, filters, taps and frequency groups;
the local part looks along the channels and gates each entry of the kernel.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.vision.models.fdconv.options import FDConvOptions

INITIAL_STD = 1e-6  # of what should begin near zero


class Attentions(NamedTuple):
    """The global attentions of each sample; None counts as one."""

    kernel: Float[Tensor, "batch members"]
    channel: Float[Tensor, "batch in"] | None
    filter: Float[Tensor, "batch out"] | None
    spatial: Float[Tensor, "batch kh kw"] | None


class GlobalModulation(nn.Module):
    """Weigh channels, filters, taps and groups by a small network of the pooled input.

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        kernel_size: Height and width of the kernel.
        options: Settings of the layer, resolved.
    """

    kernel_fc: nn.Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, ...],
        options: FDConvOptions,
    ) -> None:
        super().__init__()
        self.options, self.kernel_size = options, kernel_size
        self.members = (options.kernel_num or 1) * options.param_ratio
        hidden = max(int(in_channels * options.reduction), 16)
        self.fc = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.bn = PooledNorm(hidden)
        self.relu = StarReLU()
        sizes = {"kernel_fc": self.members if self.members > 1 else 0}
        if not options.ksm_only_kernel_att:
            taps = math.prod(kernel_size)
            sizes = {"channel_fc": in_channels, "filter_fc": out_channels} | sizes
            sizes["spatial_fc"] = taps if taps > 1 else 0
        for name, size in sizes.items():
            if size:
                self.add_module(name, nn.Conv2d(hidden, size, 1))
        self._initialize()

    def _initialize(self) -> None:
        for name, layer in self.named_children():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
                if name != "fc" and (name != "filter_fc" or self.options.zero_init_filter):
                    nn.init.normal_(layer.weight, std=INITIAL_STD)

    def forward(self, pooled: Float[Tensor, "batch in"]) -> Attentions:
        hidden = self.relu(self.bn(_linear(self.fc, pooled)))
        channel, filters, spatial = (
            self._attention(name, hidden) for name in ("channel_fc", "filter_fc", "spatial_fc")
        )
        if spatial is not None:
            spatial = spatial.unflatten(1, self.kernel_size)
        return Attentions(self._kernel_attention(hidden), channel, filters, spatial)

    def _attention(self, name: str, hidden: Tensor) -> Tensor | None:
        head = getattr(self, name, None)
        if head is None:
            return None
        logit = _linear(head, hidden) / (self.options.temp or self.options.kernel_temp)
        if self.options.ksm_global_act == "tanh":
            return 1 + logit.tanh()
        return logit.sigmoid() * self.options.att_multi

    def _kernel_attention(self, hidden: Tensor) -> Float[Tensor, "batch members"]:
        """Return the weights of copies and groups, which begin at one over their number."""
        if self.members == 1:
            return hidden.new_ones(hidden.shape[0], 1)
        logit = _linear(self.kernel_fc, hidden) / self.options.kernel_temp
        match self.options.ksm_global_act:
            case "softmax":
                return logit.softmax(1)
            case "tanh":
                return (1 + logit.tanh()) / self.members
            case "sigmoid":
                return logit.sigmoid() * (2 / self.members)


class LocalModulation(nn.Module):
    """Gate every entry of the kernel, by a convolution along the channels of the pooled input.

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        kernel_size: Height and width of the kernel.
        groups: Number of groups of the convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: tuple[int, ...], groups: int
    ) -> None:
        super().__init__()
        self.shape = (out_channels, *kernel_size, in_channels // groups)
        self.groups = groups
        width = local_width(in_channels)
        size = out_channels * math.prod(kernel_size)
        self.conv = nn.Conv1d(1, size, width, padding=width // 2, bias=False)
        self.norm = nn.LayerNorm(in_channels)
        nn.init.constant_(self.conv.weight, INITIAL_STD)

    def forward(self, pooled: Float[Tensor, "batch in"]) -> Float[Tensor, "batch out in_ kh kw"]:
        """Return the logits, in memory with the input channels last."""
        logits = torch.matmul(self.taps(), self.windows(pooled).transpose(2, 3))
        return logits.flatten(1, 2).unflatten(1, self.shape[:3]).permute(0, 1, 4, 2, 3)

    def windows(self, pooled: Float[Tensor, "batch in"]) -> Float[Tensor, "batch group in_ width"]:
        """Return what the convolution sees at each input channel."""
        (width,) = self.conv.kernel_size
        padded = functional.pad(self.norm(pooled), (width // 2, width // 2))
        return padded.unfold(1, width, 1).unflatten(1, (self.groups, -1))

    def taps(self) -> Float[Tensor, "group rest width"]:
        """Return the weight of the convolution for each group."""
        return self.conv.weight.unflatten(0, (self.groups, -1)).squeeze(2)


def local_width(channels: int) -> int:
    """Return the width of the local convolution: odd, and growing with the logarithm."""
    return 2 * (round(math.log2(channels) / 2 + 0.5) // 2) + 1


class PooledNorm(nn.BatchNorm1d):
    """Batch norm that can train on one sample, which has no variance.

    For such a batch the running statistics are used, and left as they are.
    """

    def forward(self, input: Float[Tensor, "batch channel"]) -> Float[Tensor, "batch channel"]:
        if not self.training or input.shape[0] > 1 or self.running_mean is None:
            return super().forward(input)
        return functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class StarReLU(nn.Module):
    """``scale * relu(x)**2 + bias`` with a learnt scale and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * functional.relu(x) ** 2 + self.bias


def _linear(layer: nn.Conv2d, x: Float[Tensor, "batch in"]) -> Float[Tensor, "batch out"]:
    """Apply a 1x1 convolution to pictures of one pixel."""
    return functional.linear(x, layer.weight.flatten(1), layer.bias)
