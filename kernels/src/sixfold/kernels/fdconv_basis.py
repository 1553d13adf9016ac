"""Kernels of FDConv from their spectrum: one basis for all samples, or one transform a sample.

FDConv keeps a layer's kernel as the half spectrum of the plane (out kh, in kw), cuts the
frequencies by radius into groups of equal size, and makes a kernel per sample whose groups are
weighted by attention. The official code scatters a spectrum and inverts it for every sample. The
inverse transform is linear, so the weighted sum may stand on either side of it:

- `fdconv_basis` inverts every group once; a sample's kernel is then a sum of ``copies * groups``
  arrays, which is one matrix product for the batch (`fdconv_weight`). The basis does not depend on
  the samples: in evaluation the basis is computed once and kept.
- `fdconv_mixture` weighs the spectrum and inverts once a sample: cheaper where the basis must
  be made anew, as in training, and has more members than the batch has samples.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

Shape = tuple[int, int, int, int]


def frequency_groups(
    rows: int, columns: int, groups: int, *, keep: float = 1.0
) -> Int[Tensor, "2 groups length"]:
    """Sort the positions of a half spectrum by their radius and cut them into equal groups.

    Many radii are exactly equal; positions of one radius stay in the order of the flat index.

    Args:
        rows: Number of rows of the plane, ``out * kh``.
        columns: Number of columns of the plane, ``in * kw``.
        groups: Number of groups.
        keep: Fraction of the positions to keep, those of the lowest radius.

    Returns:
        Row and column indices into a spectrum of ``rows`` by ``columns // 2 + 1``.

    Raises:
        ValueError: the number of positions is no multiple of ``groups``.
    """
    frequency = torch.stack(
        torch.meshgrid(torch.fft.fftfreq(rows), torch.fft.rfftfreq(columns), indexing="ij"), -1
    )
    order = torch.linalg.vector_norm(frequency, dim=-1).flatten().sort(stable=True).indices
    kept = int(len(order) * keep)
    if groups < 1 or kept % groups:
        raise ValueError(
            f"frequency_groups: a plane of {rows} x {columns} has {kept} frequencies to keep, "
            f"which {groups} groups cannot share equally; choose a divisor of {kept}"
        )
    half = columns // 2 + 1
    return torch.stack([order // half, order % half])[:, :kept].unflatten(1, (groups, -1))


def fdconv_basis(
    spectrum: Float[Tensor, "copies *positions 2"],
    indices: Int[Tensor, "2 groups length"],
    shape: Shape,
) -> Float[Tensor, "members out in kh kw"]:
    """Invert every group of every copy separately; members are ordered by copy, then group.

    Args:
        spectrum: Parameter of the layer: real and imaginary parts either at all positions of the
            plane, (copies, rows, columns // 2 + 1, 2), or at the kept ones, (copies, kept, 2), in
            order. The first layout is scaled by (min(out, in) // 2) groups copies, the second,
            as in the official code, is not.
        indices: Rows and columns of each group, from `frequency_groups`.
        shape: Shape of a kernel, (out, in, kh, kw).

    Raises:
        ValueError: the spectrum's sizes do not fit the shape or the indices.
    """
    scale, half = _scale(spectrum, indices, shape), _plane_size(shape)[1]
    values = torch.view_as_complex(spectrum.contiguous())
    if spectrum.ndim == 4:
        place = (indices[0] * half + indices[1]).flatten()
        values = values.flatten(1).gather(1, place.expand(len(values), -1))
    return _Members.apply(values * scale, indices, shape)


class _Members(torch.autograd.Function):
    """Invert every group of (copies, positions) separately.

    The backward pass of the inverse counts every column twice but those that are their own mirror
    image; here that factor meets the positions of a group, not the planes of all.
    """

    @staticmethod
    def forward(ctx, values: Tensor, indices: Tensor, shape: Shape) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.shape = shape
        rows, half = _plane_size(shape)
        planes = values.new_zeros(len(values), indices.shape[1] * rows * half)
        planes.scatter_(1, _places(indices, rows, half).expand(len(values), -1), values)
        return _invert(planes.view(-1, rows, half), shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, sent: Tensor) -> tuple[Tensor, None, None]:
        (indices,), (rows, half) = ctx.saved_tensors, _plane_size(ctx.shape)
        columns = ctx.shape[1] * ctx.shape[3]
        planes = torch.stack(sent.unbind(3), 2).view(-1, rows, columns)
        spectra = torch.fft.rfft2(planes).view(-1, indices.shape[1] * rows * half)
        grad = spectra.gather(1, _places(indices, rows, half).expand(len(spectra), -1))
        column = indices[1].flatten()
        mirror = (column == 0) | (2 * column == columns)
        return grad * ((2 - mirror.to(sent.dtype)) / (rows * columns)), None, None


def _places(indices: Tensor, rows: int, half: int) -> Int[Tensor, " positions"]:
    """Return the index of each position in a row of planes, one plane for each group."""
    group = torch.arange(indices.shape[1], device=indices.device)[:, None]
    return ((group * rows + indices[0]) * half + indices[1]).flatten()


def fdconv_mixture(
    attention: Float[Tensor, "batch members"],
    spectrum: Float[Tensor, "copies *positions 2"],
    indices: Int[Tensor, "2 groups length"],
    shape: Shape,
) -> Float[Tensor, "batch out in kh kw"]:
    """Return ``attention @ fdconv_basis(...)`` with one inverse transform a sample.

    Args:
        attention: Weight of each member, ordered by copy, then group.
        spectrum: Parameter of the layer, in either layout of `fdconv_basis`.
        indices: Rows and columns of each group, from `frequency_groups`.
        shape: Shape of a kernel, (out, in, kh, kw).

    Raises:
        ValueError: sizes do not agree.
    """
    copies, (_, groups, length) = spectrum.shape[0], indices.shape
    scale = _scale(spectrum, indices, shape)
    if attention.shape[1] != copies * groups:
        raise ValueError(
            f"fdconv_mixture: {copies} copies of {groups} groups need attention "
            f"(batch, {copies * groups}), got {tuple(attention.shape)}"
        )
    if attention.shape[0] == 0:  # which the FFT refuses
        return attention.new_zeros(0, *shape)
    ordered = spectrum[:, indices[0], indices[1]] if spectrum.ndim == 4 else spectrum
    members = ordered.reshape(copies, groups, 2 * length).transpose(0, 1)
    weights = (attention * scale).unflatten(1, (copies, groups)).permute(2, 0, 1)
    mixed = torch.bmm(weights, members).transpose(0, 1)  # (batch, groups, 2 length)
    plane = _plane(mixed.reshape(attention.shape[0], groups * length, 2), indices, shape)
    return _invert(torch.view_as_complex(plane), shape)


def _scale(spectrum: Tensor, indices: Tensor, shape: Shape) -> float:
    """Return the scale of a spectrum; its number of axes tells the two layouts apart."""
    copies, (_, groups, length), plane = spectrum.shape[0], indices.shape, _plane_size(shape)
    if spectrum.shape[1:] == (*plane, 2):
        return float((min(shape[:2]) // 2) * groups * copies)
    if spectrum.shape[1:] == (groups * length, 2):
        return 1.0
    raise ValueError(
        f"fdconv: kernels {shape} with {groups} groups of {length} need a spectrum (copies, "
        f"{plane[0]}, {plane[1]}, 2) or (copies, {groups * length}, 2), got {tuple(spectrum.shape)}"
    )


def _plane_size(shape: Shape) -> tuple[int, int]:
    out, inputs, kernel_height, kernel_width = shape
    return out * kernel_height, inputs * kernel_width // 2 + 1


def _plane(kept: Tensor, indices: Tensor, shape: Shape) -> Tensor:
    """Place (items, kept, 2) on the half spectrum (items, rows, half, 2), zeros elsewhere."""
    rows, half = _plane_size(shape)
    place = (indices[0] * half + indices[1]).flatten()
    plane = kept.new_zeros(kept.shape[0], rows * half, 2)
    return plane.index_copy(1, place, kept).unflatten(1, (rows, half))


def _invert(plane: Tensor, shape: Shape) -> Tensor:
    """Transform complex half spectra to kernels (items, out, in, kh, kw)."""
    out, inputs, kernel_height, kernel_width = shape
    size = (out * kernel_height, inputs * kernel_width)
    kernels = torch.fft.irfft2(plane, s=size)
    split = kernels.unflatten(2, (inputs, kernel_width)).unflatten(1, (out, kernel_height))
    # On a CPU, stacking the kernel's rows takes less time than the copy of a transposed view.
    return torch.stack(split.unbind(2), 3)
