"""Scores of pictures, and of masks.

Super-resolution papers report PSNR and SSIM of the luma channel, of pictures as arrays of bytes; a
network's output becomes bytes by `to_bytes` first. Segmentation is scored by the mean IoU.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import correlate1d
from torch import Tensor

from sixfold.core import UserError

LUMA = np.array([65.481, 128.553, 24.966])  # ITU-R BT.601, of values in [0, 1] to 16..235
SIGMA, HALF = 1.5, 5  # the Gaussian window of SSIM, 11 x 11


def to_bytes(picture: np.ndarray) -> np.ndarray:
    """Clamp values to [0, 1] and round them to bytes."""
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def luma(picture: np.ndarray) -> Float[np.ndarray, "height width"]:
    """Return the luma Y of a picture, from 16 to 235, not rounded; grey is taken as R = G = B.

    Args:
        picture: Bytes shaped (height, width) or (height, width, 1 or 3).

    Raises:
        UserError: the picture has another shape or kind of number.
    """
    grey = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 1)
    if picture.dtype != np.uint8 or not (grey or (picture.ndim == 3 and picture.shape[2] == 3)):
        raise UserError(
            "scores are of uint8 pictures shaped (height, width) or (height, width, 1 or 3), got "
            f"{picture.dtype} {picture.shape}"
        )
    if grey:
        return picture.reshape(picture.shape[:2]) * (LUMA.sum() / 255) + 16.0
    return picture @ (LUMA / 255) + 16.0


def psnr_y(estimate: np.ndarray, reference: np.ndarray, border: int = 0) -> float:
    """Compute the peak signal-to-noise ratio of luma in dB: 10 log10(255^2 / mean square error).

    Args:
        estimate: Output of a system, as bytes.
        reference: True picture of the same size.
        border: Pixels that do not count at each border; papers leave out as many as the scale.

    Returns:
        The ratio; infinity for equal pictures.

    Raises:
        UserError: sizes differ, or nothing is left within the border.
    """
    a, b = _inner_lumas(estimate, reference, border, least=1)
    error = float(np.mean((a - b) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def ssim_y(estimate: np.ndarray, reference: np.ndarray, border: int = 0) -> float:
    """Compute the structural similarity of luma: the mean over all places of an 11 x 11 window.

    Gaussian of sigma 1.5, places wholly inside the picture, C1 = (0.01 255)^2, C2 = (0.03 255)^2.

    Args:
        estimate: Output of a system, as bytes.
        reference: True picture of the same size.
        border: Pixels that do not count at each border; papers leave out as many as the scale.

    Raises:
        UserError: sizes differ, or fewer than 11 pixels are left within the border.
    """
    a, b = _inner_lumas(estimate, reference, border, least=2 * HALF + 1)
    mean_a, mean_b = _window(a), _window(b)
    var_a, var_b = _window(a * a) - mean_a**2, _window(b * b) - mean_b**2
    covariance = _window(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    below = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(np.mean(above / below))


def _inner_lumas(
    estimate: np.ndarray, reference: np.ndarray, border: int, least: int
) -> tuple[np.ndarray, np.ndarray]:
    if estimate.shape[:2] != reference.shape[:2]:
        raise UserError(
            f"the pictures differ in size: {estimate.shape[:2]} and {reference.shape[:2]} "
            "(height, width)"
        )
    height, width = (size - 2 * border for size in estimate.shape[:2])
    if border < 0 or min(height, width) < least:
        raise UserError(
            f"pictures of {estimate.shape[:2]} (height, width) keep {height} x {width} pixels "
            f"within a border of {border}; at least {least} x {least} are needed"
        )
    inner = slice(border, border + height), slice(border, border + width)
    return luma(estimate[inner]), luma(reference[inner])


def _window(x: np.ndarray) -> np.ndarray:
    """Average over the Gaussian window, wherever it fits."""
    taps = np.exp(-(np.arange(-HALF, HALF + 1.0) ** 2) / (2 * SIGMA**2))
    taps /= taps.sum()
    for axis in (0, 1):
        x = correlate1d(x, taps, axis)
    return x[HALF:-HALF, HALF:-HALF]


def confusion(
    predicted: Int[Tensor, "*shape"], target: Int[Tensor, "*shape"], classes: int
) -> Int[Tensor, "target predicted"]:
    """Count pairs of target and predicted class; targets of no class are left out.

    Args:
        predicted: Predicted classes, 0 to ``classes - 1``.
        target: True classes; others than 0 to ``classes - 1`` are unlabelled.
        classes: Number of classes.
    """
    labelled = (target >= 0) & (target < classes)
    pairs = target[labelled] * classes + predicted[labelled]
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def mean_iou(counts: Int[Tensor, "target predicted"]) -> float:
    """Compute the mean intersection over union, in percent, from the counts of `confusion`.

    A class that is neither predicted nor there does not count. Without any class it is nan.
    """
    hits: Float[Tensor, " class"] = counts.diagonal().double()
    union = counts.sum(0) + counts.sum(1) - hits
    return float(100 * (hits / union)[union > 0].mean())
