"""A plain reference implementation of MossFormer2, which the tests compare our network with.

It transposes around every convolution, has one einsum for each product of the attention on padded,
grouped copies, and convolves images of width one in the memory. Module names are the official
checkpoint's, so that an official state dict loads as it is.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class ReferenceMossFormer2(nn.Module):
    """Encoder, mask network and decoder: (batch, time) to a list of (batch, time), the speakers."""

    enc: Any

    def __init__(
        self,
        channels: int = 512,
        blocks: int = 24,
        speakers: int = 2,
        kernel_size: int = 16,
        group: int = 256,
        key: int = 128,
        inner: int | None = 256,
        memory: int = 20,
    ) -> None:
        super().__init__()
        self.speakers, self.hop = speakers, kernel_size // 2
        self.enc = nn.Module()
        self.enc.conv1d = nn.Conv1d(1, channels, kernel_size, self.hop, bias=False)
        self.dec = nn.ConvTranspose1d(channels, 1, kernel_size, self.hop, bias=False)
        self.mask_net = ReferenceMaskNet(channels, blocks, speakers, group, key, inner, memory)

    def forward(self, mixture: Tensor) -> list[Tensor]:
        features = torch.relu(self.enc.conv1d(mixture[:, None]))
        masks = self.mask_net(features)
        features = torch.stack([features] * self.speakers)
        separated = features * masks
        outputs = [self.dec(separated[k])[:, 0] for k in range(self.speakers)]
        missing = mixture.shape[1] - outputs[0].shape[1]
        return [functional.pad(output, (0, missing)) for output in outputs]


class ReferenceMaskNet(nn.Module):
    """Features (batch, channel, frame) to masks (speaker, batch, channel, frame)."""

    mdl: Any

    def __init__(
        self,
        channels: int,
        blocks: int,
        speakers: int,
        group: int,
        key: int,
        inner: int | None,
        memory: int,
    ) -> None:
        super().__init__()
        self.speakers = speakers
        self.norm = nn.GroupNorm(1, channels, eps=1e-8)
        self.conv1d_encoder = nn.Conv1d(channels, channels, 1, bias=False)
        self.pos_enc = ReferencePosition(channels)
        stack: Any = nn.Module()
        stack.layers = nn.ModuleList(
            ReferenceAttention(channels, group, key) for _ in range(blocks)
        )
        if inner:
            stack.fsmn = nn.ModuleList(
                ReferenceMemory(channels, inner, memory) for _ in range(blocks)
            )
        self.mdl = nn.Module()
        self.mdl.intra_mdl = nn.Module()
        self.mdl.intra_mdl.mossformerM = stack
        self.mdl.intra_mdl.norm = nn.LayerNorm(channels, eps=1e-6)
        self.mdl.intra_norm = nn.GroupNorm(1, channels, eps=1e-8)
        self.prelu = nn.PReLU()
        self.conv1d_out = nn.Conv1d(channels, channels * speakers, 1)
        self.output = nn.Sequential(nn.Conv1d(channels, channels, 1), nn.Tanh())
        self.output_gate = nn.Sequential(nn.Conv1d(channels, channels, 1), nn.Sigmoid())
        self.conv1_decoder = nn.Conv1d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1d_encoder(self.norm(x))
        x = x.transpose(1, -1)
        x = x + self.pos_enc(x)
        x = x.transpose(1, -1)
        skip, stack = x, self.mdl.intra_mdl
        x = x.permute(0, 2, 1).contiguous()
        for i, layer in enumerate(stack.mossformerM.layers):
            x = layer(x)
            if hasattr(stack.mossformerM, "fsmn"):
                x = stack.mossformerM.fsmn[i](x)
        x = stack.norm(x).permute(0, 2, 1).contiguous()
        x = self.prelu(self.mdl.intra_norm(x) + skip)
        x = self.conv1d_out(x)
        batch, _, frames = x.shape
        x = x.view(batch * self.speakers, -1, frames)
        x = self.output(x) * self.output_gate(x)
        x = self.conv1_decoder(x)
        x = torch.relu(x.view(batch, self.speakers, -1, frames))
        return x.transpose(0, 1)


class ReferencePosition(nn.Module):
    """Sinusoidal position encoding, times one learned factor."""

    inv_freq: Any

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("inv_freq", 10000.0 ** -(torch.arange(0, channels, 2) / channels))

    def forward(self, x: Tensor) -> Tensor:
        position = torch.arange(x.shape[1], device=x.device).type_as(self.inv_freq)
        angle = torch.einsum("i,j->ij", position, self.inv_freq)
        return torch.cat([angle.sin(), angle.cos()], -1) * self.scale


class ScaleNorm(nn.Module):
    """Divide by the root mean square, times one learned factor."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale, self.g = channels**-0.5, nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        norm = torch.norm(x, dim=-1, keepdim=True) * self.scale
        return x / norm.clamp(min=1e-5) * self.g


