"""Enlarge pictures from the command line: ``sixfold run vision/cfsr in.png out.png --scale 4``."""

from pathlib import Path

from sixfold.core.devices import check_device
from sixfold.vision.images.enlarging import check_scale, enlarge_files
from sixfold.vision.models.cfsr.model import CFSR


def run(
    *paths: Path,
    scale: int | None = None,
    weights: str | None = None,
    tile: int | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> None:
    """Enlarge pictures two, three or four times.

    Any size, grey or colour, with or without transparency, 8 or 16 bits a channel; an output is
    upright and keeps EXIF and colour profile. Large pictures are enlarged tile by tile, without
    seams.

    Args:
        paths: One or more pictures, folders of them or quoted patterns ('*.png') and, last, the
            output: a .png (as many bits as the input), .jpg, .webp, .tif or .bmp file, or a folder.
        scale: Factor of the enlargement: 2, 3 or 4; by default the weights', or 4.
        weights: Released or sixfold checkpoint, or name of published weights; by default the
            published CFSR_x<scale>.pth.
        tile: Side of a tile in pixels of the input; by default as large as memory allows.
        device: Torch device: cpu, cuda, cuda:1 ...
        overwrite: Whether finished outputs in a folder are made again.
    """
    weights = weights or f"CFSR_x{scale or 4}.pth"
    check_device(device)
    model = CFSR.from_pretrained(weights)
    check_scale(model, scale, weights)
    enlarge_files(model, paths, tile=tile, device=device, overwrite=overwrite)
