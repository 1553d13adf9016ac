"""SineNet as its text says, operation by operation; from the parameters of ours.

Concatenations, torch's own bicubic interpolation, a wrap and a crop around it, the wave's input
pooled again and again, dilated convolutions at four times the grid: what the released code does,
written from the description. The benchmark compares ours with it too.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATION = functional.gelu


class ReferenceSineNet:
    """The published formulation of a `SineNet` with the padding "zeros" or "circular"."""

    def __init__(self, model: Any, dilation: int = 1) -> None:
        self.model, self.config, self.dilation = model, model.config, dilation
        self.mode = {"zeros": "constant", "circular": "circular"}[model.config.padding[0]]

    def __call__(self, frames: Tensor, time: Tensor | None = None, z: Tensor | None = None):
        model, config = self.model, self.config
        batch, times, channels, height, width = frames.shape
        x = self.conv(model.image_proj, frames.reshape(batch, times * channels, height, width))
        e = None
        if time is not None:
            e = self.mlp(model.time_embed, self.embed(time))
            if z is not None:
                e = e + self.mlp(model.pde_emb, self.embed(z))
        for down, up in zip(model.down, model.up, strict=True):
            y = self.wave(down, up, x, e)
            x = x + y if config.wave_residual else y
        y = self.conv(model.final, x)
        return y.reshape(batch, config.time_future, -1, height, width)

    def wave(self, down, up, x: Tensor, e: Tensor | None) -> Tensor:
        skips, dx = [x], x
        for i, level in enumerate(down):
            g = self.pool(skips[-1])
            if self.config.disentangle:
                dx = self.pool(dx)
            inside = torch.cat([g, dx], 1) if i > 0 and self.config.disentangle else g
            skips.append(self.level(level, inside, g, e))
        y = skips.pop()
        for level in up:
            u = self.upsample(y)
            y = self.level(level, torch.cat([skips.pop(), u], 1), u, e)
        return y

    def level(self, level, inside: Tensor, main: Tensor, e: Tensor | None) -> Tensor:
        y = self.block(level.conv[0], inside, e) + level.shortcut(main)
        for block in list(level.conv)[1:]:
            y = self.block(block, y, e) + y
        return y

    def block(self, block, x: Tensor, e: Tensor | None) -> Tensor:
        x = ACTIVATION(self.norm(block.norm1, self.conv(block.conv1, x)))
        if e is not None:
            effect = functional.linear(e, block.cond_emb.weight, block.cond_emb.bias)
            effect = effect[:, :, None, None]
            if self.config.conditioning == "scale_shift":
                scale, shift = torch.chunk(effect, 2, dim=1)
                x = x * (1 + scale) + shift
            else:
                x = x + effect
        return ACTIVATION(self.norm(block.norm2, self.conv(block.conv2, x)))

    def conv(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        d = self.dilation
        if self.mode == "constant":
            return functional.conv2d(x, conv.weight, conv.bias, padding=d, dilation=d)
        x = functional.pad(x, (d, d, d, d), self.mode)
        return functional.conv2d(x, conv.weight, conv.bias, dilation=d)

    @staticmethod
    def norm(norm, x: Tensor) -> Tensor:
        return functional.group_norm(x, 1, norm.weight, norm.bias, 1e-5)

    def pool(self, x: Tensor) -> Tensor:
        d = self.dilation
        if d == 1:
            return functional.avg_pool2d(x, 2)
        y = x.new_empty(*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
        for i in range(d):
            for j in range(d):
                y[:, :, i::d, j::d] = functional.avg_pool2d(x[:, :, i::d, j::d], 2)
        return y

    def upsample(self, x: Tensor) -> Tensor:
        d = self.dilation
        if d == 1:
            return self.doubled(x)
        y = x.new_empty(*x.shape[:2], x.shape[2] * 2, x.shape[3] * 2)
        for i in range(d):
            for j in range(d):
                y[:, :, i::d, j::d] = self.doubled(x[:, :, i::d, j::d])
        return y

    def doubled(self, x: Tensor) -> Tensor:
        if self.mode == "constant":
            return functional.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
        x = functional.pad(x, (2, 2, 2, 2), self.mode)
        y = functional.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
        return y[:, :, 4:-4, 4:-4]

    def embed(self, t: Tensor) -> Tensor:
        h = self.config.hidden_channels
        half = h // 2
        columns = []
        for wave in (math.cos, math.sin):
            for j in range(half):
                frequency = math.exp(-math.log(10000) * j / half)
                columns.append(torch.tensor([wave(float(v) * frequency) for v in t]))
        columns += [torch.zeros(len(t))] * (h % 2)
        return torch.stack(columns, 1)

    @staticmethod
    def mlp(layers, e: Tensor) -> Tensor:
        first, second = layers
        return second(ACTIVATION(first(e)))
