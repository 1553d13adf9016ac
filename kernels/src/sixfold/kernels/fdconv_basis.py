"""Kernels of FDConv from their spectrum: one basis for all samples, or one transform a sample.

FDConv keeps a layer's kernel as the half spectrum of the plane (out kh, in kw), cuts the
frequencies by radius into groups of equal size, and makes a kernel per sample whose groups are
weighted by attention. The official code scatters a spectrum and inverts it for every sample. The
inverse transform is linear, so the weighted sum may stand on either side of it:

- `fdconv_basis` inverts every group once; a sample's kernel is then a sum of ``copies * groups``
  arrays, which is one matrix product for the batch (`fdconv_weight`). The basis does not depend on
  the samples: in evaluation the basis is computed once and kept.
- `fdconv_mixture` weighs the spectrum and inverts once a sample: cheaper where the basis must
  be made anew, as in training, and has more members than the batch has samples. The attention is
  looked up by the group number of each position, so the spectrum is read in its own order.
"""

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

Shape = tuple[int, int, int, int]


def frequency_order(rows: int, columns: int, *, keep: float = 1.0) -> Int[Tensor, " kept"]:
    """Sort the positions of a half spectrum by their radius.

    Many radii are equal but for rounding, and the official order is that of float32 with fused
    multiply-adds; here each rounding is written out, so that the order is the same on every
    machine. Positions of one radius stay in the order of the flat index.

    Args:
        rows: Number of rows of the plane, ``out * kh``.
        columns: Number of columns of the plane, ``in * kw``.
        keep: Fraction of the positions to keep, those of the lowest radius.

    Returns:
        Flat indices into a spectrum of ``rows`` by ``columns // 2 + 1``.
    """
    row = torch.arange(rows)
    row = torch.where(2 * row < rows, row, row - rows).float() * (1 / rows)
    column = torch.arange(columns // 2 + 1).float() * (1 / columns)
    squares = (row * row).double()[:, None] + column.double() ** 2
    # A double's square root, rounded to float32, is the IEEE one whatever library computes it.
    radius = squares.float().double().sqrt().float()
    order = radius.flatten().sort(stable=True).indices
    return order[: int(len(order) * keep)]


def frequency_groups(rows: int, columns: int, groups: int) -> Int[Tensor, "rows half"]:
    """Return the group of each position of a half spectrum; group 0 has the lowest frequencies.

    Raises:
        ValueError: there are fewer positions than groups.
    """
    order = frequency_order(rows, columns)
    numbers = torch.empty_like(order).scatter_(0, order, equal_groups(len(order), groups))
    return numbers.unflatten(0, (rows, -1))


def equal_groups(positions: int, groups: int) -> Int[Tensor, " positions"]:
    """Return the group of each position of a sorted list; the last group takes the remainder.

    Raises:
        ValueError: there are fewer positions than groups.
    """
    if not 1 <= groups <= positions:
        raise ValueError(
            f"fdconv: {positions} frequencies cannot be shared by {groups} groups; choose between "
            f"1 and {positions}"
        )
    return (torch.arange(positions) // (positions // groups)).clamp_max(groups - 1)


def fdconv_basis(
    spectrum: Float[Tensor, "copies *positions 2"],
    groups: Integer[Tensor, "*places"],
    shape: Shape,
    members: int,
    order: Int[Tensor, " kept"] | None = None,
) -> Float[Tensor, "members out in kh kw"]:
    """Invert every group of every copy separately; members are ordered by copy, then group.

    Args:
        spectrum: Parameter of the layer: real and imaginary parts either at all positions of the
            plane, (copies, rows, columns // 2 + 1, 2), or at the kept ones, (copies, kept, 2), in
            order. The first layout is scaled by (min(out, in) // 2) groups copies, the second,
            as in the official code, is not.
        groups: Group of each position, from `frequency_groups` or `equal_groups`.
        shape: Shape of a kernel, (out, in, kh, kw).
        members: Number of copies times number of groups.
        order: Kept positions, from `frequency_order`; only for the second layout.

    Raises:
        ValueError: the spectrum's sizes do not fit the shape, the groups or the order.
    """
    copies = spectrum.shape[0]
    scale = _scale(spectrum, groups, shape, members, order)
    rows, half = _plane_size(shape)
    places = torch.arange(rows * half, device=spectrum.device) if order is None else order.long()
    places = groups.flatten().long() * (rows * half) + places
    values = torch.view_as_complex((spectrum * scale).contiguous()).flatten(1)
    return _Members.apply(values, places, shape, members // copies)


class _Members(torch.autograd.Function):
    """Invert every group of (copies, positions) separately.

    The backward pass of the inverse counts every column twice but those that are their own mirror
    image; here that factor meets the positions of a group, not the planes of all.
    """

    @staticmethod
    def forward(ctx, values: Tensor, places: Tensor, shape: Shape, groups: int) -> Tensor:
        ctx.save_for_backward(places)
        ctx.shape, ctx.groups = shape, groups
        rows, half = _plane_size(shape)
        planes = values.new_zeros(len(values), groups * rows * half)
        planes.scatter_(1, places.expand(len(values), -1), values)
        return _invert(planes.view(-1, rows, half), shape)

    @staticmethod
    def backward(ctx, sent: Tensor) -> tuple[Tensor, None, None, None]:
        (places,), (rows, half) = ctx.saved_tensors, _plane_size(ctx.shape)
        spectra = torch.fft.rfft2(_to_planes(sent)).view(-1, ctx.groups * rows * half)
        grad = spectra.gather(1, places.expand(len(spectra), -1))
        return grad * _mirrored(ctx.shape, sent)[places % half], None, None, None


def fdconv_mixture(
    attention: Float[Tensor, "batch members"],
    spectrum: Float[Tensor, "copies *positions 2"],
    groups: Integer[Tensor, "*places"],
    shape: Shape,
    order: Int[Tensor, " kept"] | None = None,
) -> Float[Tensor, "batch out in kh kw"]:
    """Return ``attention @ fdconv_basis(...)`` with one inverse transform a sample.

    Args:
        attention: Weight of each member, ordered by copy, then group.
        spectrum: Parameter of the layer, in either layout of `fdconv_basis`.
        groups: Group of each position, from `frequency_groups` or `equal_groups`.
        shape: Shape of a kernel, (out, in, kh, kw).
        order: Kept positions, from `frequency_order`; only for the second layout.

    Raises:
        ValueError: sizes do not agree.
    """
    copies, members = spectrum.shape[0], attention.shape[1]
    if members % copies:
        raise ValueError(f"fdconv: {copies} copies cannot share attention of {members} members")
    scale = _scale(spectrum, groups, shape, members, order)
    if attention.shape[0] == 0:  # which the FFT refuses
        return attention.new_zeros(0, *shape)
    return _Mixture.apply(attention, spectrum, groups, order, shape, scale)


class _Mixture(torch.autograd.Function):
    """Weigh the spectrum for each sample and invert it, keeping no array of a sample's size."""

    @staticmethod
    def forward(ctx, attention, spectrum, groups, order, shape: Shape, scale: float) -> Tensor:
        ctx.save_for_backward(attention, spectrum, groups, order)
        ctx.shape = shape
        weights = (attention * scale).unflatten(1, (len(spectrum), -1))
        numbers, values = groups.flatten().int(), spectrum.flatten(1, -2)
        mixed = weights[:, 0].index_select(1, numbers)[..., None] * values[0]
        for copy in range(1, len(values)):
            mixed.addcmul_(weights[:, copy].index_select(1, numbers)[..., None], values[copy])
        rows, half = _plane_size(shape)
        if order is not None:
            plane = mixed.new_zeros(len(mixed), rows * half, 2)
            mixed = plane.index_copy_(1, order.long(), mixed)
        return _invert(torch.view_as_complex(mixed.contiguous()).unflatten(1, (rows, half)), shape)

    @staticmethod
    def backward(ctx, sent: Tensor):
        attention, spectrum, groups, order = ctx.saved_tensors
        grads = fdconv_mixture_backward(sent, attention, spectrum, groups, ctx.shape, order)
        return *grads, None, None, None, None


def fdconv_mixture_backward(
    sent: Float[Tensor, "batch out in_ kh kw"],
    attention: Float[Tensor, "batch members"],
    spectrum: Float[Tensor, "copies *positions 2"],
    groups: Integer[Tensor, "*places"],
    shape: Shape,
    order: Int[Tensor, " kept"] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of `fdconv_mixture` with respect to attention and spectrum.

    Args:
        sent: Gradient of the kernels.
        attention: Argument of `fdconv_mixture`, like those that follow.
        spectrum: Parameter of the layer.
        groups: Group of each position.
        shape: Shape of a kernel, (out, in, kh, kw).
        order: Kept positions.
    """
    copies, members = len(spectrum), attention.shape[1]
    scale = _scale(spectrum, groups, shape, members, order)
    planes = torch.view_as_real(torch.fft.rfft2(_to_planes(sent)))
    planes.mul_(_mirrored(shape, sent)[:, None] * scale)
    planes = planes.flatten(1, 2)
    kept = planes if order is None else planes.index_select(1, order)
    numbers, values = groups.flatten().long(), spectrum.flatten(1, -2)
    everywhere = numbers.expand(len(attention), -1)
    grad_weights, grad_values = [], torch.empty_like(values)
    for copy, weights in enumerate(attention.chunk(copies, 1)):
        real, imaginary = (kept * values[copy]).unbind(2)  # faster than sums of two
        products = real + imaginary
        grad_weights.append(torch.zeros_like(weights).scatter_add_(1, everywhere, products))
        shares = weights.index_select(1, numbers)[..., None]
        grad_values[copy] = (kept * shares).sum(0)
    return torch.cat(grad_weights, 1), grad_values.view_as(spectrum)


def _scale(
    spectrum: Tensor, groups: Tensor, shape: Shape, members: int, order: Tensor | None
) -> float:
    """Return the scale of a spectrum; its number of axes tells the two layouts apart."""
    plane, positions = _plane_size(shape), spectrum.shape[1:-1]
    if order is None and positions == plane == groups.shape:
        return float(max(1, min(shape[:2]) // 2) * members)
    if order is not None and positions == order.shape == groups.shape:
        return 1.0
    raise ValueError(
        f"fdconv: kernels {shape} need spectrum and groups of {plane[0]} x {plane[1]} positions, "
        f"or of as many as there are in the order, got {tuple(spectrum.shape)} and "
        f"{tuple(groups.shape)}" + (f", {len(order)} in the order" if order is not None else "")
    )


def _plane_size(shape: Shape) -> tuple[int, int]:
    out, inputs, kernel_height, kernel_width = shape
    return out * kernel_height, inputs * kernel_width // 2 + 1


def _mirrored(shape: Shape, like: Tensor) -> Float[Tensor, " half"]:
    """Return the factor of each column in the gradient of the inverse transform."""
    rows, columns = shape[0] * shape[2], shape[1] * shape[3]
    column = torch.arange(columns // 2 + 1, device=like.device)
    alone = (column == 0) | (2 * column == columns)
    return (2 - alone.to(like.dtype)) / (rows * columns)


def _to_planes(kernels: Float[Tensor, "items out in_ kh kw"]) -> Tensor:
    rows = kernels.permute(0, 1, 3, 4, 2).unbind(3)  # in memory as `_invert` leaves them
    return torch.stack(rows, 4).flatten(3).flatten(1, 2)


def _invert(plane: Tensor, shape: Shape) -> Float[Tensor, "items out in_ kh kw"]:
    """Transform complex half spectra to kernels, in memory with the input channels last.

    That is the order of FDConv's local attention, which multiplies them.
    """
    out, inputs, kernel_height, kernel_width = shape
    size = (out * kernel_height, inputs * kernel_width)
    kernels = torch.fft.irfft2(plane, s=size)
    split = kernels.unflatten(2, (inputs, kernel_width)).unflatten(1, (out, kernel_height))
    # On a CPU, stacking the kernel's columns takes less time than the copy of a transposed view.
    return torch.stack(split.unbind(4), 3).permute(0, 1, 4, 2, 3)
