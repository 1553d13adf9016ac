"""Read and write picture files: 8 bits a channel by Pillow, 16 bits without losing half of them."""

import io
import itertools
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torchvision.io import ImageReadMode, decode_png

from sixfold.core import UserError
from sixfold.core.data.atomic import atomic_file
from sixfold.vision.images.picture import ORIENTATION, Picture, upright

WRITES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")  # the first is the default
READS = {*WRITES, ".gif", ".ppm", ".pgm"}
OPAQUE = {".jpg", ".jpeg", ".bmp"}  # formats that hold no transparency
# EXIF tags of the main directory that say what the picture is, whatever the file: description,
# maker, model, orientation, resolution and its unit, software, dates, artist, copyright, the
# camera's and the place's directories, rating.
DESCRIPTIVE = {0x010E, 0x010F, 0x0110, ORIENTATION, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132}
DESCRIPTIVE |= {0x013B, 0x4746, 0x8298, 0x8769, 0x8825, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F}
PNG = b"\x89PNG\r\n\x1a\n"
DIMENSIONS = {"webp": 16383, "jpg": 65500, "jpeg": 65500}  # pixels at most, of a side
DEEP = {"I;16", "I;16B", "I;16L", "I", "F"}  # grey of more than 8 bits, as Pillow names it
DAMAGED = (OSError, SyntaxError, ValueError, struct.error, zlib.error, EOFError, IndexError)


def read_picture(path: Path) -> Picture:
    """Read a picture file, upright; palettes become colours, transparency becomes alpha.

    PNGs of 16 bits a channel stay so. Of an animation it is the first frame.

    Raises:
        UserError: the file is missing, a folder, empty, damaged or no picture, or it holds numbers
            that would be lost (16-bit colour in another format than PNG, floats).
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a picture; name one of its files")
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes); replace or remove it")
    try:
        with Image.open(path) as image:
            return from_pil(image, _decode_16_bits(path, image))
    except UnidentifiedImageError:
        raise UserError(f"{path} is no picture, whatever its name says; replace it") from None
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} is too large: {error}; cut it first") from None
    except DAMAGED as error:
        raise UserError(f"{path} is damaged ({error}); fetch or save it again") from None


def read_rgb(path: Path) -> Image.Image:
    """Read a picture file as networks that classify take it: upright, 8 bits, without alpha.

    Raises:
        UserError: as `read_picture`.
    """
    return to_pil(read_picture(path)).convert("RGB")


def _decode_16_bits(path: Path, image: Image.Image) -> np.ndarray | None:
    """Decode a PNG of 16 bits to (height, width, channels); Pillow keeps 8. Else None."""
    with path.open("rb") as file:
        head = file.read(26)
    if not head.startswith(PNG) or head[24] != 16:
        return None
    if "transparency" in image.info:
        raise UserError(
            f"{path} marks one colour as transparent at 16 bits, which is not supported; save it "
            "with an alpha channel"
        )
    content = torch.from_numpy(np.fromfile(path, np.uint8))
    try:
        return decode_png(content, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    except RuntimeError as error:
        raise OSError(str(error).partition("\n")[0]) from None


def from_pil(image: Image.Image, pixels: np.ndarray | None = None) -> Picture:
    """Take a Pillow image apart, upright.

    Args:
        image: Image of any mode.
        pixels: Pixels of the image, if they were decoded already.

    Raises:
        UserError: the image holds numbers that would be lost.
    """
    exif = Image.Exif()
    if found := image.getexif():
        exif.load(found.tobytes())
        image.load()
        if ORIENTATION in exif and ORIENTATION not in image.getexif():
            exif[ORIENTATION] = 1  # a TIFF is turned by loading it
        for tag in set(exif) - DESCRIPTIVE:  # a TIFF's layout, which is not the new file's
            del exif[tag]
    values = _pixels(image) if pixels is None else pixels
    profile = image.info.get("icc_profile") or b""
    if profile and not _describes(profile):
        profile = b""  # it is of the colours before the conversion, such as CMYK's
    return Picture(upright(values, exif), exif, profile)


def _describes(profile: bytes) -> bool:
    """Return whether a colour profile may be for grey or RGB."""
    space = profile[16:20]  # of the header's fields
    return space in (b"", b"GRAY", b"RGB ")


def _pixels(image: Image.Image) -> np.ndarray:
    """Decode to (height, width, channels) of uint8 or uint16."""
    bits = _bits(image)
    if image.format == "PPM" and image.mode == "I":
        return np.asarray(image).astype(np.uint16)[..., None]
    if image.mode in ("I", "F") or (bits > 8 and image.mode not in DEEP):
        raise UserError(
            f"{getattr(image, 'filename', '') or 'the image'} holds colours of {bits} bits, mode "
            f"{image.mode}; save it as a PNG of 8 or 16 bits a channel"
        )
    values = np.asarray(image if image.mode in DEEP else image.convert(_mode(image)))
    return values.reshape(*values.shape[:2], -1).astype(values.dtype.newbyteorder("="))


def _bits(image: Image.Image) -> int:
    """Return the bits of a channel in the file, where Pillow tells."""
    tiles = getattr(image, "tile", ())
    if image.format == "PPM" and tiles and isinstance(tiles[0].args, tuple):
        return int(tiles[0].args[-1]).bit_length()  # of the largest value
    return max(getattr(image, "tag_v2", {}).get(258, (8,)))  # of a TIFF


def _mode(image: Image.Image) -> str:
    """Return the mode in which nothing of an 8-bit picture is lost."""
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        return "LA" if grey else "RGBA"
    return "L" if grey else "RGB"


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture in the format of the file's suffix, with EXIF and colour profile.

    PNGs and grey TIFFs have the bits of the picture, other files 8. The file appears when it is
    complete.

    Raises:
        UserError: the suffix is no format that can be written, or cannot hold transparency, or the
            disk cannot be written.
    """
    check_output(path)
    suffix = path.suffix.lower()
    if picture.has_alpha and suffix in OPAQUE:
        raise UserError(f"{path}: {suffix} holds no transparency; name a .png")
    largest = DIMENSIONS.get(suffix[1:], max(picture.pixels.shape))
    if max(picture.pixels.shape[:2]) > largest:
        raise UserError(f"{path}: {suffix} has {largest} pixels a side at most; name a .png")
    with atomic_file(path) as partial:
        if suffix == ".png" and picture.pixels.dtype == np.uint16:
            partial.write_bytes(_png_of_16_bits(picture))
            return
        settings: dict[str, Any] = {"quality": 95} if suffix in (".jpg", ".jpeg", ".webp") else {}
        if len(picture.exif) and suffix != ".bmp":
            settings["exif"] = picture.exif.tobytes()
        if picture.profile:
            settings["icc_profile"] = picture.profile
        kind = Image.registered_extensions()[suffix]
        image = to_pil(picture)
        if suffix in (".tif", ".tiff") and picture.pixels.shape[2] == 1:
            image = Image.fromarray(picture.pixels[..., 0])  # also of 16 bits
        image.save(partial, kind, **settings)


