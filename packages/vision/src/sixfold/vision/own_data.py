"""Training of the vision systems on one's own pictures: ``sixfold train vision/repavit``."""

from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from sixfold.core import Config, System, UserError
from sixfold.core.own_data import Recipe, Splits, command, initial_model
from sixfold.core.training.fit import FitConfig
from sixfold.core.training.schedule import ScheduleConfig
from sixfold.core.training.update import EarlyStopping
from sixfold.vision.data.classification import accuracy, hold_out, list_pictures
from sixfold.vision.models import repavit

PLATEAU = ScheduleConfig(name="plateau", gamma=0.5, patience=4)


class ClassificationOptions(Config):
    """Settings of the classification of one's own pictures.

    Args:
        smallest_crop: Smallest share of a picture that a random crop for training shows.
    """

    smallest_crop: float = Field(default=0.08, gt=0, le=1)


def open_pictures(
    data: Path, valid: Path | float, model: Any, options: ClassificationOptions, seed: int
) -> Splits:
    """Open a folder with a folder of pictures for each class.

    Raises:
        UserError: as `list_pictures` and `hold_out`.
    """
    train = list_pictures(data, model.config.classes)
    if isinstance(valid, Path):
        held = list_pictures(valid, train.classes)
    else:
        train, held = hold_out(train, valid, seed)
    pictures, held_out = repavit.open_splits(model, train, held, options.smallest_crop)
    print(
        f"{data}: {len(pictures)} pictures to train on, {len(held_out)} for validation, of "
        f"{len(train.classes)} classes; the network sees {repavit.input_size(model)} pixels"
    )
    return Splits(pictures, held_out, [*train.files, *held.files])


def build_classifier(
    system: System, weights: str | None, settings: dict[str, Any], data: Path
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
        open_pictures,
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
