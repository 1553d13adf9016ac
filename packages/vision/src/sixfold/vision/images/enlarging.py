"""Enlarge pictures of any kind and size with a super-resolution network, in bounded memory.

A large picture is cut into tiles that are enlarged one after the other, each with as many pixels
around it as the network looks far; so the result is that of one pass, without seams. Grey pictures
are given to a network for colours as R = G = B, and so is transparency. Colours beneath what is
wholly transparent are first replaced by the nearest visible ones.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Num
from PIL import Image
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.data.tensors import as_tensor
from sixfold.core.devices import check_device
from sixfold.core.many_files import run_files
from sixfold.core.progress import progress
from sixfold.vision.images.files import (
    READS,
    WRITES,
    check_output,
    from_pil,
    read_picture,
    to_pil,
    write_picture,
)
from sixfold.vision.images.network import check_eval_mode
from sixfold.vision.images.picture import Picture, fill_hidden
from sixfold.vision.images.tiles import automatic_side, cut

Input = TypeVar("Input", Tensor, np.ndarray, Image.Image, Path, str)
LARGEST = {torch.uint8: 255, torch.uint16: 65535}


def upscale(model: Any, picture: Input, tile: int | None = None) -> Any:
    """Enlarge a picture: a tensor, an array, a PIL image, or a file.

    Args:
        model: Network in eval mode with its settings as ``config``: CFSR, PAN, IMDN.
        picture: Tensor (channel, height, width) or (batch, channel, height, width); array (height,
            width) or (height, width, channel); PIL image; path of a file. Values are bytes, 16-bit
            numbers, or floats in [0, 1]. Channels are the network's, or grey or RGB, and alpha.
        tile: Side of a tile in pixels of the picture; by default as large as memory allows.

    Returns:
        The enlarged picture, of the kind and type of number of the given one; of a file an array,
        upright. Floats are as the network returns them, not clamped.

    Raises:
        UserError: the picture has other channels or numbers than those above, the file cannot be
            read, or the network is in training mode or cannot be tiled.
    """
    if isinstance(picture, (str, Path)):
        return upscale(model, read_picture(Path(picture)).pixels, tile)
    if isinstance(picture, Image.Image):
        given = from_pil(picture)
        enlarged = upscale(model, given.pixels, tile)
        if enlarged.dtype == np.uint16:  # Pillow has 16 bits for grey alone
            return Image.fromarray(enlarged[..., 0])
        return to_pil(Picture(enlarged, given.exif, given.profile))
    if isinstance(picture, np.ndarray):
        if picture.ndim not in (2, 3):
            raise _unusable(picture)
        planes = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
        result = _enlarge(model, as_tensor(planes, "the picture"), tile).numpy()
        return result[0] if picture.ndim == 2 else result.transpose(1, 2, 0)
    if not isinstance(picture, Tensor):
        raise UserError(
            f"a picture is a tensor, an array, a PIL image or a path, not {type(picture).__name__}"
        )
    picture = as_tensor(picture, "the picture")
    if picture.ndim == 4 and len(picture):
        return torch.stack([_enlarge(model, one, tile) for one in picture])
    if picture.ndim != 3:
        raise _unusable(picture)
    return _enlarge(model, picture, tile)


def enlarge_files(
    model: Any, paths: Sequence[Path], *, tile: int | None, device: str, overwrite: bool
) -> None:
    """Enlarge picture files, folders of them or patterns, as `run_files` names the outputs.

    Raises:
        UserError: as `run_files`; or the device or the side of a tile cannot be used.
    """
    check_device(device)
    _side(model, 1, 1, tile)
    model = model.to(device)
    run_files(
        paths,
        lambda input, output: enlarge_file(model, input, output, tile),
        reads=READS,
        writes=WRITES,
        overwrite=overwrite,
    )


def enlarge_file(model: Any, input: Path, output: Path, tile: int | None = None) -> None:
    """Enlarge one picture file; EXIF and colour profile are kept, and 16 bits a channel in PNGs.

    Raises:
        UserError: the input cannot be read or enlarged, or the output cannot be written.
    """
    check_output(output)
    given = read_picture(input)
    pixels = torch.from_numpy(given.pixels).permute(2, 0, 1)
    try:
        enlarged = _enlarge(model, pixels, tile, label=input.name).permute(1, 2, 0).numpy()
    except UserError as error:
        raise UserError(f"{input}: {error}") from None
    write_picture(output, Picture(enlarged, given.exif, given.profile))


def check_scale(model: Any, scale: int | None, weights: str | Path) -> None:
    """Raise a UserError if weights enlarge by another factor than the one asked for."""
    if scale is not None and scale != model.config.upscale:
        raise UserError(
            f"{weights} enlarges by {model.config.upscale}, --scale says {scale}; give weights of "
            f"that scale, or leave --scale out"
        )


def _enlarge(
    model: Any, pixels: Num[Tensor, "channel height width"], tile: int | None, label: str = ""
) -> Num[Tensor, "channel height_out width_out"]:
    """Enlarge one picture tile by tile; the result has its type of number and its device."""
    check_eval_mode(model)
    channels, height, width = pixels.shape
    has_alpha = _has_alpha(model, pixels)
    alpha = pixels[-1] if has_alpha else None
    if alpha is not None:
        wide = pixels.cpu().float() if pixels.is_floating_point() else pixels.cpu()
        visible = fill_hidden(wide[:-1].permute(1, 2, 0).numpy(), wide[-1].numpy())
        pixels = torch.cat([torch.from_numpy(visible).permute(2, 0, 1).to(pixels), alpha[None]])
    scale = model.config.upscale
    side = _side(model, height, width, tile)
    enlarged = pixels.new_empty((height * scale, width * scale, channels)).permute(2, 0, 1)
    tiles = list(cut(height, width, side, model.config.receptive_radius() or 0))
    with torch.no_grad(), progress(label or "enlarging", len(tiles)) as advance:
        for one in tiles:
            seen = pixels[:, one.seen_rows, one.seen_columns]
            result = _network(model, seen, has_alpha)
            enlarged[:, *one.outer(scale)] = _like(result[:, *one.inner(scale)], pixels)
            advance(1)
    if enlarged.is_floating_point() and not bool(enlarged.isfinite().all()):
        raise UserError(
            f"the enlarged picture is not finite: values of {float(pixels.abs().max()):.3g} are "
            "out of the network's range; scale them to 0 to 1"
        )
    if alpha is not None and bool((alpha == alpha[0, 0]).all()):
        enlarged[-1] = alpha[0, 0]  # no network is as exact
    return enlarged


def _network(model: Any, seen: Tensor, has_alpha: bool) -> Tensor:
    """Run the network on what is seen of a picture, with alpha beside it as a grey picture."""
    first = next(model.parameters())
    # divided before it is rounded to the weights' type: half precision has no 65535
    values = seen.to(first.device)
    if seen.dtype in LARGEST:
        values = values.float() / LARGEST[seen.dtype]
    values = values.to(first.dtype)
    colour = values[:-1] if has_alpha else values
    wanted, grey = model.config.in_chans, len(colour) < model.config.in_chans
    parts = [colour, values[-1:]] if has_alpha else [colour]
    results = model(torch.stack([part.expand(wanted, -1, -1) for part in parts]))
    first_part = results[0].mean(0, keepdim=True) if grey else results[0]
    return torch.cat([first_part, results[1].mean(0, keepdim=True)]) if has_alpha else first_part


def _like(values: Tensor, pixels: Tensor) -> Tensor:
    """Bring values to the type of number of a picture."""
    largest = LARGEST.get(pixels.dtype)
    if largest is None:
        return values.to(pixels)
    return (
        (values.float().clamp(0, 1) * largest)
        .round()
        .to(pixels.device, torch.int32)
        .to(pixels.dtype)
    )


def _has_alpha(model: Any, pixels: Tensor) -> bool:
    """Return whether the last channel is alpha, of a picture that the network can enlarge."""
    channels, wanted = len(pixels), model.config.in_chans
    if not pixels.numel() or not (pixels.dtype in LARGEST or pixels.is_floating_point()):
        raise _unusable(pixels)
    if pixels.is_floating_point() and not bool(pixels.isfinite().all()):
        raise UserError("the picture holds values that are NaN or infinite; mend it first")
    if channels in (wanted, 1):
        return False
    if wanted in (1, 3) and channels in (2, wanted + 1):
        return True
    raise UserError(
        f"a picture of {channels} channels does not fit: this {type(model).__name__} takes "
        f"{wanted}, or grey, each with or without alpha; convert it first"
    )


def _unusable(picture: Any) -> UserError:
    return UserError(
        f"a picture is a tensor (channel, height, width) or an array (height, width, channel) of "
        f"uint8, uint16 or float, got {type(picture).__name__} of {picture.dtype} "
        f"{tuple(picture.shape)}"
    )


def _side(model: Any, height: int, width: int, tile: int | None) -> int:
    radius = model.config.receptive_radius()
    if tile is None:
        return automatic_side(height, width, radius)
    if tile < 1:
        raise UserError(f"a tile has a side of 1 pixel at least, got {tile}")
    if radius is None:
        raise UserError(
            f"{type(model).__name__} pools over the whole picture, so tiles would differ; leave "
            "the tile out"
        )
    return tile