def to_pil(picture: Picture) -> Image.Image:
    """Make a Pillow image, which has 8 bits a channel."""
    pixels = picture.pixels
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if len(picture.exif):
        image.info["exif"] = picture.exif.tobytes()
    if picture.profile:
        image.info["icc_profile"] = picture.profile
    return image


def check_output(path: Path) -> None:
    """Raise a UserError if a picture cannot be written under a name."""
    if path.suffix.lower() not in WRITES:
        raise UserError(f"cannot write {path}: name it one of {', '.join(WRITES)}")
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; name a file in it")


def _png_of_16_bits(picture: Picture) -> bytes:
    """Encode with pypng, then add the chunks that it does not write, before the pixels."""
    import png

    height, width, channels = picture.pixels.shape
    plain = io.BytesIO()
    writer = png.Writer(width, height, bitdepth=16, greyscale=channels < 3, alpha=picture.has_alpha)
    writer.write(plain, picture.pixels.reshape(height, -1))
    plain.seek(0)
    extra = []
    if picture.profile:
        extra.append((b"iCCP", b"icc\0\0" + zlib.compress(picture.profile)))
    if len(picture.exif):
        extra.append((b"eXIf", picture.exif.tobytes().removeprefix(b"Exif\0\0")))
    chunks = png.Reader(plain).chunks()
    first = next(chunks)  # IHDR
    complete = io.BytesIO()
    png.write_chunks(complete, itertools.chain([first], extra, chunks))
    return complete.getvalue()
