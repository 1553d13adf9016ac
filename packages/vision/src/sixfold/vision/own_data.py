"""Training on one's own pictures: ``sixfold train vision/cfsr --data pictures/ --out mine``."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sixfold.core import Config, System, UserError
from sixfold.core.own_data import Recipe, Splits, command, initial_model
from sixfold.core.training.fit import FitConfig
from sixfold.core.training.schedule import ScheduleConfig
from sixfold.core.training.update import EarlyStopping
from sixfold.vision.data.classification import accuracy, list_pictures
from sixfold.vision.data.classification import hold_out as hold_out_labelled
from sixfold.vision.data.own_pictures import (
    OwnPictures,
    PictureConfig,
    find_pictures,
    hold_out,
)
from sixfold.vision.data.segmentation import UNLABELLED, CropOptions, Crops, Files, find_pairs
from sixfold.vision.images.enlarging import upscale
from sixfold.vision.images.resize import imresize
from sixfold.vision.metrics import confusion, mean_iou, psnr_y, to_bytes
from sixfold.vision.models import cfsr, edsr, imdn, pan, repavit
from sixfold.vision.models.fdconv import SEGMENTER

PLATEAU = ScheduleConfig(name="plateau", gamma=0.5, patience=4)


class ClassificationOptions(Config):
    """Settings of the classification of one's own pictures.

    Args:
        smallest_crop: Smallest share of a picture that a random crop for training shows.
    """

    smallest_crop: float = Field(default=0.08, gt=0, le=1)


def open_labelled(
    data: Path, valid: Path | float, model: Any, options: ClassificationOptions, seed: int
) -> Splits:
    """Open a folder with a folder of pictures for each class.

    Raises:
        UserError: as `list_pictures` and `hold_out_labelled`.
    """
    train = list_pictures(data, model.config.classes)
    if isinstance(valid, Path):
        held = list_pictures(valid, train.classes)
    else:
        train, held = hold_out_labelled(train, valid, seed)
    pictures, held_out = repavit.open_splits(model, train, held, options.smallest_crop)
    print(
        f"{data}: {len(pictures)} pictures to train on, {len(held_out)} for validation, of "
        f"{len(train.classes)} classes; the network sees {repavit.input_size(model)} pixels"
    )
    return Splits(pictures, held_out, [*train.files, *held.files])


def build_classifier(
    system: System, weights: str | None, settings: dict[str, Any], data: Path, _: Config
) -> nn.Module:
    """Build the network for the classes of the pictures; other classes get a new last layer.

    Raises:
        UserError: as `list_pictures`; the checkpoint is merged.
    """
    classes = tuple(list_pictures(data).classes)
    if weights is None:
        settings |= {"num_classes": len(classes)}
    model: Any = initial_model(system, weights, settings)
    if model.config.merged:
        raise UserError(f"{weights} is merged; train from the form that it was merged from")
    others = model.config.classes not in ((), classes)
    if others or model.config.num_classes != len(classes):
        print(f"{weights} knows {model.config.num_classes} other classes: a new last layer")
        model.backbone.reset_classifier(len(classes))
    facts = {"classes": classes, "num_classes": len(classes)}
    model.config = model.config.model_copy(update=facts)
    return model


def classification_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return the cross-entropy with labels smoothed by 0.1, as DeiT's recipe has it."""
    return nn.functional.cross_entropy(model(batch["input"]), batch["label"], label_smoothing=0.1)


train_repavit = command(
    repavit.SYSTEM,
    Recipe(
        open_labelled,
        classification_loss,
        accuracy,
        FitConfig(
            steps=10_000,
            batch=64,
            learning_rate=5e-4,
            optimizer="adamw",
            weight_decay=0.05,
            clip=1.0,
            schedule=PLATEAU,
            best=EarlyStopping(monitor="accuracy", mode="max", patience=10),
        ),
        ClassificationOptions,
        build_classifier,
    ),
)


EXACT_DB = 100.0  # stands for infinity, the PSNR of a flat picture without any error


def open_pictures(
    data: Path, valid: Path | float, model: Any, options: PictureConfig, seed: int
) -> Splits:
    """Open a folder of pictures of high resolution for a network that enlarges.

    Raises:
        UserError: as `find_pictures`; one picture cannot be split; the network does not enlarge, or
            has neither one channel nor three.
    """
    scale, channels = model.config.upscale, model.config.in_chans
    if scale == 1 or channels not in (1, 3):
        raise UserError(
            f"pictures teach to enlarge grey or RGB; this network has {channels} channels and "
            f"enlarges by {scale}; train it with sixfold.core.training.fit"
        )
    least = options.patch * scale
    files = find_pictures(data, least)
    if isinstance(valid, Path):
        held = find_pictures(valid, least)
    else:
        files, held = hold_out(files, valid, seed, data)
    print(f"{data}: {len(files)} pictures to train on, {len(held)} for validation, x{scale}")
    train, held_out = (OwnPictures(part, scale, channels, options) for part in (files, held))
    return Splits(train, held_out, [*files, *held])


