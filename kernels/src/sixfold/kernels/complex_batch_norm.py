"""Whitening batch norm of complex channels, on planar tensors and in real numbers.

Per channel, with the centred parts a and b of z over batch and pixels:

    C = [[mean a^2 + eps, mean ab], [mean ab, mean b^2 + eps]]      (biased; no eps on mean ab)
    y = W C^(-1/2) [a, b] + bias                                    W symmetric, 2 x 2

C^(-1/2) = [[Cii + s, -Cri], [-Cri, Crr + s]] / (s t), s = sqrt(det C), t = sqrt(Crr + Cii + 2 s).
W and C^(-1/2) multiply to one matrix per channel *before* they meet the image, so the image is
passed over for its means, its products and one matrix, where the literal chain has a product and a
sum for each of the eight entries. In evaluation the mean goes into the bias too.

C. Trabelsi et al., "Deep complex networks", ICLR 2018. arXiv:1705.09792
"""

import torch
from jaxtyping import Float
from torch import Tensor

Moments = tuple[Float[Tensor, "channel 2"], Float[Tensor, "channel 3"]]


def complex_batch_norm(
    x: Float[Tensor, "batch channel2 *space"],
    moments: Moments,
    weight: Float[Tensor, "channel 3"],
    bias: Float[Tensor, "channel 2"],
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Float[Tensor, "batch channel2 *space"], Moments]:
    """Whiten and scale every complex channel; return the result and the running moments.

    The running moments are returned, not changed in place; in evaluation they are those given.

    Args:
        x: Planar tensor, the real parts of all channels first.
        moments: Running mean (re, im) and running covariance (rr, ii, ri).
        weight: Entries of W as (rr, ii, ri).
        bias: Offsets of the real and of the imaginary part.
        training: Whether to use the moments of the batch and update the running ones with them.
        momentum: Weight of the batch in the new running moments. The batch's covariance enters
            unbiased, n/(n - 1), and with eps already added, as in the authors' layer.
        eps: Constant added to both variances.

    Raises:
        ValueError: sizes do not agree, or one number a channel is to be whitened by itself.
    """
    channels, numbers = weight.shape[0], x[:, :1].numel()
    if x.shape[1] != 2 * channels:
        raise ValueError(
            f"complex_batch_norm: {channels} complex channels need {2 * channels} planar ones, "
            f"got x {tuple(x.shape)}"
        )
    mean, covariance = moments
    shapes = [tuple(value.shape) for value in (mean, covariance, weight, bias)]
    if shapes != [(channels, count) for count in (2, 3, 3, 2)]:
        raise ValueError(
            f"complex_batch_norm: {channels} channels need a mean and a bias ({channels}, 2), a "
            f"covariance and a weight ({channels}, 3), got mean, covariance, weight, bias {shapes}"
        )
    if not training:
        matrix = whitening(covariance, weight, eps)
        return _apply(x, matrix, bias - _times(matrix, mean)), moments
    if numbers < 2:
        raise ValueError(
            f"complex_batch_norm: x {tuple(x.shape)} has {numbers} numbers a channel, and training "
            "needs 2 at least; use a larger batch or training=False"
        )
    own_mean, centred, own = _moments(x)
    y = _apply(centred, whitening(own, weight, eps), bias)
    with torch.no_grad():
        guard = own.new_tensor([eps, eps, 0.0])
        unbiased = (own + guard) * (numbers / (numbers - 1))
        running = (
            torch.lerp(mean, own_mean.to(mean.dtype), momentum),
            torch.lerp(covariance, unbiased.to(covariance.dtype), momentum),
        )
    return y, running


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return means (channel, 2), x less its means, and covariances (channel, 3)."""
    axes = [0, *range(2, x.ndim)]
    wide = x if x.dtype == torch.float64 else x.float()  # sums of many terms
    mean = wide.mean(axes, keepdim=True)
    centred = wide - mean
    re, im = centred.chunk(2, 1)
    variances = centred.square().mean(axes).view(2, -1)
    covariance = torch.stack([*variances, (re * im).mean(axes)], 1)
    return mean.view(2, -1).t(), centred.to(x.dtype), covariance


def whitening(covariance: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return W C^(-1/2), (channel, 2, 2)."""
    rr, ii, ri = covariance[:, 0] + eps, covariance[:, 1] + eps, covariance[:, 2]
    s = (rr * ii - ri.square()).sqrt()
    norm = 1 / (s * (rr + ii + 2 * s).sqrt())
    root = torch.stack([ii + s, -ri, -ri, rr + s], 1) * norm[:, None]
    scale = weight[:, [0, 2, 2, 1]].to(root.dtype)
    return scale.unflatten(1, (2, 2)) @ root.unflatten(1, (2, 2))


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.to(matrix.dtype)[:, :, None])[:, :, 0]


def _apply(x: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Multiply each channel's pair of parts by its matrix and add its offset."""
    tail = (-1,) + (1,) * (x.ndim - 2)
    matrix, offset = matrix.to(x.dtype), offset.to(x.dtype)
    re, im = x.chunk(2, 1)
    parts = []
    for row in (0, 1):
        entries = (matrix[:, row, 0], matrix[:, row, 1], offset[:, row])
        from_re, from_im, added = (entry.view(tail) for entry in entries)
        parts.append(torch.addcmul(torch.addcmul(added, re, from_re), im, from_im))
    return torch.cat(parts, 1)
