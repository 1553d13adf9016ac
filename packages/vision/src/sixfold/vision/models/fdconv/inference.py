"""Label the pixels of pictures: tensors, and files from the command line."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional

from sixfold.core import UserError
from sixfold.core.data.atomic import write_atomic
from sixfold.core.data.tensors import as_tensor
from sixfold.core.devices import check_device
from sixfold.core.many_files import run_files
from sixfold.vision.data.segmentation import encode_mask, read_picture, resize_picture
from sixfold.vision.models.fdconv.segmentation import Segmenter

READS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}
DEFAULT_WEIGHTS = Path("pipelines/vision/weights/segmentation/fdconv/seed-0.safetensors")


def run(
    *paths: Path, weights: Path | None = None, device: str = "cpu", overwrite: bool = False
) -> None:
    """Label every pixel of pictures with its class.

    An output is a palette PNG of the size of the picture whose values are the classes.

    Args:
        paths: One or more pictures, folders of them or quoted patterns ('*.png') and, last, the
            output: a .png file, or a folder.
        weights: Checkpoint; by default the one that this repository's pipeline trained.
        device: Torch device: cpu, cuda, cuda:1 ...
        overwrite: Whether finished outputs in a folder are made again.
    """
    place = check_device(device)
    model = Segmenter.from_pretrained(weights or DEFAULT_WEIGHTS).to(place)

    def work(source: Path, output: Path) -> None:
        if output.suffix.lower() != ".png":
            raise UserError(f"cannot write {output}: masks are .png files")
        write_atomic(output, encode_mask(segment(model, read_picture(source))))

    run_files(paths, work, reads=READS, writes=[".png"], overwrite=overwrite)


@torch.no_grad()
def segment(model: Any, picture: Any) -> Int[Tensor, "height width"]:
    """Label every pixel of a picture.

    Args:
        model: Segmenter in eval mode.
        picture: Picture (3, height, width) with values between 0 and 1, of any size; a tensor or
            an array.

    Returns:
        The class of each pixel, on the CPU.

    Raises:
        UserError: the model is in training mode, or this is no picture.
    """
    if model.training:
        raise UserError("the segmenter is in training mode; call model.eval() first")
    picture = as_tensor(picture, "the picture")
    if picture.ndim != 3 or picture.shape[0] != 3 or not picture.is_floating_point():
        raise UserError(
            f"segment takes a float picture (3, height, width), got {picture.dtype} "
            f"{tuple(picture.shape)}"
        )
    if not bool(picture.isfinite().all()):
        raise UserError("the picture holds values that are NaN or infinite; mend it first")
    small = resize_picture(picture, model.config.scale)
    logits = model(small[None].to(next(model.parameters()).device)).cpu()
    whole = functional.interpolate(logits, size=picture.shape[1:], mode="bilinear")
    return whole[0].argmax(0)
