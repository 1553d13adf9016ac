"""FDConv written plainly, as it is published: what the fast layers are held against.

For every sample a spectrum is filled group by group and inverted, every attention multiplies the
whole kernel, and each band is an inverse FFT of its own. Only the usual settings: one group of
channels, a stored spectrum of all frequencies, sigmoids.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sixfold.kernels import frequency_order
from sixfold.vision import FDConv2d
from sixfold.vision.models.fdconv.convert import dynamic_layers


class PlainFDConv2d(nn.Module):
    """The same layer as an `FDConv2d`, sharing its parameters, computed as published."""

    indices: Tensor
    layer: Any

    def __init__(self, layer: FDConv2d) -> None:
        super().__init__()
        self.layer = layer
        out, inputs, height, width = layer.kernel_shape
        half = inputs * width // 2 + 1
        order = frequency_order(out * height, inputs * width)
        split = torch.stack([order // half, order % half])
        self.register_buffer("indices", split.unflatten(1, (layer.members, -1)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        layer, batch = self.layer, x.shape[0]
        (out, inputs, height, width), pooled = layer.kernel_shape, x.mean((2, 3), keepdim=True)
        channel, filters, spatial, kernel_attention = self.global_attention(pooled)
        gate = self.local_attention(pooled)
        weight = self.weight(kernel_attention)
        modulated = x if layer.FBM is None else self.bands(x)
        small = out * inputs * height * width < (out + inputs) * x.shape[2] * x.shape[3]
        if small:
            weight = spatial * channel * filters * weight * gate
        else:
            weight = spatial * weight * gate
            modulated = modulated * channel.view(batch, inputs, 1, 1)
        y = functional.conv2d(
            modulated.reshape(1, batch * inputs, *x.shape[2:]),
            weight.reshape(batch * out, inputs, height, width),
            None,
            layer.stride,
            layer.padding,
            layer.dilation,
            batch,
        )
        y = y.view(batch, out, *y.shape[2:])
        if not small:
            y = y * filters.view(batch, out, 1, 1)
        return y if layer.bias is None else y + layer.bias.view(1, -1, 1, 1)

    def global_attention(self, pooled: Tensor) -> tuple[Any, Any, Any, Any]:
        ksm, options, batch = self.layer.KSM_Global, self.layer.options, pooled.shape[0]
        hidden = ksm.relu(ksm.bn(ksm.fc(pooled)[:, :, 0, 0]))[:, :, None, None]
        temp = options.temp or options.kernel_temp
        channel, filters = (
            torch.sigmoid(head(hidden) / temp) * options.att_multi
            for head in (ksm.channel_fc, ksm.filter_fc)
        )
        spatial: Any = 1.0
        if math.prod(self.layer.kernel_size) > 1:
            spatial = torch.sigmoid(ksm.spatial_fc(hidden) / temp) * options.att_multi
            spatial = spatial.view(batch, 1, 1, *self.layer.kernel_size)
        members = self.layer.members
        kernel = torch.sigmoid(ksm.kernel_fc(hidden) / options.kernel_temp) * 2 / members
        channel = channel.view(batch, 1, -1, 1, 1)
        return channel, filters.view(batch, -1, 1, 1, 1), spatial, kernel.view(batch, members)

    def local_attention(self, pooled: Tensor) -> Tensor:
        ksm, (out, inputs, height, width) = self.layer.KSM_Local, self.layer.kernel_shape
        along = ksm.norm(pooled[:, :, 0, 0])[:, None]
        logit = ksm.conv(along).permute(0, 2, 1)
        logit = logit.reshape(-1, inputs, out, height, width).permute(0, 2, 1, 3, 4)
        return torch.sigmoid(logit) * self.layer.options.att_multi

    def weight(self, attention: Tensor) -> Tensor:
        out, inputs, height, width = self.layer.kernel_shape
        spectrum = self.layer.dft_weight[0]
        half = inputs * width // 2 + 1
        plane = attention.new_zeros(len(attention), out * height, half, 2)
        rows, columns = self.indices
        factor = (min(out, inputs) // 2) * self.layer.members
        weighted = spectrum[rows, columns][None] * factor
        plane[:, rows, columns] = plane[:, rows, columns] + torch.stack(
            [weighted[..., 0] * attention[:, :, None], weighted[..., 1] * attention[:, :, None]], -1
        )
        kernel = torch.fft.irfft2(torch.view_as_complex(plane), s=(out * height, inputs * width))
        return kernel.view(-1, out, height, inputs, width).permute(0, 1, 3, 2, 4)

    def bands(self, x: Tensor) -> Tensor:
        fbm, (height, width) = self.layer.FBM, x.shape[2:]
        spectrum, previous, parts = torch.fft.rfft2(x, norm="ortho"), x, []
        fy, fx = torch.fft.fftfreq(64)[:, None].abs(), torch.fft.rfftfreq(64)[None].abs()
        for conv, divisor in zip(fbm.freq_weight_conv_list, fbm.options.k_list, strict=True):
            mask = (torch.maximum(fy, fx) < 0.5 / divisor + 1e-8).to(x.dtype)[None, None]
            mask = functional.interpolate(mask, (height, width // 2 + 1), mode="nearest")
            low = torch.fft.irfft2(spectrum * mask, s=(height, width), norm="ortho")
            high, previous = previous - low, low
            parts.append(high * (torch.sigmoid(conv(x)) * 2))
        parts.append(previous)
        return torch.stack(parts).sum(0)


def plain(model: nn.Module) -> nn.Module:
    """Return a copy of a network of FDConv layers that computes as published."""
    made = copy.deepcopy(model)
    for name, layer in dynamic_layers(made).items():
        parent, _, last = name.rpartition(".")
        setattr(made.get_submodule(parent), last, PlainFDConv2d(layer))
    return made
