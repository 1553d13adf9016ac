"""A picture as it was in its file: pixels of 8 or 16 bits, transparency, EXIF, colour profile."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

ORIENTATION = 0x0112  # EXIF tag


@dataclass(frozen=True)
class Picture:
    """An upright picture.

    Args:
        pixels: Values shaped (height, width, channels) of uint8 or uint16; the channels are grey,
            grey and alpha, RGB, or RGB and alpha.
        exif: Camera's notes; empty if there are none.
        profile: ICC colour profile; empty if there is none.
    """

    pixels: np.ndarray
    exif: Image.Exif = field(default_factory=Image.Exif)
    profile: bytes = b""

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is transparency."""
        return self.pixels.shape[2] in (2, 4)


def upright(pixels: np.ndarray, exif: Image.Exif) -> np.ndarray:
    """Turn pixels as the EXIF orientation says, and set the tag to upright."""
    orientation = exif.get(ORIENTATION, 1)
    if ORIENTATION in exif:
        exif[ORIENTATION] = 1
    if orientation in (5, 6, 7, 8):  # rows and columns are exchanged
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):  # the right is the left
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):  # the top is the bottom
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def fill_hidden(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Give wholly transparent pixels the colour of the nearest other one.

    What a file holds there is never seen, but a network would mix it into the pixels beside it.

    Args:
        colour: Values shaped (height, width, channels).
        alpha: Transparency shaped (height, width); 0 is wholly transparent.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return colour
    nearest = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    assert isinstance(nearest, np.ndarray)
    return colour[nearest[0], nearest[1]]