def l1_loss(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the mean absolute error."""
    return {"l1": (model(batch["low"]) - batch["high"]).abs().mean()}


def evaluate(model: Any, valid: OwnPictures) -> dict[str, float]:
    """Return mean PSNR-Y in dB, and how much it is above MATLAB's bicubic enlargement."""
    scale, found = valid.scale, []
    for low, high in valid.centres():
        enlarged, bicubic = upscale(model, low), to_bytes(imresize(low / 255.0, scale))
        found.append([min(psnr_y(made, high, scale), EXACT_DB) for made in (enlarged, bicubic)])
    mean, reference = np.mean(found, 0).tolist()
    return {"psnr_y": mean, "psnr_y_over_bicubic": mean - reference}


RECIPE = Recipe(
    open=open_pictures,
    loss=l1_loss,
    evaluate=evaluate,
    fit=FitConfig(
        steps=20_000,
        batch=16,
        learning_rate=5e-4,
        schedule=PLATEAU,
        best=EarlyStopping(monitor="psnr_y", mode="max", patience=10),
    ),
    options=PictureConfig,
)

train_cfsr = command(cfsr.SYSTEM, RECIPE)
train_pan = command(pan.SYSTEM, RECIPE)
train_imdn = command(imdn.SYSTEM, RECIPE)
train_edsr = command(edsr.SYSTEM, RECIPE)


def segmentation_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return the cross-entropy of the labelled pixels."""
    return functional.cross_entropy(model(batch["image"]), batch["mask"], ignore_index=UNLABELLED)


def segmentation_scores(model: Any, valid: Any) -> dict[str, float]:
    """Return the mean IoU in percent, and the share of pixels that are right, over pictures."""
    classes = model.config.classes
    counts = torch.zeros(classes, classes, dtype=torch.long)
    device = next(model.parameters()).device
    for picture, mask in valid:
        logits = model((picture.float() / 255)[None].to(device))
        counts += confusion(logits[0].argmax(0).cpu(), mask.long(), classes)
    right = float(100 * counts.diagonal().sum() / counts.sum())
    return {"miou": mean_iou(counts), "accuracy": right}


def open_segmentation(
    data: Path, valid: Path | float, model: Any, options: CropOptions, seed: int
) -> Splits:
    """Open pictures and masks; CamVid's ``test`` is not touched.

    Raises:
        UserError: the layout is unknown, a file is bad, or too few are there to hold some out.
    """
    pairs = find_pairs(data)
    if isinstance(valid, Path):
        held = find_pairs(valid)
    else:
        pairs, held = hold_out(pairs, valid, seed, data)
    config = model.config
    opened, held_out = (Files(p, config.scale, config.classes) for p in (pairs, held))
    # what is wrong is said before anything is trained
    values = [{int(v) for _, mask in part for v in mask.unique()} for part in (opened, held_out)]
    _check_labels(data, *values)
    print(f"{data}: {len(pairs)} pictures to train on, {len(held)} for validation")
    crops = Crops(opened, (options.crop_height, options.crop_width), repeats=4)
    return Splits(crops, held_out, [file for pair in [*pairs, *held] for file in pair])


def _check_labels(data: Path, train: set[int], held_out: set[int]) -> None:
    """Raise a UserError if masks hold no class, or look like black and white ones."""
    if not (train - {UNLABELLED} and held_out - {UNLABELLED}):
        raise UserError(f"{data}: no pixel of the masks is labelled ({UNLABELLED} is unlabelled)")
    if train | held_out == {0, UNLABELLED}:
        raise UserError(
            f"{data}: the masks hold 0 and {UNLABELLED} alone, and {UNLABELLED} is unlabelled; "
            "save the foreground as 1"
        )


train_segmenter = command(
    SEGMENTER,
    Recipe(
        open_segmentation,
        segmentation_loss,
        segmentation_scores,
        FitConfig(
            steps=2000,
            batch=6,
            learning_rate=2e-3,
            optimizer="adamw",
            weight_decay=1e-2,
            clip=5.0,
            schedule=PLATEAU,
            best=EarlyStopping(monitor="miou", mode="max", patience=10),
        ),
        CropOptions,
    ),
)
