"""Folders of labelled pictures: what is listed, held out, augmented, and refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from sixfold.core import UserError
from sixfold.vision.data.classification import (
    Pictures,
    accuracy,
    evaluate_transform,
    hold_out,
    list_pictures,
    train_transform,
)

MEAN = STD = (0.5, 0.5, 0.5)


@pytest.fixture
def folder(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for i in range(4):
            value = np.full((20 + i, 24, 3), 40 * label + i, np.uint8)
            Image.fromarray(value).save(tmp_path / name / f"{i}.png")
    return tmp_path


def read(file):
    return Image.open(file).convert("RGB")


def pictures(folder):
    transforms = (train_transform(16, MEAN, STD), evaluate_transform(16, MEAN, STD))
    return Pictures(list_pictures(folder), *transforms, read)


def test_classes_are_the_folders_in_alphabetical_order(folder):
    found = list_pictures(folder)
    assert found.classes == ["cat", "dog"]
    assert list(found.labels) == [0] * 4 + [1] * 4
    assert list_pictures(folder, ["dog", "cow", "cat"]).labels == [2] * 4 + [0] * 4


def test_what_is_no_folder_of_classes_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        list_pictures(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures in folders named by their class"):
        list_pictures(tmp_path / "empty")
    with pytest.raises(UserError, match="knows no class 'dog'; it knows cat, cow"):
        list_pictures(folder, ["cat", "cow"])


def test_the_held_out_pictures_are_of_every_class_and_no_other(folder):
    listing = list_pictures(folder)
    kept, held = hold_out(listing, 0.25, seed=3)
    assert sorted([*kept.files, *held.files]) == sorted(listing.files)
    assert sorted(held.labels) == [0, 1]
    assert hold_out(listing, 0.25, seed=3)[1].files == held.files
    for i in range(1, 4):
        (folder / "cat" / f"{i}.png").unlink()
    with pytest.raises(UserError, match="class 'cat' has one picture"):
        hold_out(list_pictures(folder), 0.25, seed=3)


def test_the_generator_alone_fixes_the_augmentation(folder):
    data = pictures(folder)

    def drawn(seed):
        return data.sample(5, torch.Generator().manual_seed(seed))["input"]

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = drawn(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(drawn(0), first)
    assert first.shape == (3, 16, 16)


def test_accuracy_counts_right_answers_of_every_batch(folder):
    data = pictures(folder)

    class Brightness(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x):  # the dogs are brighter
            bright = 100 * self.scale * (x.mean((1, 2, 3)) + 1 - 40 / 255)
            return torch.stack([-bright, bright], 1)

    found = accuracy(Brightness(), data, batch=3)
    assert found["accuracy"] == 100
    assert found["loss"] < 0.1