class Taps(nn.Module):
    """A depthwise convolution over time of (batch, frame, channel), added to its input."""

    sequential: Any

    def __init__(self, channels: int) -> None:
        super().__init__()
        convolution: Any = nn.Module()
        convolution.conv = nn.Conv1d(channels, channels, 17, padding=8, groups=channels, bias=False)
        self.sequential = nn.Sequential(nn.Identity(), convolution)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sequential[1].conv(x.transpose(1, 2)).transpose(1, 2)


class FFConvM(nn.Module):
    """Norm, linear layer, SiLU, taps, dropout."""

    def __init__(self, inputs: int, out: int, norm: nn.Module) -> None:
        super().__init__()
        self.mdl = nn.Sequential(
            norm, nn.Linear(inputs, out), nn.SiLU(), Taps(out), nn.Dropout(0.1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.mdl(x)


class ReferenceAttention(nn.Module):
    """Joint local and global gated attention, with separate products."""

    rotary_pos_emb: Any
    qk_offset_scale: Any

    def __init__(self, channels: int, group: int, key: int) -> None:
        super().__init__()
        self.group = group
        self.rotary_pos_emb = nn.Module()
        turning = min(32, key)
        self.rotary_pos_emb.register_buffer(
            "freqs", 10000.0 ** -(torch.arange(0, turning, 2)[: turning // 2] / turning)
        )
        self.to_hidden = FFConvM(channels, 4 * channels, ScaleNorm(channels))
        self.to_qk = FFConvM(channels, key, ScaleNorm(channels))
        self.qk_offset_scale = nn.Module()
        self.qk_offset_scale.gamma = nn.Parameter(0.02 * torch.randn(4, key))
        self.qk_offset_scale.beta = nn.Parameter(torch.zeros(4, key))
        self.to_out = FFConvM(2 * channels, channels, ScaleNorm(2 * channels))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        shifted, passed = x.chunk(2, dim=-1)
        shifted = functional.pad(shifted, (0, 0, 1, -1), value=0.0)
        normed = torch.cat((shifted, passed), dim=-1)
        v, u = self.to_hidden(normed).chunk(2, dim=-1)
        qk = self.to_qk(normed)
        offset = self.qk_offset_scale
        copies = torch.einsum("...d,hd->...hd", qk, offset.gamma) + offset.beta
        quad_q, lin_q, quad_k, lin_k = copies.unbind(dim=-2)
        att_v, att_u = self.attention(quad_q, lin_q, quad_k, lin_k, v, u)
        return residual + self.to_out((att_u * v) * torch.sigmoid(att_v * u))

    def attention(self, quad_q, lin_q, quad_k, lin_k, v, u) -> tuple[Tensor, ...]:
        """Attend to v and to u, both (batch, frame, value)."""
        batch, frames, group = *v.shape[:2], self.group
        quad_q, lin_q, quad_k, lin_k = map(self.rotate, (quad_q, lin_q, quad_k, lin_k))
        padding = -frames % group
        mask = torch.ones(batch, frames, dtype=torch.bool, device=v.device)
        if padding:
            quad_q, quad_k, lin_q, lin_k, v, u = (
                functional.pad(t, (0, 0, 0, padding), value=0.0)
                for t in (quad_q, quad_k, lin_q, lin_k, v, u)
            )
            mask = functional.pad(mask, (0, padding), value=False)
        quad_q, quad_k, lin_q, lin_k, v, u = (
            t.reshape(batch, -1, group, t.shape[-1]) for t in (quad_q, quad_k, lin_q, lin_k, v, u)
        )
        mask = mask.reshape(batch, -1, 1, group)
        similarity = torch.einsum("...id,...jd->...ij", quad_q, quad_k) / group
        scores = self.dropout(functional.relu(similarity) ** 2)
        scores = scores.masked_fill(~mask, 0.0)
        near_v = torch.einsum("...ij,...jd->...id", scores, v)
        near_u = torch.einsum("...ij,...jd->...id", scores, u)
        memory_v = torch.einsum("bgnd,bgne->bde", lin_k, v) / frames
        far_v = torch.einsum("bgnd,bde->bgne", lin_q, memory_v)
        memory_u = torch.einsum("bgnd,bgne->bde", lin_k, u) / frames
        far_u = torch.einsum("bgnd,bde->bgne", lin_q, memory_u)
        seen_v, seen_u = near_v + far_v, near_u + far_u
        return tuple(t.reshape(batch, -1, t.shape[-1])[:, :frames] for t in (seen_v, seen_u))

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate adjacent pairs of the first features by the frame's angles."""
        freqs = self.rotary_pos_emb.freqs
        angle = torch.einsum("i,j->ij", torch.arange(x.shape[1]).type_as(freqs), freqs)
        angle = angle.repeat_interleave(2, dim=-1)
        turned, rest = x[..., : angle.shape[1]], x[..., angle.shape[1] :]
        first, second = turned.reshape(*turned.shape[:-1], -1, 2).unbind(dim=-1)
        half = torch.stack((-second, first), dim=-1).reshape(turned.shape)
        return torch.cat((turned * angle.cos() + half * angle.sin(), rest), dim=-1)


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of (batch, channel, frame)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.transpose(1, 2)).transpose(1, 2)


class ReferenceMemory(nn.Module):
    """The gated, dilated FSMN between two convolutions of width one."""

    gated_fsmn: Any

    def __init__(self, channels: int, inner: int, memory: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv1d(channels, inner, 1), nn.PReLU())
        self.norm1, self.norm2 = ChannelNorm(inner), ChannelNorm(inner)
        self.gated_fsmn = nn.Module()
        self.gated_fsmn.to_u = FFConvM(inner, inner, nn.LayerNorm(inner))
        self.gated_fsmn.to_v = FFConvM(inner, inner, nn.LayerNorm(inner))
        self.gated_fsmn.fsmn = nn.Module()
        self.gated_fsmn.fsmn.linear = nn.Linear(inner, inner)
        self.gated_fsmn.fsmn.project = nn.Linear(inner, inner, bias=False)
        self.gated_fsmn.fsmn.conv = DilatedDense(inner, memory)
        self.conv2 = nn.Conv1d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        residual, gated = x, self.gated_fsmn
        entered = self.norm1(self.conv1(x.transpose(2, 1)))
        h = entered.transpose(2, 1)
        a, b = gated.to_u(h), gated.to_v(h)
        p = gated.fsmn.project(functional.relu(gated.fsmn.linear(a)))
        image = p[:, None].permute(0, 3, 2, 1)  # (batch, channel, frame, 1)
        a = a + gated.fsmn.conv(image).permute(0, 3, 2, 1)[:, 0]
        h = b * a + h
        return self.conv2(self.norm2(h.transpose(2, 1))).transpose(2, 1) + residual


class DilatedDense(nn.Module):
    """Two dilated convolutions over time, densely connected."""

    def __init__(self, channels: int, memory: int) -> None:
        super().__init__()
        for i in (1, 2):
            dilation = 2 ** (i - 1)
            reach = (memory - 1) * dilation
            pad = nn.ConstantPad2d((0, 0, reach, reach), 0.0)
            conv = nn.Conv2d(
                channels * i,
                channels,
                (2 * memory - 1, 1),
                dilation=(dilation, 1),
                groups=channels,
                bias=False,
            )
            self.add_module(f"pad{i}", pad)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"norm{i}", nn.InstanceNorm2d(channels, affine=True))
            self.add_module(f"prelu{i}", nn.PReLU(channels))

    def forward(self, x: Tensor) -> Tensor:
        skip = out = x
        for i in (1, 2):
            out = getattr(self, f"conv{i}")(getattr(self, f"pad{i}")(skip))
            out = getattr(self, f"prelu{i}")(getattr(self, f"norm{i}")(out))
            skip = torch.cat([out, skip], dim=1)
        return out
