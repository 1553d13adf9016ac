"""3x3 convolutions and bicubic doubling of maps, with a padding mode for each axis."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import UserError
from sixfold.kernels._tables import tables
from sixfold.pde.fields.recompute import Make, convolve

Padding = Literal["zeros", "circular", "replicate"]
Modes = tuple[Padding, Padding]  # of the x axis (height) and of the y axis (width)
Maps = Float[Tensor, "batch channel x y"]
Part = Float[Tensor, "batch _ x y"]  # one of several that stand side by side

Activation = Literal["gelu", "relu", "silu", "tanh", "sigmoid"]
ACTIVATIONS = {
    "gelu": functional.gelu,  # the exact one
    "relu": functional.relu,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}

SHARPNESS = -0.75  # a of the bicubic kernel


def both_axes(value: object) -> object:
    """Read one padding mode as the mode of both axes; for a validator of settings."""
    return (value, value) if isinstance(value, str) else value


def pad(
    x: Maps, before: int, after: int, modes: Modes
) -> Float[Tensor, "batch channel x_padded y_padded"]:
    """Pad both axes, each in its own mode.

    Raises:
        UserError: a circular axis is shorter than the padding.
    """
    for axis, mode in ((2, modes[0]), (3, modes[1])):
        if mode == "circular" and max(before, after) > x.shape[axis]:
            raise UserError(
                f"a circular padding of {max(before, after)} needs maps at least as large, got "
                f"{tuple(x.shape[2:])}; give a finer grid"
            )
        amounts = (0, 0, before, after) if axis == 2 else (before, after, 0, 0)
        x = functional.pad(x, amounts, "constant" if mode == "zeros" else mode)
    return x


class PaddedConv(nn.Conv2d):
    """3x3 convolution that keeps the grid (or halves it, by ``stride=2``).

    Called with several maps, it convolves their concatenation.
    """

    def __init__(
        self, inputs: int, outputs: int, modes: Modes, *, dilation: int = 1, stride: int = 1
    ) -> None:
        super().__init__(inputs, outputs, 3, stride=stride, dilation=dilation)
        self.modes = modes

    def forward(self, *parts: Part) -> Float[Tensor, "batch out x_out y_out"]:
        return self.of(joined, *parts)

    def of(self, make: Make, *tensors: Tensor) -> Float[Tensor, "batch out x_out y_out"]:
        """Convolve what a cheap function makes of tensors, which alone the gradient keeps."""
        margin = self.dilation[0]
        if self.modes == ("zeros", "zeros"):  # without a padded copy
            return convolve(self, margin, make, *tensors)
        return convolve(self, 0, lambda *t: pad(make(*t), margin, margin, self.modes), *tensors)


class PointwiseConv(nn.Conv2d):
    """1x1 convolution, computed as a matrix product."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Maps) -> Float[Tensor, "batch out x y"]:
        assert self.bias is not None
        y = torch.matmul(self.weight.flatten(1), x.flatten(2)) + self.bias[:, None]
        return y.unflatten(2, x.shape[2:])


