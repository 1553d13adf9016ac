"""The operators the way the official codes compute them: what benchmarks/kernels_cpu.py times.

Same numbers as `sixfold.kernels`, to rounding. The definitions in float64 are in the tests.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional


def plain_dwconv1d(x: Tensor, weight: Tensor) -> Tensor:
    """MossFormer2: turn to channels first, convolve, turn back, add."""
    y = functional.conv1d(x.transpose(1, 2), weight, padding="same", groups=len(weight))
    return x + y.transpose(1, 2)


def plain_fsmn(x: Tensor, weight: Tensor, left: int, right: int) -> Tensor:
    """FRCRN and MossFormer2's FSMN: an image of width one, padded, a [K, 1] convolution."""
    image = functional.pad(x.unsqueeze(1).permute(0, 3, 2, 1), (0, 0, left, right))
    y = functional.conv2d(image, weight[..., None], groups=len(weight))
    return x + y.permute(0, 3, 2, 1).squeeze(1)


def plain_spmm(edge_index: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Gather the sources, multiply, scatter-add to the targets."""
    messages = x[edge_index[0]] * weight[:, None]
    return torch.zeros_like(x).index_add(0, edge_index[1], messages)


def plain_fdconv(attention: Tensor, spectrum: Tensor, indices: Tensor, shape) -> Tensor:
    """Fill a spectrum for each sample, group by group, and invert them all."""
    out, inputs, height, width = shape
    (batch, _), (copies, rows, half, _) = attention.shape, spectrum.shape
    groups = indices.shape[1]
    alpha = (min(out, inputs) // 2) * groups * copies
    plane = spectrum.new_zeros(batch, rows, half, 2)
    for copy in range(copies):
        for group in range(groups):
            row, column = indices[:, group]
            w = spectrum[copy, row, column][None] * alpha
            a = attention[:, copy * groups + group, None]
            part = torch.stack([w[..., 0] * a, w[..., 1] * a], -1)
            plane = plane.index_put(
                (torch.arange(batch)[:, None], row[None], column[None]), part, accumulate=True
            )
    kernel = torch.fft.irfft2(torch.view_as_complex(plane), s=(rows, inputs * width))
    kernel = kernel.reshape(batch, out, height, inputs, width)
    return kernel.permute(0, 1, 3, 2, 4).contiguous()


def plain_modulation(kernel, spatial, channel, filter, local_logit) -> Tensor:
    """Five broadcast factors, one after the other."""
    return spatial * channel * filter * kernel * (2.0 * local_logit.sigmoid())


def lowpass_masks(cutoffs) -> Tensor:
    """FDConv's masks, made once on a grid of 64 x 64."""
    rows, columns = torch.fft.fftfreq(64).abs(), torch.fft.rfftfreq(64)
    frequency = torch.maximum(rows[:, None], columns)
    return torch.stack([(frequency < cutoff + 1e-8).float() for cutoff in cutoffs])


def plain_lowpass2d(x: Tensor, masks: Tensor) -> list[Tensor]:
    """FDConv: resize the masks; one transform, then one mask and one inverse each."""
    height, width = x.shape[-2:]
    masks = functional.interpolate(masks[:, None], (height, width // 2 + 1), mode="nearest")
    spectrum = torch.fft.rfft2(x)
    return [torch.fft.irfft2(spectrum * mask[0], s=(height, width)) for mask in masks]


def plain_bilinear_fusion(x: Tensor, y: Tensor, weight: Tensor, heads: int) -> Tensor:
    """FinalMLP: a broadcast ``matmul`` of one row for each item and head."""
    x, y = x.view(len(x), heads, -1), y.view(len(y), heads, -1)
    forms = torch.matmul(x.unsqueeze(2), weight.view(heads, x.shape[2], -1))
    forms = forms.view(-1, heads, weight.shape[1], y.shape[2])
    return torch.matmul(forms, y.unsqueeze(-1)).squeeze(-1).sum(1)


def plain_cross_epilogue(h, x, bias, x0, gamma, beta) -> Tensor:
    """FCN's linear cross layer after its matrix product, as modules compute it."""
    mask = functional.relu(functional.layer_norm(h, gamma.shape, gamma, beta))
    return x0 * (torch.cat([h, h * mask], -1) + bias) + x


def plain_edge_conv(x, weight, bias, branches) -> Tensor:
    """CFSR: one depthwise convolution a kernel, and their sum."""
    y = functional.conv2d(x, weight, bias, padding=1, groups=len(weight))
    for scale, mask, offset in branches:
        y = y + functional.conv2d(x, scale * mask, offset, padding=1, groups=len(weight))
    return y


def plain_layer_norm_cf(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Mean, variance, quotient, scale, on a channels-first image."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    x = (x - mean) / torch.sqrt(variance + 1e-6)
    return weight[:, None, None] * x + bias[:, None, None]


def plain_ffn(x, layer_in, layer_out, active: int) -> Tensor:
    """RePaViT before merging: both layers whole, GELU on the first channels, shortcut."""
    hidden = functional.linear(x, *layer_in)
    gated = functional.gelu(hidden[..., :active])
    return x + functional.linear(torch.cat([gated, hidden[..., active:]], -1), *layer_out)


def plain_complex_conv2d(x, real, imag, stride, padding) -> Tensor:
    """Four convolutions on a tensor (..., 2) of interleaved pairs."""

    def layer(value, weight):
        return functional.conv2d(value, *weight, stride=stride, padding=padding)

    re = layer(x[..., 0], real) - layer(x[..., 1], imag)
    im = layer(x[..., 1], real) + layer(x[..., 0], imag)
    return torch.stack([re, im], -1)


def plain_gau_attention(quad_q, quad_k, lin_q, lin_k, v, u, group: int) -> Tensor:
    """MossFormer: six einsums over groups of tokens, both values apart; whole groups only."""
    n = v.shape[1]
    quad_q, quad_k, lin_q, lin_k, vg, ug = (
        t.unflatten(1, (-1, group)) for t in (quad_q, quad_k, lin_q, lin_k, v, u)
    )
    attention = functional.relu(torch.einsum("...id,...jd->...ij", quad_q, quad_k) / group) ** 2
    att_v = torch.einsum("...ij,...jd->...id", attention, vg)
    att_u = torch.einsum("...ij,...jd->...id", attention, ug)
    lin_kv = torch.einsum("bgnd,bgne->bde", lin_k, vg) / n
    lin_ku = torch.einsum("bgnd,bgne->bde", lin_k, ug) / n
    att_v = att_v + torch.einsum("bgnd,bde->bgne", lin_q, lin_kv)
    att_u = att_u + torch.einsum("bgnd,bde->bgne", lin_q, lin_ku)
    att_v, att_u = (t.flatten(1, 2) for t in (att_v, att_u))
    return att_u * v * torch.sigmoid(att_v * u)


def plain_les_loss(u: Tensor, step: float, viscosity: float, smagorinsky: float, width: float):
    """LESnets: 28 complex transforms of (batch, x, y, z, time) fields, truncation in a loop."""
    batch, x, y, z, _, times = u.shape
    dims, n = (1, 2, 3), times - 2
    fftn = torch.fft.fftn
    modes = [torch.fft.fftfreq(size, 1 / size) for size in (x, y, z)]
    shapes = [(1, x, 1, 1, 1), (1, 1, y, 1, 1), (1, 1, 1, z, 1)]
    full = (batch, x, y, z, n)  # a whole grid for every batch and time
    k = [m.view(s).expand(full).contiguous() for m, s in zip(modes, shapes, strict=True)]
    square = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
    square = torch.where(square == 0, 1.0, square)

    def back(spectrum):
        return torch.fft.ifftn(spectrum, dim=dims, norm="forward").real

    hats = [fftn(u[..., i, :], dim=dims, norm="forward") for i in range(3)]
    all_k = [one[..., :1] for one in k]
    divergence = back(1j * sum(all_k[i] * hats[i] for i in range(3)))
    v = [hat[..., 1:-1] for hat in hats]
    inner = [u[..., i, 1:-1] for i in range(3)]
    curl = []
    for i in range(3):
        hat = 1j * (k[i - 2] * v[i - 1] - k[i - 1] * v[i - 2])[:, :, :, : z // 2 + 1]
        curl.append(torch.fft.irfftn(hat, s=(x, y, z), dim=dims, norm="forward"))
    pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
    strain = {(i, j): back(0.5j * (k[j] * v[i] + k[i] * v[j])) for i, j in pairs}
    norm = torch.stack([2 * (2 - (i == j)) * strain[i, j] ** 2 for i, j in pairs]).sum(0).sqrt()
    eddy = -2 * smagorinsky * width**2 * norm
    tau = {pair: fftn(eddy * strain[pair], dim=dims, norm="forward") for pair in pairs}
    mask = math.prod((one[0, ..., 0].abs() <= 2 * (x // 2) // 3).to(u.dtype) for one in k)
    forces = []
    for i in range(3):
        lamb = inner[i - 2] * curl[i - 1] - inner[i - 1] * curl[i - 2]
        hat = fftn(lamb, dim=dims, norm="forward")
        hat = torch.stack(  # the truncation, field by field
            [torch.stack([hat[b, ..., t] * mask for t in range(n)], -1) for b in range(batch)]
        )
        stress = 1j * sum(k[j] * tau[min(i, j), max(i, j)] for j in range(3))
        forces.append(hat - stress)
    along = sum(k[i] * forces[i] for i in range(3)) / square
    loss = divergence.pow(2).mean()
    for i in range(3):
        right = back(forces[i] - k[i] * along) - back(viscosity * square * v[i])
        change = (u[..., i, 2:] - u[..., i, :-2]) / (2 * step)
        loss = loss + (change - right).pow(2).mean() / 3
    return loss
