"""Pictures with a class for every pixel: folders of one's own, CamVid, synthetic shapes.

Layouts: a folder with ``images/`` and ``masks/``, or CamVid's, whose pictures are in ``train/`` and
masks in ``trainannot/``. A mask has the name of its picture, but for the ending, and holds a class
in each pixel; 255, and the number behind the last class, is unlabelled.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8
from PIL import Image, ImageDraw, ImageFilter, ImageOps, UnidentifiedImageError
from pydantic import Field, PositiveInt
from safetensors.torch import load_file, save
from torch import Tensor

from sixfold.core import Config, UserError
from sixfold.core.data.atomic import atomic_folder
from sixfold.core.data.fetch import fetch
from sixfold.core.training.sampling import derive_seed
from sixfold.vision.data.catalog import DATASETS
from sixfold.vision.images.files import read_rgb

UNLABELLED = 255
LAYOUTS = {"images": "masks", "train": "trainannot", "test": "testannot"}
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}
CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
    "bicyclist",
)  # fmt: skip
COLOURS = np.array(
    [
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ],
    dtype=np.uint8,
)  # fmt: skip

Pair = tuple[UInt8[Tensor, "3 height width"], UInt8[Tensor, "height width"]]


class SegmentationData(Config):
    """The ``data:`` block of the task.

    Args:
        scale: Factor of the size of the published pictures.
        crop: Height and width of a training crop in pixels.
        synthetic: Number of synthetic pictures to train on, and of those to test on.
    """

    scale: float = Field(default=0.5, gt=0, le=1)
    crop: tuple[PositiveInt, PositiveInt] = (96, 128)
    synthetic: tuple[PositiveInt, PositiveInt] = (15, 8)

    def memory_bytes(self) -> int:
        """Return what a training crop takes."""
        return 3 * 4 * self.crop[0] * self.crop[1]


class CropOptions(Config):
    """How training crops are cut from pictures of one's own.

    Args:
        crop_height: Height of a training crop in pixels, after scaling.
        crop_width: Width of a training crop in pixels, after scaling.
    """

    crop_height: int = Field(default=96, ge=8)
    crop_width: int = Field(default=128, ge=8)


class Files:
    """Pictures and masks in files, read and scaled when asked for.

    Args:
        pairs: Files of picture and mask.
        scale: Factor of their size.
        classes: Number of classes.
    """

    def __init__(self, pairs: Sequence[tuple[Path, Path]], scale: float, classes: int) -> None:
        self.pairs, self.scale, self.classes = list(pairs), scale, classes

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < len(self.pairs):
            raise IndexError(index)
        return read_pair(*self.pairs[index], self.scale, self.classes)


class Crops:
    """Random crops of pictures, half of them mirrored; smaller pictures are padded, unlabelled.

    Args:
        pairs: Pictures and masks.
        crop: Height and width of a crop.
        repeats: Number of crops of each picture in an epoch.
    """

    def __init__(self, pairs: Sequence[Pair] | Files, crop: tuple[int, int], repeats: int) -> None:
        self.pairs, self.crop, self.repeats = pairs, crop, repeats

    def __len__(self) -> int:
        return len(self.pairs) * self.repeats

    def sample(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return one crop: the picture between 0 and 1, and its classes."""
        picture, mask = self.pairs[index % len(self.pairs)]
        height, width = self.crop
        whole = torch.full((4, max(height, mask.shape[0]), max(width, mask.shape[1])), UNLABELLED)
        whole[:3, : mask.shape[0], : mask.shape[1]] = picture.long()
        whole[3, : mask.shape[0], : mask.shape[1]] = mask.long()
        top, left = (
            int(torch.randint(size - part + 1, (), generator=generator))
            for size, part in zip(whole.shape[1:], self.crop, strict=True)
        )
        part = whole[:, top : top + height, left : left + width]
        if torch.rand((), generator=generator) < 0.5:
            part = part.flip(2)
        return {"image": part[:3] / 255, "mask": part[3]}


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Return the pictures of a folder with their masks, in the order of their names.

    Raises:
        UserError: the folder has no known layout, or a picture has no mask.
    """
    for pictures, masks in LAYOUTS.items():
        if (folder / pictures).is_dir() and (folder / masks).is_dir():
            return _matched(folder / pictures, folder / masks)
    known = " or ".join(f"{a}/ and {b}/" for a, b in LAYOUTS.items())
    raise UserError(f"{folder} does not hold {known}")


def _matched(pictures: Path, masks: Path) -> list[tuple[Path, Path]]:
    by_name = {f.stem: f for f in sorted(masks.iterdir()) if f.suffix.lower() in PICTURES}
    found = [f for f in sorted(pictures.iterdir()) if f.suffix.lower() in PICTURES]
    alone = [f.name for f in found if f.stem not in by_name]
    if not found:
        raise UserError(f"{pictures} holds no picture ({', '.join(sorted(PICTURES))})")
    if alone:
        raise UserError(f"{len(alone)} pictures have no mask in {masks}, the first is {alone[0]}")
    return [(f, by_name[f.stem]) for f in found]


def read_pair(picture: Path, mask: Path, scale: float, classes: int) -> Pair:
    """Read a picture and its mask at a scale.

    Raises:
        UserError: a file cannot be read, their sizes differ, or a class is out of range.
    """
    colours, labels = read_rgb(picture), _open_mask(mask)
    if colours.size != labels.size:
        raise UserError(f"{picture} is {colours.size}, its mask {mask} is {labels.size} pixels")
    if labels.mode not in ("L", "P", "1", "I", "I;16"):
        raise UserError(
            f"{mask} is a picture in colours ({labels.mode}); a mask holds one class a pixel"
        )
    width, height = (max(1, round(scale * side)) for side in colours.size)
    size = (width, height)
    small = torch.from_numpy(np.array(colours.resize(size, Image.Resampling.BILINEAR)))
    values = np.array(labels.resize(size, Image.Resampling.NEAREST)).astype(np.int64)
    values[values == classes] = UNLABELLED
    wrong = values[(values > classes) & (values != UNLABELLED)]
    if wrong.size or values.min() < 0:
        worst = wrong.max() if wrong.size else values.min()
        raise UserError(
            f"{mask} holds class {worst}, but there are {classes} (0 to {classes - 1}, and "
            f"{classes} or 255 unlabelled); set classes to what the masks hold"
        )
    return small.permute(2, 0, 1), torch.from_numpy(values.astype(np.uint8))


def read_picture(file: Path) -> Float[Tensor, "3 height width"]:
    """Read a picture in colours, upright, with values between 0 and 1.

    Raises:
        UserError: it cannot be read.
    """
    pixels = np.array(read_rgb(file))
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255


def _open_mask(file: Path) -> Image.Image:
    """Open a mask as it is: of a palette it is the numbers that count, not the colours."""
    try:
        with Image.open(file) as opened:
            return ImageOps.exif_transpose(opened).copy()
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise UserError(f"{file} is no picture that can be read ({error})") from None


def resize_picture(
    picture: Float[Tensor, "3 height width"], scale: float
) -> Float[Tensor, "3 _ _"]:
    """Scale a picture down as those of the training data are."""
    if scale == 1:
        return picture
    height, width = (max(1, round(scale * side)) for side in picture.shape[1:])
    pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255


def encode_mask(mask: Integer[Tensor, "height width"]) -> bytes:
    """Return a palette PNG whose values are the classes."""
    picture = Image.fromarray(mask.to(torch.uint8).numpy())
    picture.putpalette(COLOURS.tobytes())
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def coloured(mask: Tensor) -> Float[np.ndarray, "height width 3"]:
    """Paint a mask for people; unlabelled pixels are black."""
    palette = np.zeros((256, 3))
    palette[: len(COLOURS)] = COLOURS / 255
    return palette[mask.numpy()]


def prepare(data: SegmentationData, source: Literal["real", "builtin"], folder: Path) -> None:
    """Write training and test pictures, scaled, and manifest.json, atomically.

    Raises:
        UserError: the published pictures are not available, or the folder cannot be written.
    """
    splits: dict[str, list[Pair]] = {}
    for split, count in zip(("train", "test"), data.synthetic, strict=True):
        if source == "real":
            home = fetch(DATASETS["camvid_subset"])
            pairs = _matched(home / split, home / f"{split}annot")
            splits[split] = [read_pair(*pair, data.scale, len(CLASSES)) for pair in pairs]
        else:
            splits[split] = [draw_shapes(derive_seed(0, split, i)) for i in range(count)]
    dataset = DATASETS["camvid_subset"]
    manifest: dict[str, Any] = {"source": source, "data": data.model_dump(mode="json")}
    manifest |= {"pictures": {split: len(pairs) for split, pairs in splits.items()}}
    if source == "real":
        manifest["set"] = {"licence": dataset.licence, "citation": dataset.citation}
    with atomic_folder(folder) as partial:
        for split, pairs in splits.items():
            tensors = {
                f"picture_{i:03}": picture.contiguous() for i, (picture, _) in enumerate(pairs)
            }
            tensors |= {f"mask_{i:03}": mask for i, (_, mask) in enumerate(pairs)}
            (partial / f"{split}.safetensors").write_bytes(save(tensors))
        text = json.dumps(manifest, indent=1, sort_keys=True)
        (partial / "manifest.json").write_text(text + "\n", encoding="utf-8")


def read_prepared(folder: Path, split: Literal["train", "test"]) -> list[Pair]:
    """Read what `prepare` wrote."""
    tensors = load_file(folder / f"{split}.safetensors")
    names = sorted(name for name in tensors if name.startswith("picture"))
    return [(tensors[name], tensors[name.replace("picture", "mask")]) for name in names]


def draw_shapes(seed: int, height: int = 180, width: int = 240) -> Pair:
    """Draw shapes of ten classes on a background, under random blur and noise.

    Five kinds of shape, plain or striped: stripes and edges are what blur takes first.
    """
    random = np.random.default_rng(seed)
    picture = Image.new("RGB", (width, height), tuple(random.integers(60, 200, 3).tolist()))
    labels = Image.new("L", (width, height), 0)
    for _ in range(12):
        kind, striped, radius = random.integers(5), random.integers(2), random.integers(12, 40)
        x, y = random.integers(width), random.integers(height)
        shape = Image.new("L", (width, height), 0)
        _draw_shape(ImageDraw.Draw(shape), int(kind), int(x), int(y), int(radius))
        colour = Image.new("RGB", (width, height), tuple(random.integers(0, 256, 3).tolist()))
        if striped:
            dark = np.array(colour)
            dark[:, (np.arange(width) // 4) % 2 == 0] //= 3
            colour = Image.fromarray(dark)
        picture.paste(colour, mask=shape)
        labels.paste(1 + int(kind) + 5 * int(striped), mask=shape)
    blurred = picture.filter(ImageFilter.GaussianBlur(float(random.uniform(0, 2.5))))
    noise = random.normal(0, random.uniform(0, 25), (height, width, 3))
    pixels = np.clip(np.array(blurred) + noise, 0, 255).astype(np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(np.array(labels))


def _draw_shape(draw: ImageDraw.ImageDraw, kind: int, x: int, y: int, radius: int) -> None:
    box = (x - radius, y - radius, x + radius, y + radius)
    match kind:
        case 0:
            draw.ellipse(box, fill=255)
        case 1:
            draw.rectangle(box, fill=255)
        case 2:
            draw.polygon([(x - radius, y + radius), (x + radius, y + radius), (x, y - radius)], 255)
        case 3:
            draw.ellipse(box, outline=255, width=max(4, radius // 3))
        case _:
            thick = max(3, radius // 3)
            draw.rectangle((x - radius, y - thick, x + radius, y + thick), fill=255)
            draw.rectangle((x - thick, y - radius, x + thick, y + radius), fill=255)