def joined(*parts: Tensor) -> Tensor:
    """Set maps side by side on the axis of channels; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def upsample(x: Maps, modes: Modes) -> Float[Tensor, "batch channel x_doubled y_doubled"]:
    """Double a map by bicubic interpolation (align_corners False, a = -0.75).

    Each axis is a product with a matrix of four numbers a row: torch's own interpolation takes
    longer than the convolutions around it, its gradient several times as long. A circular axis
    wraps around, as often as it must; the other modes repeat the value at the border.
    """
    (tall,) = tables(doubling, x.shape[2], modes[0] == "circular", like=x)
    (wide,) = tables(doubling, x.shape[3], modes[1] == "circular", like=x)
    if _channels_last(x):
        return _upsampled_points(x.permute(0, 2, 3, 1), tall, wide).permute(0, 3, 1, 2)
    maps = torch.matmul(x, wide.T).flatten(0, 1)
    maps = torch.bmm(tall.expand(maps.shape[0], -1, -1), maps)
    return maps.unflatten(0, x.shape[:2])


def _upsampled_points(
    x: Float[Tensor, "batch x y channel"], tall: Tensor, wide: Tensor
) -> Float[Tensor, "batch x_doubled y_doubled channel"]:
    """Upsample maps whose channels are last in memory, without copies."""
    batch, rows, columns, channels = x.shape
    lines = torch.matmul(tall, x.reshape(batch, rows, columns * channels))
    lines = lines.view(batch * 2 * rows, columns, channels)
    points = torch.bmm(wide.expand(lines.shape[0], -1, -1), lines)
    return points.view(batch, 2 * rows, 2 * columns, channels)


def _channels_last(x: Maps) -> bool:
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def doubling(size: int, circular: bool) -> tuple[Float[Tensor, "doubled size"]]:
    """Make the matrix that doubles an axis, in float64."""
    distances = (1.75, 0.75, 0.25, 1.25)
    weights = torch.tensor([_cubic(d) for d in distances], dtype=torch.float64)
    even = torch.arange(size)[:, None] + torch.arange(-2, 2)  # output 2 i lies at i - 1/4
    odd = even + 1  # and 2 i + 1 at i + 1/4
    taken = torch.stack((even, odd), 1).flatten(0, 1)
    taken = taken % size if circular else taken.clamp(0, size - 1)
    values = torch.stack((weights, weights.flip(0))).repeat(size, 1)
    return (torch.zeros(2 * size, size, dtype=torch.float64).scatter_add(1, taken, values),)


def _cubic(distance: float) -> float:
    """Evaluate Keys' cubic kernel at a distance below 2."""
    d, a = distance, SHARPNESS
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a


def group_norm(
    x: Maps, weight: Float[Tensor, " channel"], bias: Float[Tensor, " channel"], phases: int = 1
) -> Maps:
    """Normalise maps over channels and space, the statistics shared by groups of ``phases`` maps.

    Args:
        x: Maps; the phases of one field follow one another on the batch axis.
        weight: Scale of each channel.
        bias: Shift of each channel.
        phases: Number of maps that are parts of one field.
    """
    if phases == 1:
        return functional.group_norm(x, 1, weight, bias)
    together = x.unflatten(0, (-1, phases)).flatten(1, 2)
    y = functional.group_norm(together, 1, weight.repeat(phases), bias.repeat(phases))
    return y.reshape(x.shape)


def split_phases(x: Maps, factor: int) -> Float[Tensor, "phase channel x_coarse y_coarse"]:
    """Split each map into its factor^2 sub-lattices, one after another on the batch axis."""
    parts = x.unflatten(3, (-1, factor)).unflatten(2, (-1, factor))
    return parts.permute(0, 3, 5, 1, 2, 4).flatten(0, 2)


def join_phases(
    x: Float[Tensor, "phase channel x y"], factor: int
) -> Float[Tensor, "batch channel x_fine y_fine"]:
    """Undo `split_phases`."""
    parts = x.unflatten(0, (-1, factor, factor)).permute(0, 3, 4, 1, 5, 2)
    return parts.flatten(4, 5).flatten(2, 3)


def check_sides(
    sides: Sequence[int], modes: Modes, *, multiple: int, circular_least: int, who: str
) -> None:
    """Refuse a grid that a network cannot halve as often as it must.

    Raises:
        UserError: a side is no multiple, or too small to be wrapped.
    """
    for axis, side, mode in zip("xy", sides, modes, strict=True):
        if side % multiple or side == 0:
            near = max(multiple, round(side / multiple) * multiple)
            raise UserError(
                f"{who} takes grids whose sides are multiples of {multiple}, got {side} points "
                f"along {axis}; resample to {near}"
            )
        if mode == "circular" and side < circular_least:
            raise UserError(
                f"{who} with circular padding takes sides from {circular_least}, got {side} points "
                f"along {axis}; give a finer grid, or set repeat_wrap=True to wrap small maps more "
                "than once"
            )
