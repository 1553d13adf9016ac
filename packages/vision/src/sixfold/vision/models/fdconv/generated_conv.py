"""Generate a kernel for each sample and convolve with it, a few samples at a time.

Written out, a layer holds a dozen arrays of (batch, kernel) numbers while it trains. Here one of
them is kept, the mixture of the frequency groups, which is dear to compute; gates and factors are
cheap, and are computed again when the gradient needs them. The rest exists for a part of the batch.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sixfold.core.autograd import once_differentiable
from sixfold.kernels import fdconv_mixture, fdconv_mixture_backward, fdconv_weight
from sixfold.vision.models.fdconv.sample_conv import Pair, convolve_samples, is_product

NUMBERS = 1 << 22  # of the kernels that exist at once, at least one sample's


class Geometry(NamedTuple):
    """What does not depend on the sample."""

    shape: tuple[int, int, int, int]
    mult: float
    activation: Any
    stride: Pair
    padding: str | Pair
    dilation: Pair
    groups: int


class Factors(NamedTuple):
    """What multiplies the mixture, for each sample; None counts as one."""

    spatial: Float[Tensor, "batch 1 1 kh kw"] | None
    channel: Float[Tensor, "batch 1 in_ 1 1"] | None
    filter: Float[Tensor, "batch out 1 1 1"] | None
    windows: Float[Tensor, "batch group in_ width"] | None  # of the local attention


def generate(
    mixture: Float[Tensor, "batch out in_ kh kw"],
    taps: Float[Tensor, "group rest width"] | None,
    factors: Factors,
    geometry: Geometry,
) -> Float[Tensor, "batch out in_ kh kw"]:
    """Modulate mixtures of the frequency groups by all attentions of the kernel.

    Args:
        mixture: Kernels from `sixfold.kernels.fdconv_mixture`.
        taps: Weight of the local attention.
        factors: Attentions of the samples.
        geometry: Shape and activations.
    """
    logit = None
    if taps is not None and factors.windows is not None:
        out, _, height, width = geometry.shape
        logit = torch.matmul(taps, factors.windows.transpose(2, 3)).flatten(1, 2)
        logit = logit.unflatten(1, (out, height, width)).permute(0, 1, 4, 2, 3)
    return fdconv_weight(
        None,
        mixture,
        *factors[:3],
        local_logit=logit,
        mult=geometry.mult,
        activation=geometry.activation,
    )


class _GeneratedConvolution(torch.autograd.Function):
    """`fdconv_mixture`, `generate` and `convolve_samples`, with little kept for the gradient."""

    @staticmethod
    def forward(
        ctx, x, attention, spectrum, taps, spatial, channel, filters, windows, groups, order,
        geometry: Geometry,
    ) -> Tensor:  # fmt: skip
        factors, parts, mixtures = Factors(spatial, channel, filters, windows), [], []
        for some in _parts(len(x), geometry):
            mixture = fdconv_mixture(attention[some], spectrum, groups, geometry.shape, order)
            mixtures.append(mixture.to(x.dtype))
            kernel = generate(mixtures[-1], taps, _of(factors, some), geometry)
            parts.append(convolve_samples(x[some], kernel, *geometry[3:]))
            if not any(ctx.needs_input_grad):
                mixtures.clear()
        ctx.geometry = geometry
        ctx.save_for_backward(x, attention, spectrum, taps, groups, order, *factors, *mixtures)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx, sent: Tensor):
        """Return the gradients, from the mixtures that were kept."""
        x, attention, spectrum, taps, groups, order, *rest = ctx.saved_tensors
        factors, mixtures, geometry = Factors(*rest[:4]), rest[4:], ctx.geometry
        grad_x, grad_attention = torch.empty_like(x), torch.empty_like(attention)
        grad_spectrum, grad_taps = torch.zeros_like(spectrum), _zeros(taps)
        grads = [_zeros(factor) for factor in factors]
        for some, mixture in zip(_parts(len(x), geometry), mixtures, strict=True):
            kernel, leaves = _again(mixture, taps, _of(factors, some), geometry)
            grad_x[some], sent_kernel = _convolution_grads(sent[some], x[some], kernel, geometry)
            used = [leaf for leaf in leaves if leaf is not None]
            found = iter(torch.autograd.grad(kernel, used, sent_kernel))
            del kernel, sent_kernel
            parts = [None if leaf is None else next(found) for leaf in leaves]
            for total, part in zip(grads, parts[2:], strict=True):
                if total is not None and part is not None:
                    total[some] = part
            if grad_taps is not None and parts[1] is not None:
                grad_taps += parts[1]
            assert parts[0] is not None
            grad_attention[some], part = fdconv_mixture_backward(
                parts[0].to(spectrum.dtype), attention[some], spectrum, groups, geometry.shape,
                order,
            )  # fmt: skip
            grad_spectrum += part
        return grad_x, grad_attention, grad_spectrum, grad_taps, *grads, None, None, None


@torch.enable_grad()
def _again(
    mixture: Tensor, taps: Tensor | None, factors: Factors, geometry: Geometry
) -> tuple[Tensor, list[Tensor | None]]:
    """Generate kernels again, and return them with the leaves of their graph."""
    first = mixture.detach().requires_grad_()
    rest = [None if v is None else v.detach().requires_grad_() for v in (taps, *factors)]
    return generate(first, rest[0], Factors(*rest[1:]), geometry), [first, *rest]


def _parts(batch: int, geometry: Geometry) -> list[slice]:
    out, inputs, height, width = geometry.shape
    size = max(1, NUMBERS // (out * inputs * height * width))
    return [slice(start, start + size) for start in range(0, max(batch, 1), size)]


def _of(factors: Factors, some: slice) -> Factors:
    return Factors(*(None if factor is None else factor[some] for factor in factors))


def _zeros(value: Tensor | None) -> Tensor | None:
    return None if value is None else torch.zeros_like(value)


def _convolution_grads(
    sent: Tensor, x: Tensor, kernel: Tensor, geometry: Geometry
) -> tuple[Tensor, Tensor]:
    """Return the gradients of `convolve_samples` with respect to pictures and kernels."""
    kernel = kernel.detach()
    if is_product(kernel, geometry.padding, geometry.groups):
        down, right = geometry.stride
        flat, seen = sent.flatten(2), x[:, :, ::down, ::right]
        grad_x = torch.bmm(kernel.flatten(2).mT, flat).view(seen.shape)
        if seen.shape != x.shape:
            grad_x, part = torch.zeros_like(x), grad_x
            grad_x[:, :, ::down, ::right] = part
        return grad_x, torch.bmm(flat, seen.flatten(2).mT)[..., None, None]
    padding = [0, 0] if geometry.padding == "valid" else list(geometry.padding)
    grad_x, grad_kernel, _ = torch.ops.aten.convolution_backward(
        sent.reshape(1, -1, *sent.shape[2:]),
        x.reshape(1, -1, *x.shape[2:]),
        kernel.flatten(0, 1),
        None,
        geometry.stride,
        padding,
        geometry.dilation,
        False,
        [0, 0],
        len(x) * geometry.groups,
        [True, True, False],
    )
    return grad_x.view_as(x), grad_kernel.unflatten(0, (len(x), -1))
