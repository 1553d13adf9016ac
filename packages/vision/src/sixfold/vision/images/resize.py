"""MATLAB's ``imresize``, bicubic: how the low-resolution pictures of the benchmarks were made."""

import math

import numpy as np
from scipy.sparse import csr_array

from sixfold.core import UserError

RADIUS = 2.0  # of the cubic kernel, in pixels of the smaller picture


def imresize(picture: np.ndarray, scale: int | float) -> np.ndarray:
    """Resize a picture as MATLAB's ``imresize(picture, scale)`` does.

    Bicubic with a = -0.5, stretched by 1 / scale where the picture shrinks (anti-aliasing), the
    picture mirrored at its borders; first along the height, then along the width. Bytes are rounded
    after each of the two passes, as MATLAB rounds them.

    Args:
        picture: Picture shaped (height, width) or (height, width, channels), uint8 or float.
        scale: Factor on height and width, whose products are rounded up.

    Returns:
        The picture of the new size: uint8, or float64, which may overshoot the range of its input.

    Raises:
        UserError: the picture has another shape or kind of number, or the scale is not above 0.
    """
    if picture.ndim not in (2, 3) or not picture.size:
        raise UserError(
            f"imresize takes a picture shaped (height, width) or (height, width, channels), got "
            f"{picture.shape}"
        )
    if not 0 < scale < math.inf:
        raise UserError(f"imresize takes a scale above 0, got {scale}")
    is_bytes = picture.dtype == np.uint8
    if not is_bytes and not np.issubdtype(picture.dtype, np.floating):
        raise UserError(f"imresize takes uint8 or float pictures, got {picture.dtype}")
    for axis in (0, 1):
        picture = _resize_axis(picture, float(scale), axis)
        if is_bytes:  # halves upwards
            picture = np.floor(picture + 0.5).clip(0, 255).astype(np.uint8)
    return picture


def _resize_axis(picture: np.ndarray, scale: float, axis: int) -> np.ndarray:
    moved = np.moveaxis(picture, axis, 0)
    weights = _weights(moved.shape[0], scale)
    flat = weights @ moved.reshape(moved.shape[0], -1).astype(np.float64)
    return np.moveaxis(flat.reshape(-1, *moved.shape[1:]), 0, axis)


def _weights(size: int, scale: float) -> csr_array:
    """Compute the share of each pixel of an axis in each of the resized axis."""
    stretch = min(scale, 1.0)
    taps = math.ceil(2 * RADIUS / stretch) + 2
    length = math.ceil(size * scale - 1e-9)  # 1/3 of 48 is 16
    centres = (np.arange(length) + 0.5) / scale - 0.5  # in pixels of the picture
    first = np.floor(centres + 0.5 - RADIUS / stretch).astype(int) - 1
    places = first[:, None] + np.arange(taps)
    shares = _cubic((centres[:, None] - places) * stretch)
    shares /= shares.sum(1, keepdims=True)
    mirrored = places % (2 * size)
    mirrored = np.minimum(mirrored, 2 * size - 1 - mirrored)
    rows = np.arange(length).repeat(taps)
    return csr_array((shares.ravel(), (rows, mirrored.ravel())), shape=(length, size))


def _cubic(x: np.ndarray) -> np.ndarray:
    """Evaluate Keys' kernel with a = -0.5."""
    x = np.abs(x)
    inner = (1.5 * x - 2.5) * x**2 + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, inner, np.where(x < RADIUS, outer, 0.0))
