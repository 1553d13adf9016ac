"""A folder of one's own pictures, to learn super-resolution from: its low resolution is made here.

Files are read when a patch is asked for, so that a folder may be larger than memory. Low resolution
is `imresize` of the bytes around a patch, which is that of the whole picture.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from pydantic import PositiveInt
from torch import Tensor

from sixfold.core import Config, UserError
from sixfold.core.training.sampling import derive_seed
from sixfold.vision.data.super_resolution import Patches
from sixfold.vision.images.files import READS, read_picture, to_pil
from sixfold.vision.images.picture import Picture
from sixfold.vision.images.resize import imresize

MARGIN = 3  # pixels of low resolution that decide a pixel beside them

Item = TypeVar("Item")


class PictureConfig(Config):
    """How one's own pictures are used.

    Args:
        patch: Side of a training patch in pixels of low resolution.
        valid_pictures: Largest number of validation pictures that are scored.
        valid_side: Side of their centres that is scored, in pixels of high resolution.
    """

    patch: PositiveInt = 48
    valid_pictures: PositiveInt = 50
    valid_side: PositiveInt = 512


def find_pictures(folder: Path, least: int) -> list[Path]:
    """List the pictures of a folder and those below it, by name.

    Args:
        folder: Folder of pictures.
        least: Smallest height and width in pixels.

    Raises:
        UserError: it is no folder, or holds no picture, a damaged one or a smaller one.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give a folder of pictures of high resolution")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in READS and f.is_file())
    if not files:
        raise UserError(f"{folder} holds no pictures of these kinds: {', '.join(sorted(READS))}")
    for file in files:
        try:
            with Image.open(file) as image:
                size = image.size
        except OSError:
            raise UserError(f"{file} is no picture or is damaged; replace or remove it") from None
        if min(size) < least:
            raise UserError(
                f"{file} has {size[0]} x {size[1]} pixels, a patch needs {least} x {least}; remove "
                "it, or give a smaller --patch"
            )
    return files


def read_bytes(file: Path, channels: int) -> np.ndarray:
    """Read a picture as bytes (height, width, channel) of one or three channels, without alpha."""
    pixels = read_picture(file).pixels
    colour = pixels[..., :-1] if pixels.shape[2] in (2, 4) else pixels
    image = to_pil(Picture(colour)).convert("L" if channels == 1 else "RGB")
    values = np.asarray(image)
    return values.reshape(*values.shape[:2], channels)


class OwnPictures:
    """Training patches of picture files, and their centres for validation.

    Args:
        files: Pictures of high resolution.
        scale: Factor of the enlargement.
        channels: Channels of the network: 1 or 3.
        config: How the pictures are used.
    """

    def __init__(
        self, files: Sequence[Path], scale: int, channels: int, config: PictureConfig
    ) -> None:
        self.files, self.scale, self.channels, self.config = files, scale, channels, config

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Cut a random patch, the same of low and high resolution, flipped and turned."""
        high = read_bytes(self.files[index], self.channels)
        side, scale = self.config.patch, self.scale
        height, width = (size // scale for size in high.shape[:2])  # of low resolution
        top, left = (
            int(torch.randint(size - side + 1, (), generator=generator)) for size in (height, width)
        )
        rows, columns = _around(top, side, height), _around(left, side, width)
        seen = high[_times(rows, scale), _times(columns, scale)]
        low = imresize(np.ascontiguousarray(seen), 1 / scale)
        low = low[top - rows.start :, left - columns.start :][:side, :side]
        start = (scale * (top - rows.start), scale * (left - columns.start))
        seen = seen[start[0] :, start[1] :][: scale * side, : scale * side]
        pair = (torch.from_numpy(low), torch.from_numpy(np.ascontiguousarray(seen)))
        return Patches([pair], side).sample(0, generator)

    def centres(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the centres of the first pictures in low and high resolution."""
        for file in self.files[: self.config.valid_pictures]:
            high = read_bytes(file, self.channels)
            sides = (min(size, self.config.valid_side) for size in high.shape[:2])
            height, width = (side - side % self.scale for side in sides)
            top, left = (high.shape[0] - height) // 2, (high.shape[1] - width) // 2
            high = np.ascontiguousarray(high[top : top + height, left : left + width])
            yield imresize(high, 1 / self.scale), high


def _around(start: int, side: int, size: int) -> slice:
    return slice(max(0, start - MARGIN), min(size, start + side + MARGIN))


def _times(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)


def hold_out(
    files: Sequence[Item], fraction: float, seed: int, data: Path
) -> tuple[list[Item], list[Item]]:
    """Split the files of a folder, or pairs of them, into training and validation.

    Raises:
        UserError: the folder holds one only.
    """
    if len(files) < 2:
        raise UserError(f"{data} holds one picture; give others for validation with --valid")
    generator = torch.Generator().manual_seed(derive_seed(seed, "held out"))
    order = torch.randperm(len(files), generator=generator).tolist()
    held = min(max(1, round(fraction * len(files))), len(files) - 1)
    return [files[i] for i in sorted(order[held:])], [files[i] for i in sorted(order[:held])]
