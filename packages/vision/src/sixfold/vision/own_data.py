"""Training of the vision systems on one's own data: ``sixfold train vision/fdconv_seg``."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sixfold.core import UserError
from sixfold.core.own_data import Recipe, Splits, command
from sixfold.core.training.fit import FitConfig
from sixfold.core.training.schedule import ScheduleConfig
from sixfold.core.training.update import EarlyStopping
from sixfold.vision.data.segmentation import UNLABELLED, CropOptions, Crops, Files, find_pairs
from sixfold.vision.metrics import confusion, mean_iou
from sixfold.vision.models.fdconv import SEGMENTER

# Segmentation: pictures and masks, see `sixfold.vision.data.segmentation`.


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
        count = max(1, round(valid * len(pairs)))
        if count >= len(pairs):
            raise UserError(f"{data} holds {len(pairs)} picture; give others with --valid")
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(pairs), generator=generator).tolist()
        pairs, held = [pairs[i] for i in order[count:]], [pairs[i] for i in order[:count]]
    config = model.config
    opened, held_out = (Files(p, config.scale, config.classes) for p in (pairs, held))
    for split in (opened, held_out):
        for picture, _ in split:  # what is wrong is said before anything is trained
            del picture
    print(f"{data}: {len(pairs)} pictures to train on, {len(held)} for validation")
    crops = Crops(opened, (options.crop_height, options.crop_width), repeats=4)
    return Splits(crops, held_out, [file for pair in [*pairs, *held] for file in pair])


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
            schedule=ScheduleConfig(name="plateau", gamma=0.5, patience=4),
            best=EarlyStopping(monitor="miou", mode="max", patience=10),
        ),
        CropOptions,
    ),
)
