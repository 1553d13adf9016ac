"""Classify picture files, and open folders of labelled pictures as a network sees them."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from timm.data import resolve_model_data_config
from torch import Tensor

from sixfold.core import UserError
from sixfold.core.data.atomic import write_atomic
from sixfold.core.devices import check_device
from sixfold.core.progress import progress
from sixfold.vision.data.classification import (
    Listing,
    Pictures,
    Transform,
    evaluate_transform,
    list_pictures,
    train_transform,
)
from sixfold.vision.images.files import READS, read_rgb
from sixfold.vision.images.network import check_eval_mode
from sixfold.vision.models.repavit.model import RePaViT


def run(*paths: Path, weights: Path, device: str = "cpu", batch: int = 16) -> None:
    """Classify pictures.

    A picture that cannot be read is named and left out, and the exit status is 1.

    Args:
        paths: One or more pictures or folders of them and, last, the table to write: a .csv file
            with, for each picture, the likeliest class and the probability of every class.
        weights: Official RePaViT or sixfold checkpoint, in the training or the merged form.
        device: Torch device: cpu, cuda, cuda:1 ...
        batch: Number of pictures of a pass.
    """
    if batch < 1:
        raise UserError(f"--batch is a number of pictures, 1 or more; got {batch}")
    if len(paths) < 2:
        raise UserError("name one or more pictures or folders and, last, the table: scores.csv")
    *given, target = map(Path, paths)
    if target.suffix.lower() != ".csv" or target.is_dir():
        raise UserError(f"the scores become a table; name it .csv, not {target}")
    if not target.absolute().parent.is_dir():
        raise UserError(f"cannot write {target}: there is no folder {target.parent}")
    files = _files(given)
    model = load(weights, device)
    names = model.config.classes or tuple(map(str, range(model.config.num_classes)))
    rows = [["file", "class", "probability", *names]]
    for file, probabilities in _classified(model, files, batch):
        best = int(probabilities.argmax())
        values = [f"{value:.6g}" for value in probabilities.tolist()]
        rows.append([str(file), names[best], values[best], *values])
    if len(rows) == 1:
        raise UserError("no picture could be read")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomic(target, text.getvalue())
    left_out = len(files) - len(rows) + 1
    print(f"{target}: {len(rows) - 1} pictures")
    if left_out:
        print(f"{left_out} of {len(files)} were left out, see above")
        raise SystemExit(1)


def load(weights: str | Path, device: str = "cpu") -> RePaViT:
    """Load a checkpoint for inference: merged, if its form allows, and in eval mode.

    Raises:
        UserError: there is no such device, or the checkpoint is missing, damaged or another
            system's.
    """
    check_device(device)
    model = RePaViT.from_pretrained(weights)
    trainable = not (model.config.merged or model.config.vanilla)
    merges = trainable and model.config.feature_norm == "BatchNorm"
    return (model.merged() if merges else model).to(device)


def classify(model: RePaViT, pictures: Sequence[Image.Image]) -> Float[Tensor, "picture class"]:
    """Return the probability of each class, for pictures of any size.

    Args:
        model: Network in eval mode.
        pictures: Pillow images, in RGB.

    Raises:
        UserError: the network is in training mode.
    """
    check_eval_mode(model)
    seen = transforms(model)[1]
    device = next(model.parameters()).device
    with torch.no_grad():
        return model(torch.stack([seen(p) for p in pictures]).to(device)).softmax(1).cpu()


def transforms(model: RePaViT, smallest_crop: float = 0.08) -> tuple[Transform, Transform]:
    """Return the transforms of pictures for training and for evaluation."""
    config, size = model.config, input_size(model)
    train = train_transform(size, config.mean, config.std, smallest_crop)
    return train, evaluate_transform(size, config.mean, config.std, config.crop)


def input_size(model: RePaViT) -> int:
    """Return the side of the square picture that the network was built for, in pixels.

    Raises:
        UserError: its pictures are not square.
    """
    backbone: Any = model.backbone
    embed = getattr(backbone, "patch_embed", None) or getattr(backbone, "stem", None)
    if size := getattr(embed, "img_size", None):
        if size[0] != size[1]:
            raise UserError(
                f"the network takes pictures of {size[0]} x {size[1]} pixels; files are cut to "
                "squares: create it with one number as img_size"
            )
        return int(size[0])
    if model.config.family == "timm":
        return int(resolve_model_data_config(backbone)["input_size"][-1])
    return model.config.img_size


def open_splits(
    model: RePaViT, train: Listing, val: Path | Listing, smallest_crop: float = 0.08
) -> tuple[Pictures, Pictures]:
    """Open labelled pictures as a network sees them, and note in its settings what it saw.

    Args:
        model: Network, with as many classes as the pictures.
        train: Pictures to train on.
        val: Pictures to score, or their folder.
        smallest_crop: Smallest share of a picture that a random crop for training shows.

    Raises:
        UserError: the number of classes differs, or the validation pictures are no such folder.
    """
    if len(train.classes) != model.config.num_classes:
        raise UserError(
            f"the pictures have {len(train.classes)} classes ({', '.join(train.classes[:5])} ...), "
            f"the network {model.config.num_classes}; create it with "
            f"num_classes={len(train.classes)}"
        )
    if model.config.in_chans != 3:
        raise UserError(
            f"pictures are read in RGB, the network takes {model.config.in_chans} channels; create "
            "it with in_chans=3"
        )
    held = val if isinstance(val, Listing) else list_pictures(val, train.classes)
    facts = {"classes": tuple(train.classes)}
    if model.config.family == "timm":
        found: Any = resolve_model_data_config(model.backbone)
        facts |= {"mean": found["mean"], "std": found["std"], "crop": found["crop_pct"]}
    model.config = model.config.model_copy(update=facts)
    seen = transforms(model, smallest_crop)
    return Pictures(train, *seen), Pictures(held, *seen)


def _files(given: Sequence[Path]) -> list[Path]:
    """List the pictures named, and those in folders named.

    Raises:
        UserError: a name is no file, or there are no pictures.
    """
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = (f for f in sorted(path.rglob("*")) if f.suffix.lower() in READS)
            found += [f for f in inside if f.is_file()]
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"there is no file {path}")
    if not found:
        raise UserError(f"{given[0]} holds no pictures ({', '.join(sorted(READS))})")
    return found


def _classified(
    model: RePaViT, files: Sequence[Path], batch: int
) -> Iterator[tuple[Path, Float[Tensor, " class"]]]:
    """Yield the probabilities of each picture that can be read."""
    with progress("classifying", len(files)) as advance:
        for start in range(0, len(files), batch):
            read: dict[Path, Image.Image] = {}
            for file in files[start : start + batch]:
                try:
                    read[file] = read_rgb(file)
                except UserError as error:
                    print(f"left out: {error}", flush=True)
            if read:
                yield from zip(read, classify(model, list(read.values())), strict=True)
            advance(len(files[start : start + batch]))
